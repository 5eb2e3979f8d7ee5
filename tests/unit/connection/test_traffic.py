"""Frames that cannot be read are skipped; frames that cannot be written are reported."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import aiohttp
import pytest

from supabase_rt import (
    ConnectionLost,
    DecodeError,
    RealtimeClient,
)
from supabase_rt.server import LocalRealtime

from ...support.clients import MakeClient
from ...support.peers import RawPeer, raw_peer
from ...support.recorder import ClientEvents, Recorder, Statuses
from ...support.waiting import our_tasks, turns, until

KEYS = ("join_ref", "ref", "topic", "event", "payload")

# -- frames that cannot be read ----------------------------------------------------------


@pytest.mark.parametrize(
    "frame",
    [
        "no json",
        "{}",
        "[1,2]",
        '["1","2","realtime:room","phx_reply",null]',
        '["1","2","realtime:room","phx_reply",{"status":1}]',
        '[null,null,"realtime:room","broadcast",null]',
        '[null,null,"realtime:room","postgres_changes",{"ids":1}]',
        '[null,null,"realtime:room","presence_state",17]',
        '[null,null,"realtime:room","presence_diff",[]]',
        '[null,null,"realtime:room","system",17]',
        "[" * 2000,
        b"",
        b"\x00\x01",
        b"\x09whatever",
    ],
)
async def test_a_frame_that_cannot_be_read_is_counted_and_skipped(
    server: LocalRealtime,
    make_client: MakeClient,
    frame: str | bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = make_client()
    events, got = ClientEvents(client), Recorder()
    channel = client.channel("room").on("broadcast", {"event": "*"}, got)
    channel.on("presence", {"event": "*"}, got)
    channel.on("system", {}, got)
    await channel.subscribe()
    await until(lambda: client.health().frames_in >= 2)  # the presence state
    before = len(got.seen)
    server.faults.send_raw(frame)
    server.broadcast("room", "x", {"n": 1})
    await got.count(before + 1)
    assert got.seen[before].payload["n"] == 1
    health = client.health()
    assert health.decode_errors == 1
    assert len(events.errors) == 1
    assert "skipped a frame" in caplog.text
    assert client.is_connected()
    assert channel.state == "joined"


async def test_invalid_utf8_costs_one_frame(make_client: MakeClient) -> None:
    async def serve(peer: RawPeer) -> None:
        await peer.handshake()
        peer.text(b'[null,null,"realtime:room","broadcast",{"event":"\xff\xfe"}]')
        peer.text(b'[null,null,"phoenix","phx_reply",{"status":"ok","response":{}}]')
        await peer.eof()

    async with raw_peer(serve) as url:
        client = make_client(url)
        await client.connect()
        await until(lambda: client.health().frames_in == 2)
        assert client.health().decode_errors == 1
        assert client.is_connected()
        await client.disconnect()


async def test_unknown_and_stale_frames_are_counted_and_dropped(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    got, statuses = Recorder(), Statuses()
    await client.channel("room").on("broadcast", {"event": "*"}, got).subscribe(statuses)
    for frame in (
        '[null,null,"realtime:elsewhere","broadcast",{"event":"x","payload":{}}]',
        '[null,null,"realtime:room","surprise",{}]',
        '["999",null,"realtime:room","broadcast",{"event":"x","payload":{}}]',
        '["999","998","realtime:room","phx_reply",{"status":"ok","response":{}}]',
        '["999","999","realtime:room","phx_close",{}]',
        '["999","999","realtime:room","phx_error",{}]',
    ):
        server.faults.send_raw(frame)
    server.broadcast("room", "x", {"n": 1})
    await got.count(1)
    assert got.values() == [1]
    assert statuses.names == ["SUBSCRIBED"]
    health = client.health()
    assert (health.unknown_frames, health.stale_frames, health.decode_errors) == (2, 4, 0)


async def test_a_corrupted_frame_costs_itself_only(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    got, other = Recorder(), Recorder()
    await client.channel("room").on("broadcast", {"event": "*"}, got).subscribe()
    await client.channel("other").on("broadcast", {"event": "*"}, other).subscribe()
    server.faults.corrupt_next("broadcast")
    for n in range(3):
        server.broadcast("room", "x", {"n": n})
        server.broadcast("other", "x", {"n": n})
    await other.count(3)
    await got.count(2)
    assert (got.values(), other.values()) == ([1, 2], [0, 1, 2])
    assert client.health().decode_errors == 1


async def test_an_event_that_cannot_be_read_is_told_as_a_gap_of_its_channel(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    events = ClientEvents(client)
    await client.channel("room").subscribe()
    await client.channel("other").subscribe()
    topic, name = b"realtime:room", b"x"
    header = bytes([4, len(topic), len(name), 0, 1])
    server.faults.send_raw(header + topic + name + b"{no json")
    server.faults.send_raw('[null,null,"realtime:other","presence_diff",[]]')
    await events.some("gap", 2)
    assert [(args[0], args[3]) for args in events.of("gap")] == [
        ("realtime:room", "unreadable"),
        ("realtime:other", "unreadable"),
    ]
    assert [type(args[0]) for args in events.of("error")] == [DecodeError, DecodeError]
    assert [(args[0].topic, args[0].event) for args in events.of("error")] == [
        ("realtime:room", "broadcast"),
        ("realtime:other", "presence_diff"),
    ]


async def test_a_raising_logger_costs_no_frame(
    server: LocalRealtime, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    def logger(kind: str, message: str, data: Any) -> None:
        raise RuntimeError("no disk")

    got = Recorder()
    client = make_client(logger=logger)
    await client.channel("room").on("broadcast", {"event": "*"}, got).subscribe()
    server.broadcast("room", "x", {"n": 1})
    await got.count(1)
    assert "logger= raised" in caplog.text


# -- a peer that does not read -----------------------------------------------------------


async def test_frames_beyond_max_outbound_are_refused_and_told_once(
    make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    reading = asyncio.Event()

    async def serve(peer: RawPeer) -> None:
        await peer.handshake()
        join = (await peer.receive())[1]
        assert b"phx_join" in join
        peer.text(
            b'["1","1","realtime:room","phx_reply",'
            b'{"status":"ok","response":{"postgres_changes":[]}}]'
        )
        await reading.wait()
        await peer.eof()

    async with raw_peer(serve) as url:
        client = make_client(url, max_outbound=10, timeout=5)
        channel = client.channel("room")
        await channel.subscribe()
        message = {"type": "broadcast", "event": "x", "payload": "y" * 2**20}
        sends = [channel.send(message) for _ in range(40)]
        await turns()
        sends += [channel.send(message) for _ in range(10)]
        assert not sends[9].done()  # it waits for the peer
        refused = [send for send in sends if send.done() and await send == "error"]
        assert len(refused) >= 30
        assert client.health().refused_sends == len(refused)
        assert sum("frames wait to be written" in text for text in caplog.messages) == 1
        assert await channel.track({"a": 1}) == "error"
        reading.set()
        assert await sends[9] == "ok"
        assert await channel.send({**message, "payload": 1}) == "ok"
        await client.disconnect()


async def test_frames_that_were_not_written_before_a_loss_are_errors(
    make_client: MakeClient,
) -> None:
    peers: list[RawPeer] = []

    async def serve(peer: RawPeer) -> None:
        await peer.handshake()
        await peer.receive()
        peer.text(b'["1","1","realtime:room","phx_reply",{"status":"ok","response":{}}]')
        peers.append(peer)
        await asyncio.Event().wait()

    async with raw_peer(serve) as url:
        client = make_client(url)
        channel = client.channel("room")
        await channel.subscribe()
        message = {"type": "broadcast", "event": "x", "payload": "y" * 2**22}
        sends = [channel.send(message) for _ in range(10)]
        await turns()
        peers[0].writer.transport.abort()
        assert await asyncio.wait_for(sends[-1], 2) == "error"
        await client.disconnect()


async def test_frames_that_the_peer_does_not_take_are_left_at_the_close(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "supabase_rt")
    monkeypatch.setattr("supabase_rt._connection.link.DRAIN_TIMEOUT", 0.05)
    monkeypatch.setattr("supabase_rt._connection.transport.CLOSE_TIMEOUT", 0.05)

    async def serve(peer: RawPeer) -> None:
        await peer.handshake()
        await asyncio.Event().wait()

    async with raw_peer(serve) as url:
        client = make_client(url)
        await client.connect()
        for _ in range(40):
            client.push({"topic": "t", "event": "e", "payload": "x" * 2**20})
        await client.disconnect()
        assert our_tasks() == []
    assert "frames were left unwritten at the close" in caplog.text


async def test_a_payload_that_a_users_encoder_cannot_take_is_an_error(
    server: LocalRealtime, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    def encode(message: dict[str, Any]) -> str:
        if message["event"] == "broadcast":
            raise RuntimeError("cannot")
        return json.dumps([message.get(key) for key in KEYS])

    client = make_client(encode=encode)
    channel = client.channel("room")
    await channel.subscribe()
    assert await channel.send({"type": "broadcast", "event": "x", "payload": {}}) == "error"
    assert "cannot encode a broadcast frame" in caplog.text
    assert client.is_connected()


async def test_accepted_frames_leave_before_the_close(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    channel = client.channel("room")
    await channel.subscribe()
    for n in range(50):
        channel.send({"type": "broadcast", "event": "x", "payload": {"n": n}})
    await client.disconnect()
    sent = [each.payload["payload"]["n"] for each in server.received if each.event == "broadcast"]
    assert sent == list(range(50))


async def test_a_frame_that_aiohttp_will_not_write_ends_the_link_and_not_the_client(
    server: LocalRealtime, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    def encode(message: dict[str, Any]) -> str:
        if message["event"] == "e":
            return "half a pair: \ud800"
        return json.dumps([message.get(key) for key in KEYS])

    client = make_client(encode=encode)
    statuses = Statuses()
    await client.channel("room").subscribe(statuses)
    client.push({"topic": "t", "event": "e"})
    await statuses.are("SUBSCRIBED", "CHANNEL_ERROR", "SUBSCRIBED")
    assert str(statuses.errors[1]) == "the writer failed"
    assert "the writer failed" in caplog.text


async def test_the_session_of_our_own_is_closed_at_the_end(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    await client.connect()
    own = client._parts.connection.http
    assert isinstance(own, aiohttp.ClientSession)
    await client.disconnect()
    assert own.closed


async def test_a_lost_connection_is_logged_with_its_reason(
    server: LocalRealtime, client: RealtimeClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "supabase_rt")
    events = ClientEvents(client)
    await client.connect()
    server.faults.close(1011)
    await events.some("reconnected")
    assert "lost: socket closed: 1011" in caplog.text
    cause = events.of("reconnecting")[0][2]
    assert isinstance(cause, ConnectionLost)
