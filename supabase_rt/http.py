"""The aiohttp session: the user's, or one of our own that lives as long as the client runs.

A redirect is never followed with what a handshake carries (``no_redirect``). aiohttp's
``ws_connect`` has no option for it, but tells its tracers of a redirect before it follows. A tracer
that raises ends the request there. It holds for the handshake alone: the user's own
requests over the same session go where they always went.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, TypeVar

import aiohttp

from .errors import ConnectionFailed, SendError

__all__ = ["HttpOwner", "Redirected", "no_redirect", "session_closed"]

E = TypeVar("E", ConnectionFailed, SendError)


def session_closed(kind: type[E]) -> E:
    """The error for a session of the user's that was closed before the client."""
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
    # The error goes past aiohttp, which would not close it then.
    response.close()
    raise Redirected(response.status, response.headers.get("Location"))


_GUARD: Final = aiohttp.TraceConfig()
_GUARD.on_request_redirect.append(_redirected)
_GUARD.freeze()


@contextmanager
def no_redirect(session: aiohttp.ClientSession) -> Iterator[None]:
    """Requests of this task that begin inside raise ``Redirected`` instead of following."""
    if _GUARD not in session.trace_configs:
        session.trace_configs.append(_GUARD)
    token = _is_guarded.set(True)
    try:
        yield
    finally:
        _is_guarded.reset(token)


class HttpOwner:
    """Hands out one session and closes it, unless it is the user's."""

    def __init__(self, given: aiohttp.ClientSession | None) -> None:
        self._given = given
        self._own: aiohttp.ClientSession | None = None

    @property
    def current(self) -> aiohttp.ClientSession | None:
        """The session where there is one already."""
        return self._own if self._given is None else self._given

    def get(self) -> aiohttp.ClientSession:
        """The session, made if need be; raises ``ConnectionFailed`` if the user closed theirs."""
        if self._given is not None:
            if self._given.closed:
                raise session_closed(ConnectionFailed)
            return self._given
        if self._own is None:
            self._own = aiohttp.ClientSession()
        return self._own

    def forget(self) -> None:
        """The loop of our own session is gone."""
        self._own = None

    async def aclose(self) -> None:
        """Close our own session; the user's stays open."""
        own, self._own = self._own, None
        if own is not None:
            await own.close()
