"""Checks of the URL, the network and the key, up to a TCP or TLS connection."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
import urllib.parse

from ..._wire.jwt_claims import claims_of, expires_at
from .report import Report

__all__ = ["check_network"]

DAY = 86400


async def check_network(report: Report, url: str, key: str, timeout: float) -> bool:
    """Check URL, DNS, TCP, TLS and the key; returns False if the server cannot be reached."""
    found = _read(url)
    if found is None:
        report.fail("url", f"{url!r} is no URL", "it is https://<ref>.supabase.co, or http://…")
        return False
    scheme, host, port = found
    report.ok("url", f"{scheme}://{host}:{port}")
    reached = await _check_name(report, host, port, timeout)
    secure = scheme in ("https", "wss")
    reached = reached and await _check_port(report, host, port, secure, timeout)
    _check_key(report, key)
    return reached


def _read(url: str) -> tuple[str, str, int] | None:
    """Returns scheme, host and port; None if it is not the URL of a server."""
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    ports = {"http": 80, "ws": 80, "https": 443, "wss": 443}
    if parts.scheme not in ports or not parts.hostname:
        return None
    return parts.scheme, parts.hostname, port or ports[parts.scheme]


async def _check_name(report: Report, host: str, port: int, timeout: float) -> bool:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout):
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError) as exc:
        words = "no answer in time" if isinstance(exc, TimeoutError) else "there is no such name"
        advice = "check the spelling; a paused or deleted project has no name either"
        report.fail("dns", f"{host}: {words}", advice)
        return False
    addresses = sorted({str(each[4][0]) for each in found})
    report.ok("dns", f"{host} is {', '.join(addresses[:3])}")
    return True


async def _check_port(report: Report, host: str, port: int, secure: bool, timeout: float) -> bool:
    name = "tls" if secure else "tcp"
    started = time.perf_counter()
    writer = None
    try:
        async with asyncio.timeout(timeout):
            context = ssl.create_default_context() if secure else None
            _, writer = await asyncio.open_connection(host, port, ssl=context)
            found = writer.get_extra_info("ssl_object")
            version = f", {found.version()}" if found is not None else ""
    except ssl.SSLCertVerificationError as exc:
        report.fail(
            name,
            f"the certificate is not accepted: {exc.verify_message}",
            "a proxy that reads TLS? Install its certificate, or pass ssl= with a context",
        )
    except (ssl.SSLError, ConnectionResetError) as exc:
        advice = "a local server speaks http://, not https://" if secure else "is a proxy between?"
        report.fail(name, f"port {port} speaks no TLS ({type(exc).__name__})", advice)
    except TimeoutError:
        report.fail(name, f"port {port} does not answer", "a firewall? Try from another network")
    except OSError as exc:
        report.fail(
            name,
            f"port {port} cannot be reached: {exc.strerror or exc}",
            "is the server running? Locally: supabase-rt serve",
        )
    else:
        took = 1000 * (time.perf_counter() - started)
        report.ok(name, f"connected in {took:.0f} ms{version}")
        return True
    finally:
        if writer is not None:
            writer.transport.abort()
    return False


# -- the key -------------------------------------------------------------------------------


def _check_key(report: Report, key: str) -> None:
    """Check the key; it is never printed, because users paste this output into issues."""
    if key.startswith("sb_publishable_"):
        report.ok("key", "a publishable key")
        return
    if key.startswith("sb_secret_"):
        report.warn("key", "a secret key: it may do everything", "never ship it to users")
        return
    claims = claims_of(key)
    if claims is None:
        report.fail(
            "key", "neither a JWT nor an sb_… key", "copy it again from the project's API settings"
        )
        return
    expiry = expires_at(key)
    left = None if expiry is None else expiry - time.time()
    role = claims.get("role")
    if left is not None and left <= 0:
        report.fail("key", f"a JWT that expired {_ago(-left)} ago", "use a fresh one")
    elif role is None or left is None:
        lacking = "role" if role is None else "exp"
        report.fail("key", f"a JWT without {lacking!r}", "Realtime needs the claims role and exp")
    elif role == "service_role":
        report.warn("key", "the service_role key: no policy holds for it", "never ship it to users")
    else:
        report.ok("key", f"a JWT of the role {role}, good for {_ago(left)}")


def _ago(seconds: float) -> str:
    if seconds > 2 * DAY:
        return f"{seconds / DAY:.0f} days"
    return f"{seconds / 60:.0f} minutes" if seconds > 120 else f"{seconds:.0f} s"
