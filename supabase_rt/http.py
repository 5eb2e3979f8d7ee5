"""The aiohttp session: the user's, or one of our own that lives as long as the client runs."""

from __future__ import annotations

from typing import TypeVar

import aiohttp

from .errors import ConnectionFailed, SendError

__all__ = ["HttpOwner", "session_closed"]

E = TypeVar("E", ConnectionFailed, SendError)


def session_closed(kind: type[E]) -> E:
    """The error for a session of the user's that was closed before the client."""
    return kind(
        "the aiohttp session given as session= is closed",
        code="SessionClosed",
        retryable=False,
        hint="close it after the client, or leave session= out",
    )


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
