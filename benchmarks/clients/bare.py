"""The limit: a bare aiohttp receive loop, the fastest decoder, one dict lookup and one call.

``bare`` decodes every frame completely. ``bare-envelope`` leaves the payload undecoded, for
handlers that read nothing.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import msgspec

from ..work import Work, topic
from .driver import Counter, load_spec, serve

Socket = aiohttp.ClientWebSocketResponse[Any]
Handlers = dict[Any, Callable[[Any], Any]]
Loop = Callable[[Socket, Handlers], Awaitable[None]]

loads: Callable[[Any], Any]
dumps: Callable[[Any], bytes]
try:
    _orjson = importlib.import_module("orjson")
    loads, dumps = _orjson.loads, _orjson.dumps
except ImportError:
    loads, dumps = msgspec.json.decode, msgspec.json.encode


class Envelope(msgspec.Struct, array_like=True, gc=False):
    """A text frame of vsn 2.0.0 with its payload undecoded."""

    join_ref: str | None
    ref: str | None
    topic: str
    event: str
    payload: msgspec.Raw


envelope = msgspec.json.Decoder(Envelope).decode


async def text_loop(socket: Socket, handlers: Handlers) -> None:
    receive = socket.receive
    while True:
        _, _, where, _, payload = loads((await receive()).data)
        handlers[where](payload)


async def async_loop(socket: Socket, handlers: Handlers) -> None:
    receive = socket.receive
    while True:
        _, _, where, _, payload = loads((await receive()).data)
        await handlers[where](payload)


async def text_envelope_loop(socket: Socket, handlers: Handlers) -> None:
    receive = socket.receive
    while True:
        message = envelope((await receive()).data)
        handlers[message.topic](message.payload)


async def binary_loop(socket: Socket, handlers: Handlers) -> None:
    receive = socket.receive
    while True:
        data = (await receive()).data
        end = 5 + data[1]
        handlers[data[5:end]](loads(data[end + data[2] + data[3] :]))


async def binary_envelope_loop(socket: Socket, handlers: Handlers) -> None:
    receive = socket.receive
    while True:
        data = (await receive()).data
        end = 5 + data[1]
        handlers[data[5:end]](data)


def choose_loop(work: Work, *, whole: bool) -> Loop:
    if work.asynchronous:
        return async_loop
    if work.binary:
        return binary_loop if whole else binary_envelope_loop
    return text_loop if whole else text_envelope_loop


def make_handler(work: Work, counter: Counter) -> Callable[[Any], Any]:
    def unread(payload: Any) -> None:
        counter.left -= 1
        if not counter.left:
            counter.finish()

    def read_x(payload: Any) -> None:
        payload["payload"]["x"]
        counter.left -= 1
        if not counter.left:
            counter.finish()

    def read_binary_x(payload: Any) -> None:
        payload["x"]
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

    async def slow(payload: Any) -> None:
        read_x(payload)

    if work.asynchronous:
        return slow
    if work.binary and work.read == "x":
        return read_binary_x
    return {"nothing": unread, "x": read_x, "new": read_new, "event_type": read_type}[work.read]


def join_frame(work: Work, number: int) -> str:
    config: dict[str, Any] = {"broadcast": {"ack": work.ack, "self": False}}
    if work.event == "presence":
        config["presence"] = {"enabled": True, "key": ""}
    if work.event == "postgres_changes":
        config["postgres_changes"] = [{"event": "*", "schema": "public", "table": "todos"}]
    ref = str(number)
    return json.dumps([ref, ref, topic(number), "phx_join", {"config": config}])


def broadcast_frame(ref: int, where: bytes, content: dict[str, Any]) -> bytes:
    """Returns a frame of kind 3."""
    number = b"%d" % ref
    header = bytes((3, 1, len(number), len(where), 6, 0, 1))
    return b"".join((header, b"0", number, where, b"cursor", dumps(content)))


class Sender:
    """The sending half: plain broadcasts, and broadcasts that await their reply."""

    def __init__(self, socket: Socket, counter: Counter) -> None:
        self._socket = socket
        self._counter = counter
        self._where = topic(0).encode()
        self._ref = 1

    async def send(self, count: int) -> dict[str, Any]:
        async def act() -> None:
            for number in range(count):
                self._ref += 1
                content = {"x": number, "y": 34, "user": "anna"}
                await self._socket.send_bytes(broadcast_frame(self._ref, self._where, content))

        return await self._counter.during(1, act)

    async def acked(self, count: int) -> dict[str, Any]:
        taken = []
        started = time.process_time()
        for number in range(count):
            before = time.perf_counter()
            self._ref += 1
            content = {"x": number, "y": 34, "user": "anna"}
            await self._socket.send_bytes(broadcast_frame(self._ref, self._where, content))
            while loads((await self._socket.receive()).data)[1] != str(self._ref):
                pass
            taken.append(time.perf_counter() - before)
        return {"cpu": time.process_time() - started, "latencies": taken}


async def main() -> None:
    spec = load_spec()
    work, who = Work(**spec["work"]), spec["who"]
    counter = Counter()
    handler = make_handler(work, counter)
    topics = [topic(number) for number in range(work.channels)]
    handlers: Handlers = {(where.encode() if work.binary else where): handler for where in topics}
    url = f"{spec['url']}/websocket?apikey={who}&vsn=2.0.0"
    async with aiohttp.ClientSession() as session:
        socket = await session.ws_connect(url, decode_text=False, max_msg_size=0)
        for number in range(work.channels):
            await socket.send_str(join_frame(work, number))
        # A presence state follows the reply.
        for _ in range(work.channels + (work.event == "presence")):
            await socket.receive()
        sender = Sender(socket, counter)
        reading = None
        if not work.ack:
            loop = choose_loop(work, whole=spec["client"] != "bare-envelope")
            reading = asyncio.ensure_future(loop(socket, handlers))
        await serve({"round": counter.round, "send": sender.send, "acked": sender.acked})
        if reading is not None:
            reading.cancel()


if __name__ == "__main__":
    asyncio.run(main())
