"""One aiohttp websocket: the only file that knows aiohttp's message types and exceptions.

Frames come in as bytes (``decode_text=False``): the JSON decoder wants bytes anyway. There is
one reader and no receive timeout, because a cancelled receive leaves a wrong close code behind
in aiohttp for good.

Nothing here waits for a peer without end. A ping is answered by ourselves, because aiohttp's own
answer waits until the peer reads, and keeps the reader from its frames meanwhile. A close gets
``CLOSE_TIMEOUT`` seconds, then the connection is cut, whatever was not sent.

An aiohttp exception may quote the whole URL, key included. So none of them is kept as a cause
or a context of ours: the text is made here, the cause is kept only where it is an OSError.
"""

from __future__ import annotations

import asyncio
import email.utils
import errno
import os
import ssl as ssl_module
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

import aiohttp
import yarl
from aiohttp import ClientWSTimeout, WSMsgType
from aiohttp.http import HttpProcessingError

from .._printable import get_logger
from .._protocol.reconnect import http_failure
from .._runtime.http_session import Redirected, TransportOptions, cut_on_failure, no_redirect
from .._runtime.log_fields import facts
from ..errors import ConnectionFailed, ConnectionLost

__all__ = ["Transport", "Unfinished"]

log: Final = get_logger("supabase_rt.transport")

CLOSE_TIMEOUT = 2.0
"""Seconds for an orderly end: frames that leave, the peer's close frame, and TLS's own goodbye."""
BATCH: Final = 2048
"""Frames read in one turn of the loop. What is buffered needs no wait, and a peer that floods us
would else keep the loop from everybody, from the timer that ends the link for one."""
PONG_ROOM: Final = 2**16
"""Bytes that may wait to be written when a pong is added to them."""
PONG_PAUSE: Final = 0.1
"""Seconds between two looks whether a pong that waits has room."""
CLOCK_TOLERANCE = 2.0
"""Seconds by which two clocks may differ and still be the same."""


