"""``ClientScript``: tests that play the server by hand, one expected message at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from .._wire.envelope import TOPIC_PREFIX
from ._machine.server_state import Backend, Received
from .faults import Faults

__all__ = ["ClientScript"]

POLL = 0.001
"""Seconds between two looks whether a join was answered."""


class ClientScript:
    """Waits for single messages of clients, and writes single events to them."""

    def __init__(self, backend: Backend, faults: Faults) -> None:
        self._backend = backend
        self._faults = faults

    async def expect(
        self,
        topic: str,
        event: str,
        check: Callable[[Any], Any] | None = None,
        *,
        timeout: float = 5.0,
    ) -> Received:
        """Returns the next message with this topic and event whose payload passes ``check``."""
        unexpected = self._backend.unexpected
        wanted = {topic, TOPIC_PREFIX + topic}
        try:
            async with asyncio.timeout(timeout):
                while True:
                    for found in unexpected:
                        fits = found.event == event and found.topic in wanted
                        if fits and (check is None or check(found.payload)):
                            unexpected.remove(found)
                            return found
                    await self._news()
        except TimeoutError:
            pass
        came = ", ".join(f"{each.event} on {each.topic}" for each in list(unexpected)[-5:])
        raise TimeoutError(
            f"no {event} on {topic!r} within {timeout:g} s; came: {came or 'nothing'}"
        )

    async def expect_join(
        self, topic: str, check: Callable[[Any], Any] | None = None, *, timeout: float = 5.0
    ) -> Received:
        """Returns the next join of ``topic``, once it is answered."""
        found = await self.expect(topic, "phx_join", check, timeout=timeout)
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        # A join is answered within a few turns of the loop, so a poll is enough.
        while not self._is_joined(found):
            if loop.time() > until:
                raise TimeoutError(f"{found.topic} asked to join and was not let in")
            await asyncio.sleep(POLL)
        return found

    def _is_joined(self, join: Received) -> bool:
        link = self._faults.links.get(join.connection)
        return link is not None and any(
            channel.topic == join.topic and channel.join_ref == join.join_ref
            for channel in link.channels()
        )

    async def _news(self) -> None:
        news = self._backend.news
        if news is None or news.done():
            news = self._backend.news = asyncio.get_running_loop().create_future()
        # All callers wait for this one future: a timeout of one must not cancel it for the others.
        await asyncio.shield(news)

    def emit(self, topic: str, event: str, payload: Any) -> int:
        """Write an event to every channel joined on ``topic``; returns how many those were."""
        return self._faults.emit(topic, event, payload)
