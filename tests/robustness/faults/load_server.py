"""The other end of the load, in a process of its own: server, publisher and proxy.

The first line of output has its port. Each second it publishes so many numbered events in small
portions, and sometimes it resets every connection.
"""

from __future__ import annotations

import asyncio
import sys

from supabase_rt.server import LocalRealtime

from .proxy import FaultProxy

TOPICS = 4
PORTIONS = 50
"""The number of portions in a second; with more, the test would measure the timers."""
ROW_EVERY = 9
"""Every ninth event is a change of a row, the others are broadcasts; so each topic has both."""


async def publish(server: LocalRealtime, rate: int) -> None:
    """Publish without end at a fixed rate; after a delay it catches up."""
    loop = asyncio.get_running_loop()
    for at in range(TOPICS):
        server.table(f"table_{at}", {"id": "int8", "n": "int8"})
        server.insert(f"table_{at}", {"id": 1, "n": 0})
    started, number = loop.time(), 0
    while True:
        await asyncio.sleep(1 / PORTIONS)
        while number < (loop.time() - started) * rate:
            number += 1
            topic = number % TOPICS
            if number % ROW_EVERY == 0:
                server.update(f"table_{topic}", {"id": 1, "n": number})
            else:
                server.broadcast(f"room-{topic}", "tick", {"n": number})


async def main(rate: int, reset_every: float) -> None:
    async with (
        # A thousand a second are ten times what a project may do.
        LocalRealtime(max_buffer_size=10**9, max_events_per_second=None) as server,
        FaultProxy(server.port) as proxy,
    ):
        sys.stdout.write(f"{proxy.port} {server.anon_key}\n")
        sys.stdout.flush()
        publishing = asyncio.get_running_loop().create_task(publish(server, rate))
        while True:
            await asyncio.sleep(reset_every)
            proxy.reset()
            assert not publishing.done(), publishing.exception()


if __name__ == "__main__":
    try:
        asyncio.run(main(int(sys.argv[1]), float(sys.argv[2])))
    except KeyboardInterrupt:
        pass