class Transport:
    """An open websocket. ``host`` is for messages: scheme, host and port, never the query."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse[Any], host: str) -> None:
        self._ws = ws
        self._host = host
        self._cause: ConnectionLost | None = None
        self._goodbye: tuple[int, str] | None = None
        self._close_by = 0.0
        self._pong: bytes | None = None
        self._pong_later: asyncio.TimerHandle | None = None
        # aiohttp offers neither under a public name, and lets go of both when it closes: before
        # the last byte has left, which may be never.
        connection = ws._response.connection
        self._wire = connection.transport if connection is not None else None
        protocol = connection.protocol if connection is not None else None
        self._is_gone = protocol.closed if protocol is not None else None
        if self._is_gone is not None:
            self._is_gone.add_done_callback(_look_at)

    @classmethod
    async def open(
        cls, http: aiohttp.ClientSession, url: str, host: str, options: TransportOptions
    ) -> Transport:
        """Open a websocket within ``options.timeout`` seconds; raises ``ConnectionFailed``."""
        failure: ConnectionFailed
        try:
            with no_redirect(http), cut_on_failure():
                async with asyncio.timeout(options.timeout):
                    ws = await http.ws_connect(
                        yarl.URL(url, encoded=True),
                        headers=options.headers,
                        timeout=ClientWSTimeout(ws_close=CLOSE_TIMEOUT),
                        max_msg_size=options.max_message_size,
                        decode_text=False,
                        autoclose=False,
                        autoping=False,
                        **options.request_kwargs(),
                    )
            return cls(ws, host)
        except (Redirected, aiohttp.ClientError, OSError, ValueError) as exc:
            failure = connection_failed(exc, host, options.timeout)
        raise failure

    def unix_time(self) -> float:
        """Unix time: by the server's clock, from the handshake, where ours is clearly wrong.

        The header counts whole seconds and is as old as the network is slow, so two clocks that
        are close agree, and ours is the finer one.
        """
        ours, theirs = time.time(), self._server_time()
        return ours if theirs is None or abs(theirs - ours) < CLOCK_TOLERANCE else theirs

    def _server_time(self) -> float | None:
        # aiohttp offers the handshake's headers under no public name.
        response = getattr(self._ws, "_response", None)
        header = response.headers.get("Date") if response is not None else None
        if not header:
            return None
        try:
            return email.utils.parsedate_to_datetime(header).timestamp()
        except (ValueError, TypeError):
            return None

    async def pump(
        self, on_text: Callable[[bytes], None], on_binary: Callable[[bytes], None]
    ) -> ConnectionLost:
        """Hand every frame over until the socket ends; returns why it ended."""
        receive = self._ws.receive
        text, binary = WSMsgType.TEXT, WSMsgType.BINARY
        while True:
            for _ in range(BATCH):
                kind, data, extra = await receive()
                if kind is text:
                    on_text(data)
                elif kind is binary:
                    on_binary(data)
                elif kind is WSMsgType.PING:
                    self._answer(data)
                elif kind is WSMsgType.CLOSE:
                    return self._cause or _lost(data, extra or "")
                elif kind is WSMsgType.ERROR:
                    return self._cause or self._broken(data)
                elif kind in (WSMsgType.CLOSED, WSMsgType.CLOSING):
                    return self._cause or _lost(self._ws.close_code, "")
            await asyncio.sleep(0)

    def _broken(self, error: Any) -> ConnectionLost:
        """The WebSocket layer itself failed: an oversized message, a bad opcode, a reset."""
        code = getattr(error, "code", None) or self._ws.close_code
        hint = None
        if code == 1009:
            hint = "a message was larger than max_message_size; raise it"
        kind = type(error).__name__
        known = facts(error, host=self._host, close_code=code)
        log.warning("websocket to %s broke: %s", self._host, kind, extra=known)
        return _lost(code if isinstance(code, int) else None, "", hint)

    def write(self, frame: str | bytes) -> Unfinished | None:
        """Write one frame at the call; None where that was all.

        aiohttp's way to write is a coroutine, which waits only where the peer does not take what
        was written before. So it is run here as far as it goes, without a task, and what is left
        of it is for the caller to end. Raises ``ConnectionLost`` where the socket is closed.
        """
        if self._pong is not None:
            # With one frame after the other the buffer may have room between them only.
            self._answer(self._pong)
        ws = self._ws
        writing = ws.send_str(frame) if isinstance(frame, str) else ws.send_bytes(frame)
        try:
            return Unfinished(self, writing, writing.send(None))
        except StopIteration:
            return None
        except (aiohttp.ClientError, OSError):
            pass
        raise self.closed()

    def closed(self) -> ConnectionLost:
        """What a writer hears of the socket's end."""
        return _lost(self._ws.close_code, "")

    def _answer(self, ping: bytes) -> None:
        """Write a pong, or keep it until the peer has read what was written before.

        Only the newest is kept: one pong answers all pings before it (RFC 6455, section 5.5.3).
        So a peer that pings and does not read costs a buffer, not the memory.
        """
        self._pong = None
        if self._wire is None or self._wire.is_closing():
            return
        if self._wire.get_write_buffer_size() > PONG_ROOM:
            self._pong = ping
            if self._pong_later is None:
                loop = asyncio.get_running_loop()
                self._pong_later = loop.call_later(PONG_PAUSE, self._answer_later)
            return
        _write_now(self._ws.pong(ping))

    def _answer_later(self) -> None:
        self._pong_later = None
        if self._pong is not None:
            self._answer(self._pong)

    @staticmethod
    def close_by() -> float:
        """The loop's time by which a close that begins now is over."""
        return asyncio.get_running_loop().time() + CLOSE_TIMEOUT

    async def close(self, code: int = 1000, reason: str = "", by: float | None = None) -> None:
        """Close, in good order where the peer lets us, and by force at the time ``by``.

        The first caller's code and time count: its close ends the reader, whose owner closes too,
        and which of the two writes the frame is up to aiohttp.
        """
        if self._goodbye is None:
            self._goodbye = code, reason
            self._close_by = self.close_by() if by is None else by
        code, reason = self._goodbye
        try:
            async with asyncio.timeout_at(self._close_by):
                await self._ws.close(code=code, message=reason.encode()[:123])
                if self._is_gone is not None:
                    await asyncio.wait([self._is_gone])
        except (TimeoutError, aiohttp.ClientError, OSError):
            words = "closing the websocket to %s did not end in time"
            log.debug(words, self._host, extra=facts(host=self._host))
        finally:
            self._abort()
        if self._is_gone is not None:
            await asyncio.wait([self._is_gone], timeout=CLOSE_TIMEOUT)

    def give_up_on(self, cause: ConnectionLost) -> None:
        """The link is dead though the socket does not say so: ``pump`` will return ``cause``.

        The socket is cut at once: waiting is for a peer that is there. A close frame goes before
        where that costs nothing, as the peer may only be slow.
        """
        self._cause = cause
        wire = self._wire
        if wire is not None and not wire.is_closing() and not wire.get_write_buffer_size():
            content = (1000).to_bytes(2, "big") + str(cause).encode()[:123]
            _write_now(self._ws.send_frame(content, WSMsgType.CLOSE))
        self._abort()

    def _abort(self) -> None:
        """Cut the connection where there still is one; what was not sent is thrown away."""
        self._pong = None
        if self._pong_later is not None:
            self._pong_later.cancel()
            self._pong_later = None
        if self._wire is not None:
            self._wire.abort()


class Unfinished:
    """A frame that is handed over while the peer does not take what was written before it."""

    __slots__ = ("_transport", "_waits_for", "_writing")

    def __init__(
        self,
        transport: Transport,
        writing: Coroutine[Any, Any, None],
        waits_for: asyncio.Future[None],
    ) -> None:
        self._transport = transport
        self._writing = writing
        self._waits_for = waits_for
        # Where nobody is left to end this when the socket breaks, asyncio would complain of it.
        waits_for.add_done_callback(_look_at)

    async def end(self) -> None:
        """Wait until the peer takes more. Raises ``ConnectionLost`` where the socket is closed."""
        try:
            while True:
                # Not awaited itself: aiohttp shares it with whoever else writes, a pong for one,
                # and a cancelled await would cancel it under them.
                await asyncio.wait([self._waits_for])
                self._waits_for = self._writing.send(None)
        except StopIteration:
            return
        except (aiohttp.ClientError, OSError):
            pass
        finally:
            self._writing.close()
        raise self._transport.closed()


