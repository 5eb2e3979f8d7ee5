"""PyPI ``realtime``: text frames of vsn 1.0.0, plain handlers only."""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import Callable
from typing import Any

from ..work import Work, topic
from .driver import Counter, load_spec, serve

realtime: Any = importlib.import_module("realtime")


def make_handler(work: Work, counter: Counter) -> Callable[..., None]:
    def unread(*payload: Any) -> None:
        counter.left -= 1
        if not counter.left:
            counter.finish()

    def read_x(payload: Any) -> None:
        payload["payload"]["x"]
        counter.left -= 1
        if not counter.left:
            counter.finish()

    def read_new(payload: Any) -> None:
        payload["data"]["record"]["id"]
        counter.left -= 1
        if not counter.left:
            counter.finish()

    def read_type(payload: Any) -> None:
        payload["data"]["type"]
        counter.left -= 1
        if not counter.left:
            counter.finish()

    return {"nothing": unread, "x": read_x, "new": read_new, "event_type": read_type}[work.read]


async def open_channel(
    client: Any, work: Work, number: int, handler: Callable[..., None], joined: Counter
) -> Any:
    def told(status: Any, error: Any) -> None:
        if status == "SUBSCRIBED":
            joined.left -= 1
            if not joined.left:
                joined.finish()

    config: dict[str, Any] = {"broadcast": {"ack": work.ack, "self": False}}
    config |= {"presence": {"key": "", "enabled": False}, "private": False}
    channel = client.channel(topic(number).removeprefix("realtime:"), {"config": config})
    if work.event == "broadcast":
        channel.on_broadcast("cursor", handler)
    elif work.event == "postgres_changes":
        channel.on_postgres_changes("*", handler, table="todos", schema="public")
    else:
        channel.on_presence_sync(handler)
    await channel.subscribe(told)
    return channel


async def main() -> None:
    spec = load_spec()
    work = Work(**spec["work"])
    counter, joined = Counter(), Counter()
    handler = make_handler(work, counter)
    client = realtime.AsyncRealtimeClient(spec["url"], spec["who"])
    await client.connect()
    channels = [
        await open_channel(client, work, number, handler, joined) for number in range(work.channels)
    ]

    async def send(count: int) -> dict[str, Any]:
        async def act() -> None:
            for number in range(count):
                await channels[0].send_broadcast("cursor", {"x": number, "y": 34, "user": "anna"})

        return await counter.during(1, act)

    async def acked(count: int) -> dict[str, Any]:
        """Sends with its push and its ``receive``, because it has no send that awaits the reply."""
        taken = []
        started = time.process_time()
        for number in range(count):
            before = time.perf_counter()
            content = {"x": number, "y": 34, "user": "anna"}
            message = {"type": "broadcast", "event": "cursor", "payload": content}
            reply = asyncio.get_running_loop().create_future()
            push = await channels[0].push("broadcast", message)
            push.receive("ok", reply.set_result)
            await reply
            taken.append(time.perf_counter() - before)
        return {"cpu": time.process_time() - started, "latencies": taken}

    await serve({"round": counter.round, "rejoin": joined.round, "send": send, "acked": acked})
    await client.close()


if __name__ == "__main__":
    asyncio.run(main())
