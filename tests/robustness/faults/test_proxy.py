"""The proxy works as documented; otherwise the laboratory would prove nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType, web

from .oracle import Join, accepts
from .proxy import DOWN, UP, FaultProxy
from .schedule import SPOILS, make_schedule
from .virtual import run_virtual
from .wsframes import BINARY, PING, TEXT, Splitter, build

# -- frames ------------------------------------------------------------------------------


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
def test_frames_are_cut_as_they_were_built(size: int, masked: bool) -> None:
    splitter, payload = Splitter(), bytes(range(256)) * (size // 256 + 1)
    payload = payload[:size]
    raw = build(BINARY, payload, masked=masked)
    assert splitter.feed(b"GET / HTTP/1.1\r\n\r") == (b"", [])
    head, frames = splitter.feed(b"\n" + raw[:1])
    assert (head, frames) == (b"GET / HTTP/1.1\r\n\r\n", [])
    _, frames = splitter.feed(raw[1:] + raw)
    assert [(frame.opcode, frame.payload, frame.raw) for frame in frames] == [
        (BINARY, payload, raw),
        (BINARY, payload, raw),
    ]


# -- an echo behind a proxy --------------------------------------------------------------


@pytest.fixture
async def proxy() -> AsyncIterator[FaultProxy]:
    async def echo(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        async for message in ws:
            await ws.send_str(message.data)
        return ws

    app = web.Application()
    app.router.add_get("/", echo)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with FaultProxy(runner.addresses[0][1]) as found:
        yield found
    await runner.cleanup()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as found:
        yield found


@pytest.fixture
async def ws(
    http: aiohttp.ClientSession, proxy: FaultProxy
) -> AsyncIterator[aiohttp.ClientWebSocketResponse[bool]]:
    async with http.ws_connect(f"http://127.0.0.1:{proxy.port}/") as found:
        await found.send_str("hello")
        assert await found.receive_str() == "hello"
        yield found
        await proxy.heal()


Ws = aiohttp.ClientWebSocketResponse[bool]


async def test_a_reset_and_a_plain_end_have_no_close_frame(
    http: aiohttp.ClientSession, proxy: FaultProxy
) -> None:
    for fault in (proxy.reset, proxy.fin):
        async with http.ws_connect(f"http://127.0.0.1:{proxy.port}/") as ws:
            fault()
            assert (await ws.receive()).type in (WSMsgType.CLOSED, WSMsgType.ERROR)
            assert ws.close_code == 1006
    assert proxy.made == 2


async def test_a_close_has_its_code(proxy: FaultProxy, ws: Ws) -> None:
    proxy.close(1012, b"restart")
    message = await ws.receive()
    assert (message.type, message.data, message.extra) == (WSMsgType.CLOSE, 1012, "restart")


@pytest.mark.parametrize("way", [UP, DOWN])
async def test_a_stall_of_one_direction_holds_everything_and_keeps_the_order(
    proxy: FaultProxy, ws: Ws, way: Any
) -> None:
    written: list[tuple[str, bytes]] = []
    proxy.watcher = lambda link, direction, frame, fate: written.append((direction, frame.payload))
    proxy.stall(way)
    for text in ("one", "two"):
        await ws.send_str(text)
    await asyncio.sleep(0.05)
    other = [(UP, b"one"), (UP, b"two")] if way == DOWN else []
    assert written == other


async def test_what_was_held_is_handed_on(proxy: FaultProxy, ws: Ws) -> None:
    proxy.stall()
    for text in ("one", "two"):
        await ws.send_str(text)
    await asyncio.sleep(0.02)
    proxy.resume()
    assert [await ws.receive_str(), await ws.receive_str()] == ["one", "two"]


@pytest.mark.parametrize("how", SPOILS)
async def test_each_way_to_spoil_a_frame(proxy: FaultProxy, ws: Ws, how: Any) -> None:
    fates: list[str] = []
    proxy.watcher = lambda link, way, frame, fate: fates.append(fate) if way == DOWN else None
    proxy.spoil(DOWN, how)
    for text in ("first text", "second text"):
        await ws.send_str(text)
    found = await ws.receive()
    expected: Any = {
        "duplicate": (WSMsgType.TEXT, "first text"),
        "drop": (WSMsgType.TEXT, "second text"),
        "half": (WSMsgType.TEXT, "first"),
        "utf8": (WSMsgType.ERROR, None),
        "bits": (WSMsgType.ERROR, None),
        "cut": (WSMsgType.CLOSED, None),
    }[how]
    assert found.type is expected[0]
    assert expected[1] is None or found.data == expected[1]
    if how == "duplicate":
        assert await ws.receive_str() == "first text"
        assert fates[:2] == ["whole", "copy"]
    elif how != "drop":
        assert fates[0] == "spoiled"


async def test_a_frame_is_put_in_either_way(proxy: FaultProxy, ws: Ws) -> None:
    proxy.inject(DOWN, TEXT, b"not of the server")
    assert await ws.receive_str() == "not of the server"
    proxy.inject(UP, TEXT, b"not of the client")
    assert await ws.receive_str() == "not of the client"
    proxy.inject(DOWN, PING, b"?")
    await ws.send_str("still alive")
    assert await ws.receive_str() == "still alive"


@pytest.mark.parametrize("how", [503, "reset", "hang"])
async def test_refused_connections(
    http: aiohttp.ClientSession, proxy: FaultProxy, how: Any
) -> None:
    proxy.refusal = how
    url = f"http://127.0.0.1:{proxy.port}/"
    with pytest.raises((aiohttp.ClientError, TimeoutError)) as caught:
        async with asyncio.timeout(0.2 if how == "hang" else 5):
            await http.ws_connect(url)
    assert isinstance(caught.value, TimeoutError) == (how == "hang")
    assert getattr(caught.value, "status", how) == how
    await proxy.vanish()
    with pytest.raises(aiohttp.ClientConnectorError):
        await http.ws_connect(url)
    await proxy.heal()
    async with http.ws_connect(url):
        assert proxy.made == 1


# -- the clock ---------------------------------------------------------------------------


def test_latency_and_bandwidth_take_their_time_and_no_longer() -> None:
    async def main() -> list[float]:
        clock, took = asyncio.get_running_loop().time, []

        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + build(TEXT, b"x" * 98))
            with contextlib.suppress(ConnectionResetError):
                await reader.read()
            writer.close()

        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        async with FaultProxy(server.sockets[0].getsockname()[1]) as proxy:
            for latency, bandwidth in ((0.0, 0.0), (3600.0, 0.0), (0.0, 10.0)):
                proxy.latency[DOWN], proxy.bandwidth[DOWN] = latency, bandwidth
                reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
                writer.write(b"GET / HTTP/1.1\r\n\r\n")
                await reader.readuntil(b"\r\n\r\n")
                before = clock()
                await reader.readexactly(100)
                took.append(clock() - before)
                writer.close()
        server.close()
        return took

    assert run_virtual(main()) == [0.0, 0.0, 10.0]


# -- the oracle --------------------------------------------------------------------------


def joins(*numbers: list[int], links: tuple[int, ...] = (), stale: tuple[int, ...] = ()) -> Any:
    return [
        Join(
            links[at] if links else at,
            str(at),
            at in stale,
            numbers={"x": [(n, n > 0) for n in some]},
        )
        for at, some in enumerate(numbers)
    ]


@pytest.mark.parametrize(
    ("got", "live", "verdict"),
    [
        ([1, 2, 3, 4], {1}, True),
        ([1, 3, 4], {1}, True),  # the tail of a dead link
        ([3, 4], {1}, True),
        ([2, 3, 4], {1}, False),  # a hole
        ([1, 2, 3], {1}, False),  # the tail of a live link
        ([1, 2, 2, 3, 4], {1}, False),  # twice
        ([2, 1, 3, 4], {1}, False),  # out of order
        ([1, 2, 3, 4, 5], {1}, False),  # out of nowhere
    ],
)
def test_the_oracle_forgives_the_tail_of_a_dead_link_only(
    got: list[int], live: set[int], verdict: bool
) -> None:
    assert accepts(joins([1, 2], [3, 4]), "x", got, live) is verdict


def test_what_else_the_oracle_forgives() -> None:
    assert accepts(joins([1, -2], [3]), "x", [1, 3], {0, 1})  # a number that may be missing
    assert accepts(joins([1, -2], [3]), "x", [1, -2, 3], {0, 1})
    assert accepts(joins([1, 2], [3], links=(0, 0), stale=(0,)), "x", [3], {0})
    assert not accepts(joins([1, 2], [3], links=(0, 0), stale=(0,)), "x", [1, 3], {0})
    # Two joins of one dead link: if the first one is cut off, no event of the second may have
    # arrived.
    assert not accepts(joins([1, 2], [3], links=(0, 0)), "x", [1, 3], set())


def test_a_seed_is_a_schedule() -> None:
    assert make_schedule(5) == make_schedule(5) != make_schedule(6)