def _write_now(writing: Coroutine[Any, Any, None]) -> None:
    """Write a control frame: it is in the buffer, and nobody waits for the peer to take it."""
    try:
        waits_for: asyncio.Future[None] = writing.send(None)
        waits_for.add_done_callback(_look_at)
    except (StopIteration, aiohttp.ClientError, OSError):
        # Where the socket is closed the reader says so.
        pass
    finally:
        writing.close()


def _look_at(future: asyncio.Future[None]) -> None:
    if not future.cancelled():
        future.exception()


def _lost(code: int | None, reason: str, hint: str | None = None) -> ConnectionLost:
    # An int, not aiohttp's enum: it is shown to users and compared by them.
    code = int(code or 1006)
    text = f"socket closed: {code}" + (f" ({reason})" if reason else "")
    return ConnectionLost(text, close_code=code, reason=reason, hint=hint)


def connection_failed(exc: BaseException, host: str, timeout: float) -> ConnectionFailed:
    """The one place where a failed attempt becomes an error of ours."""
    if isinstance(exc, aiohttp.ClientResponseError):
        return _refused_by_server(exc, host)
    if isinstance(exc, Redirected):
        return _refused(host, exc.status, exc.location, host)
    if isinstance(exc, TimeoutError):
        return ConnectionFailed(
            f"no connection to {host} within {timeout:g} s",
            code="ConnectTimeout",
            hint="check the URL and the network, or raise timeout=",
        )
    if isinstance(exc, aiohttp.InvalidURL):
        return ConnectionFailed(
            f"not a usable URL: {host}", code="InvalidURL", retryable=False, hint="mend the URL"
        )
    found = _unreachable(exc, host)
    cause = getattr(exc, "os_error", exc)
    if isinstance(cause, OSError) and not isinstance(cause, aiohttp.ClientError):
        found.__cause__ = cause
    return found


def _refused_by_server(exc: aiohttp.ClientResponseError, host: str) -> ConnectionFailed:
    if isinstance(exc.__cause__, HttpProcessingError):
        # What is no HTTP at all comes as a 400 of aiohttp's own making. Nobody refused us.
        return ConnectionFailed(
            f"{host} did not answer in HTTP",
            code="NotHTTP",
            hint="something in between garbles the answer, or it is not the port of a web server",
        )
    who = f"the proxy before {host}" if isinstance(exc, aiohttp.ClientHttpProxyError) else host
    location = exc.headers.get("Location") if exc.headers is not None else None
    return _refused(who, exc.status, location, host)


def _refused(who: str, status: int, location: str | None, host: str) -> ConnectionFailed:
    retryable, hint, code = http_failure(status, location=location, asked=host)
    return ConnectionFailed(
        f"{who} refused the connection: HTTP {status}",
        status=status,
        code=code,
        retryable=retryable,
        hint=hint,
    )


def _unreachable(exc: BaseException, host: str) -> ConnectionFailed:
    cause = getattr(exc, "os_error", exc)
    number = getattr(cause, "errno", None)
    # asyncio puts its own words and the address into strerror; the number has the plain reason,
    # but for TLS, which has numbers of its own.
    if isinstance(cause, ssl_module.SSLCertVerificationError):
        reason = cause.verify_message
    elif isinstance(cause, ssl_module.SSLError):
        reason = (cause.reason or type(cause).__name__).replace("_", " ").lower()
    elif isinstance(number, int) and number in errno.errorcode:
        reason = os.strerror(number)
    else:
        reason = getattr(cause, "strerror", None) or type(cause).__name__
    certificate = isinstance(exc, aiohttp.ClientConnectorCertificateError) or isinstance(
        cause, ssl_module.SSLCertVerificationError
    )
    if certificate:
        return ConnectionFailed(
            f"cannot trust the certificate of {host}: {reason}",
            code="CertificateError",
            retryable=False,
            hint="pass ssl=, an ssl.SSLContext that knows the issuer of the certificate",
        )
    if isinstance(exc, aiohttp.ClientSSLError):
        return ConnectionFailed(
            f"cannot speak TLS with {host}: {reason}",
            code="TLSError",
            hint="is the port a TLS port? use ws:// or http:// for one that is not",
        )
    if isinstance(exc, aiohttp.ClientConnectorDNSError):
        return ConnectionFailed(
            f"cannot find the host of {host}: {reason}",
            code="DNSError",
            hint="check the spelling of the URL, and the network",
        )
    return ConnectionFailed(
        f"cannot connect to {host}: {reason}",
        hint="is the server running there, and does no firewall stand between?",
    )
