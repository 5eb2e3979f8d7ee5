"""A frame is written at the call, or waits in a queue while the peer is slow."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from supabase_rt import RealtimeChannel, RealtimeClient
from supabase_rt._connection.link import BURST, Link
from supabase_rt._connection.traffic import Traffic
from supabase_rt._connection.transport import Transport
from supabase_rt._runtime.http_session import TransportOptions
from supabase_rt._runtime.outcome import Outcome
from supabase_rt._wire.envelope import Message
from supabase_rt._wire.json_codec import plain
from supabase_rt._wire.serializer import broadcast_object, decode_client_binary, decode_text
from supabase_rt.server import LocalRealtime
from supabase_rt.types import ChannelOptions

from ...support.clients import MakeClient
from ...support.peers import RawPeer, raw_peer
from ...support.waiting import our_tasks, turns, until

LARGE = "y" * 2**18
"""256 KiB: some dozens of them fill all buffers between us and a peer that does not read."""
MANY = 60
ACK: ChannelOptions = {"config": {"broadcast": {"ack": True}}}

KINDS: list[dict[str, Any]] = [
    {"payload": {"n": 1}},
    {"payload": {}},
    {"payload": None},
    {"payload": "ü\u2028"},
    {"payload": [2**70, {"deep": None}]},
    {"payload": b"\x00\xff"},
    {"payload": b""},
    {"payload": {"lone": "\ud800"}},
    {},
    {"payload": 1, "more": 2},
    {"event": "e" * 63, "payload": 1},
    {"event": "ü" * 64, "payload": 1},
    {"event": "e" * 255, "payload": 1},
]


class SlowPeer:
    """A server that accepts every join, and reads frames only while ``reading`` is set."""

    def __init__(self) -> None:
        self.reading = asyncio.Event()
        self.reading.set()
        self.connections: list[tuple[RawPeer, list[Message]]] = []

    async def serve(self, peer: RawPeer) -> None:
        seen: list[Message] = []
        await peer.handshake()
        self.connections.append((peer, seen))
        while True:
            await self.reading.wait()
            first, data = await peer.receive()
            if first == 0x88:
                peer.frame(0x88, data)
                return
            message = decode_client_binary(data) if first == 0x82 else decode_text("2.0.0", data)
            seen.append(message)
            # Every frame with a ref gets a reply, joins among them.
            peer.text(
                b'["%b","%b","%b","phx_reply",{"status":"ok","response":{}}]'
                % (
                    str(message.join_ref).encode(),
                    str(message.ref).encode(),
                    message.topic.encode(),
                )
            )

    def frames(self, link: int = 0) -> list[Message]:
        return self.connections[link][1]

    def numbers(self, link: int = 0) -> list[int]:
        """Returns ``n`` of the broadcasts of one connection, in the order of their arrival."""
        return [
            broadcast_object(message.payload)["payload"]["n"]
            for message in self.frames(link)
            if message.event == "broadcast"
        ]


@asynccontextmanager
async def slow_peer(
    make_client: MakeClient, config: Any = None, **options: Any
) -> AsyncIterator[tuple[SlowPeer, RealtimeClient, RealtimeChannel]]:
    peer = SlowPeer()
    async with raw_peer(peer.serve) as url:
        client = make_client(url, **options)
        channel = await client.channel("room", config).subscribe()
        yield peer, client, channel
        peer.reading.set()
        await client.disconnect()
    assert our_tasks() == []


def broadcast(n: int, filling: str = "") -> dict[str, Any]:
    return {"type": "broadcast", "event": "x", "payload": {"n": n, "filling": filling}}


def link_of(client: RealtimeClient) -> Link:
    link = client._parts.connection.links.current
    assert link is not None
    return link


# -- one order ---------------------------------------------------------------------------


async def test_frames_keep_their_order_whichever_way_they_leave(make_client: MakeClient) -> None:
    """Frames are written at the call, then from the queue, then at the call again."""
    async with slow_peer(make_client) as (peer, client, channel):
        sends = [channel.send(broadcast(n)) for n in range(10)]
        assert all(send.done() for send in sends)
        peer.reading.clear()
        sends += [channel.send(broadcast(n, LARGE)) for n in range(10, MANY)]
        sends += [channel.send(broadcast(n), {}) for n in range(MANY, MANY + 10)]
        assert not sends[-1].done()
        peer.reading.set()
        assert set(await asyncio.gather(*sends)) == {"ok"}
        assert channel.send(broadcast(MANY + 10)).done()
        await until(lambda: len(peer.numbers()) == MANY + 11)
        assert peer.numbers() == list(range(MANY + 11))
        refs = [int(str(message.ref)) for message in peer.frames()]
        assert refs == sorted(refs)
        assert client.health().frames_out == len(peer.frames())


@pytest.mark.parametrize("seed", range(4))
async def test_any_mixture_of_calls_arrives_in_the_order_of_the_calls(
    make_client: MakeClient, seed: int
) -> None:
    chance = random.Random(seed)
    async with slow_peer(make_client, presence_limit=None) as (peer, client, channel):
        asked = client.channel("asked", ACK)
        await asked.subscribe()
        calls: list[tuple[str, Any]] = []
        sends: list[Any] = []
        for n in range(120):
            filling = LARGE if chance.random() < 0.3 else ""
            if chance.random() < 0.1:
                (peer.reading.clear if chance.random() < 0.6 else peer.reading.set)()
                await turns(2)
            if chance.random() < 0.2:
                sends.append(channel.track({"n": n, "filling": filling}))
                calls.append(("presence", n))
            else:
                sending = chance.choice([channel, asked])
                sends.append(sending.send(broadcast(n, filling)))
                calls.append(("broadcast", n))
        peer.reading.set()
        assert set(await asyncio.gather(*sends)) == {"ok"}
        await until(lambda: len(peer.frames()) == 2 + len(calls))
        seen = []
        for message in peer.frames()[2:]:
            content = plain(message.payload)
            if message.event == "broadcast":
                content = broadcast_object(message.payload)
            seen.append((message.event, content["payload"]["n"]))
        assert seen == calls


async def test_nothing_of_the_old_link_goes_ahead_of_the_rejoin(make_client: MakeClient) -> None:
    async with slow_peer(make_client) as (peer, _, channel):
        peer.reading.clear()
        sends = [channel.send(broadcast(n, LARGE)) for n in range(MANY)]
        waiting = [send for send in sends if not send.done()]
        assert waiting
        peer.connections[0][0].writer.transport.abort()
        assert set(await asyncio.gather(*waiting)) == {"error"}
        peer.reading.set()
        await until(lambda: len(peer.connections) == 2 and channel.state == "joined")
        assert await channel.send(broadcast(MANY)) == "ok"
        await until(lambda: len(peer.frames(1)) == 2)
        assert [message.event for message in peer.frames(1)] == ["phx_join", "broadcast"]
        assert peer.numbers(1) == [MANY]


@pytest.mark.parametrize("config", [None, ACK])
async def test_the_fast_path_writes_what_the_general_path_writes(
    make_client: MakeClient, config: Any
) -> None:
    """A send with ``{}`` as options takes the general path."""
    async with slow_peer(make_client, config) as (peer, _, channel):
        for kind in KINDS:
            message = {"type": "broadcast", "event": "x", **kind}
            assert await channel.send(message) == "ok"
            assert await channel.send(message, {}) == "ok"
        await until(lambda: len(peer.frames()) == 1 + 2 * len(KINDS))
        frames = peer.frames()[1:]
        for kind, short, long in zip(KINDS, frames[::2], frames[1::2], strict=True):
            assert int(str(short.ref)) + 1 == int(str(long.ref))
            short.ref = long.ref
            assert short == long, kind


async def test_a_broadcast_after_a_rejoin_carries_the_new_join_ref(
    make_client: MakeClient,
) -> None:
    async with slow_peer(make_client) as (peer, _, channel):
        await channel.send(broadcast(1))
        peer.connections[0][0].writer.transport.abort()
        await until(lambda: len(peer.connections) == 2 and channel.state == "joined")
        await channel.send(broadcast(2))
        await until(lambda: len(peer.frames(1)) == 2)
        join, sent = peer.frames(1)
        assert sent.join_ref == join.ref != peer.frames(0)[0].ref


# -- a peer that is slow -----------------------------------------------------------------


async def test_awaited_sends_go_at_the_pace_of_the_peer(make_client: MakeClient) -> None:
    async with slow_peer(make_client) as (peer, client, channel):
        peer.reading.clear()
        sent: list[int] = []

        async def produce() -> None:
            for n in range(MANY):
                assert await channel.send(broadcast(n, LARGE)) == "ok"
                sent.append(n)

        producing = asyncio.create_task(produce())
        await turns(50)
        assert len(sent) < MANY
        assert client.health().refused_sends == 0
        peer.reading.set()
        await producing
        await until(lambda: peer.numbers() == list(range(MANY)))


async def test_what_waits_is_bounded_whoever_sends(make_client: MakeClient) -> None:
    async with slow_peer(make_client, ACK, max_outbound=7) as (peer, client, channel):
        plain_channel = await client.channel("plain").subscribe()
        peer.reading.clear()
        while link_of(client).is_clear:
            plain_channel.send(broadcast(0, LARGE))
        sends = [each.send(broadcast(1, LARGE)) for each in [plain_channel, channel] * MANY]
        waiting = [send for send in sends if not send.done()]
        # aiohttp has begun to write one of them; it stays in the queue until it is written.
        assert len(waiting) == 6
        assert client.health().refused_sends == len(sends) - 6
        assert {await send for send in sends if send.done()} == {"error"}
        peer.reading.set()
        assert set(await asyncio.gather(*waiting)) == {"ok"}


async def test_what_waits_is_bounded_in_bytes_however_few_frames_that_are(
    make_client: MakeClient,
) -> None:
    async with slow_peer(make_client) as (peer, client, channel):
        peer.reading.clear()
        huge = "y" * (4 * 2**20)
        sends = [channel.send(broadcast(n, huge)) for n in range(40)]
        refused = [send for send in sends if send.done() and await send == "error"]
        assert 20 <= len(refused) <= 24
        assert client.health().refused_sends == len(refused)
        peer.reading.set()
        results = await asyncio.gather(*sends)
        assert results.count("ok") == 40 - len(refused)
        # A frame that was written no longer counts.
        assert await channel.send(broadcast(0, huge)) == "ok"


async def test_cancelling_an_await_leaves_the_frame_on_its_way(make_client: MakeClient) -> None:
    async with slow_peer(make_client) as (peer, _, channel):
        peer.reading.clear()
        sends = [channel.send(broadcast(n, LARGE)) for n in range(MANY)]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(sends[-1], 0.001)
        awaiting = asyncio.gather(*sends)
        await turns()
        awaiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await awaiting
        assert not sends[-1].done()
        peer.reading.set()
        assert set(await asyncio.gather(*sends)) == {"ok"}
        await until(lambda: peer.numbers() == list(range(MANY)))


async def test_a_socket_lost_within_a_frame_leaves_nothing_behind(
    make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    """No task is left, every outcome is settled, and asyncio logs no error."""
    async with slow_peer(make_client) as (peer, client, channel):
        for round in range(3):
            await until(lambda: channel.state == "joined")
            peer.reading.clear()
            sends = [channel.send(broadcast(n, LARGE)) for n in range(MANY)]
            assert not link_of(client).is_clear
            peer.connections[-1][0].writer.transport.abort()
            assert (await asyncio.gather(*sends))[-1] == "error"
            peer.reading.set()
            await until(lambda round=round: len(peer.connections) == round + 2)  # type: ignore[misc]
        await until(lambda: channel.state == "joined")
        assert our_tasks() == ["supabase_rt:link"]
    gc.collect()
    loud = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert [record for record in loud if record.name == "asyncio"] == []


async def test_disconnecting_within_a_frame_still_writes_it(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a busy machine the peer needs more than the second that a user's disconnect waits.
    monkeypatch.setattr("supabase_rt._connection.link.DRAIN_TIMEOUT", 20)
    monkeypatch.setattr("supabase_rt._connection.transport.CLOSE_TIMEOUT", 20)
    async with slow_peer(make_client) as (peer, client, channel):
        peer.reading.clear()
        sends = [channel.send(broadcast(n, LARGE)) for n in range(MANY)]
        assert not sends[-1].done()
        peer.reading.set()
        await client.disconnect()
        assert set(await asyncio.gather(*sends)) == {"ok"}
        assert peer.numbers() == list(range(MANY))


async def test_an_idle_client_has_no_writer_task(client: RealtimeClient) -> None:
    channel = await client.channel("room").subscribe()
    await channel.send(broadcast(1))
    assert our_tasks() == ["supabase_rt:link"]


# -- the loop ----------------------------------------------------------------------------


async def test_a_long_loop_of_sends_gives_others_their_turns(client: RealtimeClient) -> None:
    channel = await client.channel("room").subscribe()
    passed = 0

    async def others() -> None:
        nonlocal passed
        while True:
            passed += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(others())
    for n in range(10 * BURST):
        assert await channel.send(broadcast(n)) == "ok"
    assert passed >= 10
    other.cancel()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python 3.12 brought eager tasks")
async def test_a_loop_with_eager_tasks_keeps_the_order(make_client: MakeClient) -> None:
    loop = asyncio.get_running_loop()
    factory: Any = getattr(asyncio, "eager_task_factory", None)
    loop.set_task_factory(factory)
    try:
        async with slow_peer(make_client) as (peer, _, channel):
            peer.reading.clear()
            sends = [channel.send(broadcast(n, LARGE)) for n in range(MANY)]
            assert not sends[-1].done()
            peer.reading.set()
            assert set(await asyncio.gather(*sends)) == {"ok"}
            assert channel.send(broadcast(MANY)).done()
            await until(lambda: peer.numbers() == list(range(MANY + 1)))
    finally:
        loop.set_task_factory(None)


# -- the link alone ----------------------------------------------------------------------


async def on_open_transport(
    server: LocalRealtime, act: Callable[[Link, Transport, list[Link]], Awaitable[None]]
) -> None:
    async with aiohttp.ClientSession() as http:
        url = f"{server.ws_url}/websocket?apikey={server.anon_key}"
        transport = await Transport.open(http, url, "ws://host", TransportOptions())
        failed: list[Link] = []
        link = Link(Traffic(), 10, failed.append)
        link.open(transport)
        try:
            await act(link, transport, failed)
        finally:
            await link.end()
            await transport.close()


async def test_a_closed_socket_takes_no_frame_and_settles_it_at_the_end(
    server: LocalRealtime,
) -> None:
    async def act(link: Link, transport: Transport, failed: list[Link]) -> None:
        await transport.close()
        first, second = link.cast(b"1"), Outcome[str]()
        link.put("2", second)
        assert not link.is_clear
        await link.drain()
        assert not first.done()
        await link.end()
        assert (await first, await second) == ("error", "error")
        late = link.cast(b"3")
        assert await late == "error"
        assert failed == []

    await on_open_transport(server, act)


async def test_an_object_that_is_no_frame_fails_the_writer(
    server: LocalRealtime, caplog: pytest.LogCaptureFixture
) -> None:
    async def act(link: Link, transport: Transport, failed: list[Link]) -> None:
        outcome: Outcome[str] = Outcome()
        link.put("half a pair: \ud800", outcome)
        assert failed == [link]
        assert not outcome.done()
        assert not link.is_clear
        assert "the writer failed" in caplog.text

    await on_open_transport(server, act)
