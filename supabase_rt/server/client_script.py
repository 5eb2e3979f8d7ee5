"""Tests that talk to a client as its server: what it said, and what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from .._wire.envelope import TOPIC_PREFIX
from ._machine.server_state import Backend, Received
from .faults import Faults

__all__ = ["Conversing"]

POLL = 0.001


class Conversing:
    """The part of ``LocalRealtime`` that expects and says single messages."""

    backend: Backend
    faults: Faults

    async def expect(
        self,
        topic: str,
        event: str,
        check: Callable[[Any], Any] | None = None,
        *,
        timeout: float = 5.0,
    ) -> Received:
        """The next message of a client with this topic and event whose payload passes ``check``.

        Each message is found once, also one that came before the call; the topic may stand
        without ``realtime:``. Raises ``TimeoutError``, which tells what came instead, after
        ``timeout`` seconds.
        """
        unexpected = self.backend.unexpected
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
        """The next join of ``topic``, once it is answered: what is emitted now arrives.

        Raises ``TimeoutError``, also for a join that was refused.
        """
        found = await self.expect(topic, "phx_join", check, timeout=timeout)
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        # A join is answered within a few turns; nothing on its way has to tell us for that.
        while not self._is_joined(found):
            if loop.time() > until:
                raise TimeoutError(f"{found.topic} asked to join and was not let in")
            await asyncio.sleep(POLL)
        return found

    def _is_joined(self, join: Received) -> bool:
        link = self.faults.links.get(join.connection)
        return link is not None and any(
            channel.topic == join.topic and channel.join_ref == join.join_ref
            for channel in link.channels()
        )

    async def _news(self) -> None:
        news = self.backend.news
        if news is None or news.done():
            news = self.backend.news = asyncio.get_running_loop().create_future()
        # Shared by all who expect something: one who gives up must not end it for the others.
        await asyncio.shield(news)

    def emit(self, topic: str, event: str, payload: Any) -> int:
        """Write an event, as it is, to every channel joined on ``topic``; how many those were.

        ``emit("room", "broadcast", {"type": "broadcast", "event": "x", "payload": {}})``; for
        what a real server says there are ``broadcast``, ``insert`` and the like.
        """
        return self.faults.emit(topic, event, payload)
