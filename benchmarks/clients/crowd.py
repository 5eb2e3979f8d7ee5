"""Many clients in one process on one aiohttp session: ours, or bare loops."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import aiohttp

from ..work import Work, topic
from . import bare
from .driver import Counter, allow_many_sockets, load_spec, resident, serve


class Crowd:
    """All clients, and their cleanup."""

    def __init__(self, spec: dict[str, Any], session: aiohttp.ClientSession) -> None:
        self._spec = spec
        self._session = session
        self._work = Work(**spec["work"])
        self._kept: list[Any] = []
        self.counter = Counter()

    async def open(self, count: int) -> dict[str, Any]:
        """Opens and joins a number of clients; returns their time and memory."""
        one = self._ours if self._spec["client"] == "supabase_rt" else self._bare
        # The modules that the first client loads are not a cost of each client.
        await one()
        before, started = resident(), time.monotonic()
        for first in range(0, count - 1, 100):
            await asyncio.gather(*(one() for _ in range(min(100, count - 1 - first))))
        seconds = time.monotonic() - started
        return {"seconds": seconds, "rss": resident() - before}

    async def _bare(self) -> None:
        handler = bare.make_handler(self._work, self.counter)
        url = f"{self._spec['url']}/websocket?apikey={self._spec['who']}&vsn=2.0.0"
        socket = await self._session.ws_connect(url, decode_text=False, max_msg_size=0)
        await socket.send_str(bare.join_frame(self._work, 0))
        await socket.receive()
        self._kept.append(asyncio.ensure_future(bare.text_loop(socket, {topic(0): handler})))

    async def _ours(self) -> None:
        from supabase_rt import RealtimeClient

        from . import ours

        client = RealtimeClient(
            self._spec["url"], params={"apikey": self._spec["who"]}, session=self._session
        )
        handler = ours.make_handler(self._work, self.counter)
        channel = client.channel(topic(0).removeprefix("realtime:"))
        await channel.on("broadcast", {"event": "cursor"}, handler).subscribe()
        self._kept.append(client)

    async def close(self) -> None:
        """Stops all clients."""
        for one in self._kept:
            if isinstance(one, asyncio.Task):
                one.cancel()
            else:
                one.disconnect()


async def main() -> None:
    allow_many_sockets()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        crowd = Crowd(load_spec(), session)
        await serve({"open": crowd.open, "round": crowd.counter.round})
        await crowd.close()


if __name__ == "__main__":
    asyncio.run(main())
