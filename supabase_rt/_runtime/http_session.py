"""The aiohttp session: the user's, or one of our own that lives as long as the client runs.

A redirect of the handshake is never followed, because the key in the headers would go along.
aiohttp's ``ws_connect`` has no option for that, but it calls its tracers before it follows a
redirect. The tracer of ``no_redirect`` raises, which ends the request. Other requests over the
user's session are not affected.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary, WeakSet

import aiohttp

from ..errors import ConnectionFailed, SendError

__all__ = [
    "MOST_ANSWER",
    "AnswerTooLarge",
    "HttpSession",
    "Redirected",
    "TransportOptions",
    "close_session",
    "cut_on_failure",
    "no_redirect",
    "open_session",
    "read_answer",
    "session_closed",
]

MOST_ANSWER: Final = 64 * 2**20
"""The default limit for one answer over HTTP, in bytes; compressed answers count unpacked."""
CLOSE_TIMEOUT: Final = 1.0
"""Seconds for open connections to close in good order."""
TURNS: Final = 3
"""Turns of the loop until a socket that was cut is closed by asyncio."""

E = TypeVar("E", ConnectionFailed, SendError)


def session_closed(kind: type[E]) -> E:
    """Returns the error for a session of the user's that was closed before the client."""
    return kind(
        "the aiohttp session given as session= is closed",
        code="SessionClosed",
        retryable=False,
        hint="close it after the client, or leave session= out",
    )


class Redirected(Exception):
    """The answer was a redirect; nothing was sent after it."""

    def __init__(self, status: int, location: str | None) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status
        self.location = location


_is_guarded: Final[ContextVar[bool]] = ContextVar("supabase_rt.no_redirect", default=False)


async def _redirected(
    _session: aiohttp.ClientSession, _context: Any, about: aiohttp.TraceRequestRedirectParams
) -> None:
    if not _is_guarded.get():
        return
    response = about.response
    # aiohttp does not close the response when a tracer raises.
    response.close()
    raise Redirected(response.status, response.headers.get("Location"))


_GUARD: Final = aiohttp.TraceConfig()
_GUARD.on_request_redirect.append(_redirected)
_GUARD.freeze()


@contextmanager
def no_redirect(session: aiohttp.ClientSession) -> Iterator[None]:
    """Make requests of this task raise ``Redirected`` instead of following a redirect."""
    if _GUARD not in session.trace_configs:
        session.trace_configs.append(_GUARD)
    token = _is_guarded.set(True)
    try:
        yield
    finally:
        _is_guarded.reset(token)


# -- answers -----------------------------------------------------------------------------


class AnswerTooLarge(Exception):
    """The body of an answer is larger than allowed; the rest of it was not read."""

    def __init__(self, most: int) -> None:
        super().__init__(f"the answer is larger than {most:,} bytes")


async def read_answer(response: aiohttp.ClientResponse, most: int = MOST_ANSWER) -> bytes:
    """Reads the body of an answer; raises ``AnswerTooLarge`` beyond ``most`` bytes.

    ``response.read()`` has no bound, and a compressed body unpacks to a thousand times its size.
    """
    parts: list[bytes] = []
    size = 0
    # aiohttp unpacks piece by piece, only as far as this loop reads.
    async for part in response.content.iter_any():
        size += len(part)
        if size > most:
            response.close()
            raise AnswerTooLarge(most)
        parts.append(part)
    return b"".join(parts)


# -- sockets -----------------------------------------------------------------------------

# aiohttp closes a connection in good order: it writes what is buffered, then ends TLS. aiohttp
# drops its reference at once, so a peer that reads nothing keeps the socket open for ever.
# Therefore this module remembers the sockets of our own sessions. After a shutdown of the system's
# socket, asyncio sees the end of the connection and closes it.

_sockets: Final[WeakKeyDictionary[aiohttp.ClientSession, WeakSet[socket.socket]]] = (
    WeakKeyDictionary()
)
_attempt: Final[ContextVar[list[socket.socket] | None]] = ContextVar(
    "supabase_rt.attempt", default=None
)


def open_session() -> aiohttp.ClientSession:
    """Returns a session of our own, which ``close_session`` closes."""
    made: WeakSet[socket.socket] = WeakSet()

    def make(address: Any) -> socket.socket:
        found = socket.socket(*address[:3])
        made.add(found)
        attempt = _attempt.get()
        if attempt is not None:
            attempt.append(found)
        return found

    # A server that sets another cookie at each attempt would fill the memory with them.
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(socket_factory=make), cookie_jar=aiohttp.DummyCookieJar()
    )
    _sockets[session] = made
    return session


async def close_session(session: aiohttp.ClientSession) -> None:
    """Close a session of our own and all its sockets, within ``CLOSE_TIMEOUT`` seconds."""
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT):
            await session.close()
    except TimeoutError:
        pass
    finally:
        _cut(_sockets.pop(session, ()))
    # The loop closes a socket that was cut when it has seen the end of the connection.
    for _ in range(TURNS):
        await asyncio.sleep(0)


@contextmanager
def cut_on_failure() -> Iterator[None]:
    """If the block raises, cut the sockets that our own sessions opened inside it."""
    made: list[socket.socket] = []
    token = _attempt.set(made)
    try:
        yield
    except BaseException:
        _cut(made)
        raise
    finally:
        _attempt.reset(token)


def _cut(sockets: Iterable[socket.socket]) -> None:
    for found in list(sockets):
        if found.fileno() != -1:
            with suppress(OSError):
                found.shutdown(socket.SHUT_RDWR)


class HttpSession:
    """Hands out one session and closes it, unless it is the user's."""

    def __init__(self, given: aiohttp.ClientSession | None) -> None:
        self._given = given
        self._own: aiohttp.ClientSession | None = None

    @property
    def current(self) -> aiohttp.ClientSession | None:
        """The session, if there is one already."""
        return self._own if self._given is None else self._given

    def get(self) -> aiohttp.ClientSession:
        """Returns the session, a new one if needed.

        Raises ``ConnectionFailed`` if the user closed theirs.
        """
        if self._given is not None:
            if self._given.closed:
                raise session_closed(ConnectionFailed)
            return self._given
        if self._own is None:
            self._own = open_session()
        return self._own

    def forget_loop(self) -> None:
        """Drop our own session: its loop is gone."""
        self._own = None

    async def aclose(self) -> None:
        """Close our own session; the user's stays open."""
        own, self._own = self._own, None
        if own is not None:
            await close_session(own)


@dataclass(slots=True, repr=False)
class TransportOptions:
    """The options of a connection attempt, beside the URL. Headers and proxy hold secrets."""

    timeout: float = 10.0
    headers: Mapping[str, str] | None = None
    ssl: Any = None
    proxy: str | None = None
    max_message_size: int = 16 * 2**20

    def request_kwargs(self) -> dict[str, Any]:
        """Returns the arguments of aiohttp that a websocket and a plain request share."""
        kwargs: dict[str, Any] = {}
        if self.ssl is not None:
            kwargs["ssl"] = self.ssl
        if self.proxy is not None:
            kwargs["proxy"] = self.proxy
        return kwargs
