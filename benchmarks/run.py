"""``make bench``: what the SDK costs beside a bare aiohttp + msgspec loop on the same flood.

A server in a process of its own writes the same frames to both, in turns. Bare decodes each
frame and calls a handler; ours does that and everything else: routing, bindings, payload
objects, the boundary around the handler. Times are CPU seconds of this process for each event,
so that waiting for the server does not count; the medians of several turns are shown.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection
from typing import Any

import aiohttp
import msgspec
from aiohttp import web

from supabase_rt import RealtimeClient

EVENTS = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
TURNS = 5
TOPIC = "realtime:room"

BROADCAST = {"type": "broadcast", "event": "cursor", "payload": {"x": 12, "y": 34, "user": "anna"}}
COLUMNS = {"id": "int8", "text": "text", "done": "bool", "price": "numeric", "at": "timestamptz"}
CHANGE = {
    "ids": [1],
    "data": {
        "schema": "public",
        "table": "todos",
        "commit_timestamp": "2026-01-01T00:00:00.000Z",
        "type": "INSERT",
        "columns": [{"name": name, "type": kind} for name, kind in COLUMNS.items()],
        "record": {"id": 7, "text": "milk", "done": False, "price": 1.5, "at": "2026-01-01"},
        "errors": None,
    },
}
CHANGES = {"event": "*", "schema": "public", "table": "todos"}


# -- the flood -----------------------------------------------------------------------------


async def flood(request: web.Request) -> web.WebSocketResponse:
    """Answer joins and heartbeats; at the event ``go`` write so many frames of one kind."""
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        join_ref, ref, topic, event, payload = msgspec.json.decode(message.data)
        if event == "go":
            body = BROADCAST if payload["kind"] == "broadcast" else CHANGE
            frame = msgspec.json.encode([None, None, topic, payload["kind"], body]).decode()
            for _ in range(payload["count"]):
                await socket.send_str(frame)
            continue
        wanted = payload.get("config", {}).get("postgres_changes", [])
        bound = [{"id": number, **one} for number, one in enumerate(wanted, 1)]
        answer = {"status": "ok", "response": {"postgres_changes": bound}}
        await socket.send_str(
            msgspec.json.encode([join_ref, ref, topic, "phx_reply", answer]).decode()
        )
    return socket


def serve(pipe: Connection) -> None:
    """The main line of the server's process; tells its port and stays until it is ended."""

    async def run() -> None:
        app = web.Application()
        app.router.add_get("/realtime/v1/websocket", flood)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        pipe.send(runner.addresses[0][1])
        await asyncio.Event().wait()

    asyncio.run(run())


# -- the readers ---------------------------------------------------------------------------


class Count:
    """A handler that looks at the event and knows when the last one came."""

    def __init__(self) -> None:
        self.left = EVENTS
        self.done = asyncio.Event()

    def took(self) -> None:
        self.left -= 1
        if not self.left:
            self.done.set()


async def bare(port: int, kind: str) -> float:
    """The least that a program can do: decode a frame, look at it, call a function."""
    count, decode = Count(), msgspec.json.Decoder(tuple[Any, Any, str, str, Any]).decode

    def handler(payload: Any) -> None:
        if kind == "broadcast":
            payload["payload"]["x"]
        else:
            payload["data"]["record"]["id"]
        count.took()

    url = f"ws://127.0.0.1:{port}/realtime/v1/websocket"
    async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
        frame = ["1", "1", TOPIC, "go", {"kind": kind, "count": EVENTS}]
        await socket.send_str(msgspec.json.encode(frame).decode())
        started = time.process_time()
        async for message in socket:
            _, _, topic, event, payload = decode(message.data)
            if topic == TOPIC and event == kind:
                handler(payload)
            if not count.left:
                break
        return time.process_time() - started


async def ours(port: int, kind: str, *, asynchronous: bool = False) -> float:
    """The same through the public API."""
    count = Count()

    def handler(found: Any) -> None:
        if kind == "broadcast":
            found.payload["x"]
        else:
            found.new["id"]
        count.took()

    async def slow(found: Any) -> None:
        handler(found)

    client = RealtimeClient(f"ws://127.0.0.1:{port}/realtime/v1", params={"apikey": "key"})
    wanted = {"event": "cursor"} if kind == "broadcast" else CHANGES
    chosen = slow if asynchronous else handler
    async with client:
        await client.channel("room").on(kind, wanted, chosen, maxsize=EVENTS).subscribe()
        payload = {"kind": kind, "count": EVENTS}
        started = time.process_time()
        client.push({"topic": TOPIC, "event": "go", "payload": payload, "ref": "go"})
        async with asyncio.timeout(60):
            await count.done.wait()
        return time.process_time() - started


Reader = Callable[[int, str], Awaitable[float]]


async def ours_async(port: int, kind: str) -> float:
    return await ours(port, kind, asynchronous=True)


async def measure(port: int) -> None:
    readers: dict[str, Reader] = {
        "bare loop": bare,
        "supabase_rt": ours,
        "supabase_rt, async handler": ours_async,
    }
    print(f"CPU time for each event: {EVENTS} events a turn, median of {TURNS} turns\n")
    print("| event | reader | µs/event | events/s | of bare |\n|---|---|---:|---:|---:|")
    for kind in ("broadcast", "postgres_changes"):
        turns: dict[str, list[float]] = {name: [] for name in readers}
        for _ in range(TURNS):
            for name, read in readers.items():
                turns[name].append(await read(port, kind) / EVENTS)
        base = statistics.median(turns["bare loop"])
        for name, times in turns.items():
            cost = statistics.median(times)
            row = f"{cost * 1e6:.2f} | {1 / cost:,.0f} | {cost / base:.2f}×"
            print(f"| {kind} | {name} | {row} |", flush=True)


def main() -> None:
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    server = context.Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    try:
        asyncio.run(measure(mine.recv()))
    finally:
        server.terminate()
        server.join()


if __name__ == "__main__":
    main()
