"""One aiohttp websocket: the only file that knows aiohttp's message types and exceptions.

Text frames arrive as bytes (``decode_text=False``), which the JSON decoder needs. There is one
reader and no receive timeout: after a cancelled receive, aiohttp reports a wrong close code.

Every wait for the peer is bounded. Pings are answered here, because aiohttp's own answer waits
until the peer reads, and the reader would wait with it. A close gets ``CLOSE_TIMEOUT`` seconds.
Then the connection is cut and unsent data is lost.

The text of an aiohttp exception may hold the whole URL, key included. So none of them becomes the
cause or the context of ours, and the text is made here. Only an ``OSError`` is kept as a cause.
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
"""Seconds for an orderly end: buffered frames, the peer's close frame, and the end of TLS."""
BATCH: Final = 2048
"""Frames read in one turn of the loop.

Reading a buffered frame does not yield. Without this limit a peer that
floods us would keep all other tasks from running, and also the timer that ends the link.
"""
PONG_ROOM: Final = 2**16
"""The number of buffered bytes up to which a pong is written; above it, the pong waits."""
PONG_PAUSE: Final = 0.1
"""Seconds between two checks if a waiting pong can be written."""
CLOCK_TOLERANCE = 2.0
"""Seconds by which our clock and the server's may differ and still count as equal."""


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
        # aiohttp has no public name for these two. aiohttp drops both at a close, which may come
        # before the last byte is sent.
        connection = ws._response.connection
        self._wire = connection.transport if connection is not None else None
        protocol = connection.protocol if connection is not None else None
        self._is_gone = protocol.closed if protocol is not None else None
        if self._is_gone is not None:
            self._is_gone.add_done_callback(_retrieve_exception)

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
        """Returns Unix time: by the ``Date`` header of the handshake if our clock is wrong.

        The header counts whole seconds and was sent some time ago. So our clock counts as right
        if the two are close, and it is the more precise one.
        """
        ours, theirs = time.time(), self._server_time()
        return ours if theirs is None or abs(theirs - ours) < CLOCK_TOLERANCE else theirs

    def _server_time(self) -> float | None:
        # aiohttp has no public name for the headers of the handshake.
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
        """Pass every frame to a callback until the socket ends; returns the reason."""
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
        """Returns the error for a failure of the WebSocket layer, such as an oversized message."""
        code = getattr(error, "code", None) or self._ws.close_code
        hint = None
        if code == 1009:
            hint = "a message was larger than max_message_size; raise it"
        kind = type(error).__name__
        known = facts(error, host=self._host, close_code=code)
        log.warning("websocket to %s broke: %s", self._host, kind, extra=known)
        return _lost(code if isinstance(code, int) else None, "", hint)

    def write(self, frame: str | bytes) -> Unfinished | None:
        """Write one frame at the call; returns the rest of the work, or None if it is done.

        aiohttp writes in a coroutine that waits only if the peer has not read earlier frames. So
        the coroutine is run here up to its first wait, without a task. The caller ends the rest.
        Raises ``ConnectionLost`` if the socket is closed.
        """
        if self._pong is not None:
            # A busy writer fills the buffer at once; between two frames a pong may still fit.
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
        """Returns the error for a writer that finds the socket closed."""
        return _lost(self._ws.close_code, "")

    def _answer(self, ping: bytes) -> None:
        """Write a pong, or keep it until the peer has read the earlier frames.

        Only the newest pong is kept: it answers all pings before it (RFC 6455, section 5.5.3).
        So a peer that pings and never reads cannot fill the memory.
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
        """Returns the loop's time at which a close that begins now is over."""
        return asyncio.get_running_loop().time() + CLOSE_TIMEOUT

    async def close(self, code: int = 1000, reason: str = "", by: float | None = None) -> None:
        """Close in good order if the peer answers, and by force at the time ``by``.

        The code and time of the first call count. That call ends the reader, whose owner then
        closes too; aiohttp may write the close frame of either call.
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
        """Cut the socket of a dead link at once; ``pump`` then returns ``cause``.

        If nothing is buffered, a close frame is written first, for a peer that is only slow.
        """
        self._cause = cause
        wire = self._wire
        if wire is not None and not wire.is_closing() and not wire.get_write_buffer_size():
            content = (1000).to_bytes(2, "big") + str(cause).encode()[:123]
            _write_now(self._ws.send_frame(content, WSMsgType.CLOSE))
        self._abort()

    def _abort(self) -> None:
        """Cut the connection, if there still is one; unsent data is lost."""
        self._pong = None
        if self._pong_later is not None:
            self._pong_later.cancel()
            self._pong_later = None
        if self._wire is not None:
            self._wire.abort()


class Unfinished:
    """A frame that aiohttp has begun to write, while the peer does not read."""

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
        # asyncio would complain of an exception that nobody retrieves if the socket breaks and
        # the writer is gone.
        waits_for.add_done_callback(_retrieve_exception)

    async def end(self) -> None:
        """Wait until the frame is written; raises ``ConnectionLost`` if the socket is closed."""
        try:
            while True:
                # Not awaited directly: cancelling the await would cancel the future. aiohttp shares
                # that future with other writers, such as that of a pong.
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
    """Put a control frame into the buffer, without waiting for the peer to read it."""
    try:
        waits_for: asyncio.Future[None] = writing.send(None)
        waits_for.add_done_callback(_retrieve_exception)
    except (StopIteration, aiohttp.ClientError, OSError):
        # The socket is closed, which the reader reports.
        pass
    finally:
        writing.close()


def _retrieve_exception(future: asyncio.Future[None]) -> None:
    if not future.cancelled():
        future.exception()


def _lost(code: int | None, reason: str, hint: str | None = None) -> ConnectionLost:
    # A plain int: users see it and compare it, and aiohttp's enum has another repr.
    code = int(code or 1006)
    text = f"socket closed: {code}" + (f" ({reason})" if reason else "")
    return ConnectionLost(text, close_code=code, reason=reason, hint=hint)


def connection_failed(exc: BaseException, host: str, timeout: float) -> ConnectionFailed:
    """Returns the error of ours for a failed attempt; all attempts fail through here."""
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
        # aiohttp reports an answer that is no HTTP as status 400, but no server sent that.
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
    # asyncio puts its own words and the address into strerror, so the text is looked up by the
    # number. TLS errors have numbers of their own.
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
