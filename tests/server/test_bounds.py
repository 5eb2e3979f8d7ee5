"""What one client can cost the others: each attack that went through, and its relatives."""

from __future__ import annotations

import asyncio
import io
import json
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from supabase_rt.server import LocalRealtime
from supabase_rt.server._machine.message_store import MessageStore, StoredMessage
from supabase_rt.server._machine.outgoing import NO_CODE, Close
from supabase_rt.server.tokens import Rights, Token

from .kit import Client, Wire, World, payload_of, wire

ROOM = "realtime:room"
MB = 1_000_000
MIB = 2**20


# -- what is remembered --------------------------------------------------------------------


@pytest.mark.parametrize("topic", ["t" * MB, "t" * 250_000 + "😀"], ids=["plain", "wide"])
def test_topics_count_towards_what_is_remembered(topic: str) -> None:
    world = World()
    client = world.client()
    for number in range(100):
        client.push(f"{topic}{number}", "x", {})
    kept = world.backend.received
    assert 0 < sum(size(found.topic) for found in kept) < 64 * MIB
    assert len(kept) == len(world.backend.unexpected)


@pytest.mark.parametrize("name", ["event", "ref"])
def test_events_and_refs_count_towards_what_is_remembered(name: str) -> None:
    world = World()
    client = world.client()
    for _ in range(100):
        about = {"event": "e", "ref": "r"} | {name: "x" * MB}
        client.push(ROOM, about["event"], {}, ref=about["ref"])
    kept = world.backend.received
    assert sum(size(found.event) + size(found.ref) for found in kept) < 64 * MIB


def size(text: str | None) -> int:
    import sys

    return sys.getsizeof(text)


def test_messages_for_replay_are_bounded_in_bytes_and_the_newest_stay() -> None:
    store = MessageStore(most=MB)
    for number in range(100):
        store.add(f"topic-{number}", StoredMessage.make("e", {"x": "x" * 50_000}, float(number)))
    assert 10 < len(store._messages) < 20
    assert "topic-99" in store._messages
    for number in range(100):
        store.add("one", StoredMessage.make("e", {"n": number}, float(number)))
    assert len(store._messages["one"]) == 25


# -- what waits while a join is undecided --------------------------------------------------


async def test_a_socket_whose_join_is_undecided_is_not_read() -> None:
    async with LocalRealtime(join_error_delay=30.0) as server, wire(server) as client:
        await client.send("1", "1", "realtime:", "phx_join", {})
        flood = asyncio.ensure_future(send_all(client, 64))
        _, unsent = await asyncio.wait([flood], timeout=1.0)
        flood.cancel()
        assert unsent
        (session,) = (link._session for link in server.faults.links.values())  # type: ignore[attr-defined]
        assert sum(map(len, session._unread)) < 5 * MB
        assert server.open_connections == 1


async def send_all(client: Wire, megabytes: int) -> None:
    for _ in range(megabytes):
        await client.ws.send_bytes(b"x" * MB)


async def test_what_waited_for_a_join_is_handled_after_it_in_order() -> None:
    async with LocalRealtime(join_error_delay=0.2) as server, wire(server) as client:
        await client.send("1", "1", "realtime:", "phx_join", {})
        for number in range(50):
            await client.send(None, f"{number}", "phoenix", "heartbeat", {})
        assert (await client.recv())[4]["status"] == "error"
        assert [(await client.recv())[1] for _ in range(50)] == [f"{n}" for n in range(50)]


def test_what_others_say_while_a_join_is_undecided_is_bounded() -> None:
    world = World(join_error_delay=5.0, max_buffer_size=100_000)
    slow, loud = world.client(), world.client()
    slow.join()
    loud.join()
    slow.push("realtime:", "phx_join", {})
    for _ in range(20):
        loud.push(ROOM, "broadcast", {"type": "broadcast", "event": "e", "payload": "x" * 10_000})
    assert slow.heard()[-1] == Close(NO_CODE)
    slow.session.end()
    assert world.backend.outgoing.total == 0


# -- joins and channels --------------------------------------------------------------------


def test_a_million_bindings_are_refused_in_a_blink() -> None:
    world = World()
    client = world.client()
    frame = '["1","1","realtime:room","phx_join",{"config":{"postgres_changes":['
    frame += "{}," * 1_500_000 + "{}]}}]"
    started = time.perf_counter()
    reply = client.raw(frame)[0]
    assert time.perf_counter() - started < 0.5
    assert reply[4]["status"] == "error"
    few = [{"table": "t"}] * 1_001
    assert client.reason(postgres_changes=few) == (
        "UnknownErrorOnChannel: more than 1000 postgres_changes"
    )
    assert payload_of(client.join(postgres_changes=few[:1000])[0])["status"] == "ok"


def test_the_channels_of_a_socket_and_of_all_are_bounded_in_bytes() -> None:
    world = World()
    first = world.client()
    reasons = [joined(first, f"realtime:{n}" + "t" * 400_000) for n in range(50)]
    assert reasons[0] is None
    assert reasons[-1] == "ChannelRateLimitReached: The channels of this socket are too large"
    assert 5 < reasons.count(None) < 21
    # One that is left makes room again, and a small one fits in.
    first.push(next(iter(first.session.channels)), "phx_leave", {})
    assert joined(first, "realtime:" + "t" * 300_000) is None
    for _ in range(20):
        other = world.client()
        found = [joined(other, f"realtime:{n}" + "t" * 400_000) for n in range(10)]
    assert found[-1] == "ConnectionRateLimitReached: All channels together are too large"
    for client in world.clients:
        client.session.end()
    assert world.backend.channel_bytes == 0
    assert joined(world.client(), "realtime:" + "t" * 400_000) is None


def joined(client: Client, topic: str) -> str | None:
    reply = payload_of(client.join(topic)[0])
    return None if reply["status"] == "ok" else reply["response"]["reason"]


def test_a_socket_that_never_joins_is_cut_in_the_end() -> None:
    world = World(first_join_timeout=100.0, idle_timeout=1e9, no_channel_timeout=None)
    fresh, used = world.client(), world.client()
    used.join()
    used.push(ROOM, "phx_leave", {})
    world.advance(99)
    used.heard()
    assert fresh.heard() == []
    world.advance(2)
    assert fresh.heard() == [Close(NO_CODE)]
    assert used.heard() == []


# -- presence and tokens -------------------------------------------------------------------


def test_all_that_is_tracked_is_bounded_in_bytes() -> None:
    world = World()
    told = []
    for number in range(30):
        client = world.client()
        client.join(presence={"enabled": True})
        payload = {"event": "track", "payload": {"n": number, "x": "x" * MB}}
        frames = client.push(ROOM, "presence", payload)
        told += [frame[4]["message"] for frame in frames if frame[3] == "system"]
    assert set(told) == {"Track message size exceeded"}
    state = world.backend.hub.presence_state(("room", False))
    assert 10 <= len(state) == 30 - len(told) <= 17
    for client in world.clients:
        client.session.end()
    assert world.backend.hub._tracked_total == 0


def test_a_payload_that_grows_when_it_is_decoded_is_not_decoded() -> None:
    world = World()
    client = world.client()
    bomb = "[" + "[]," * 1_000_000 + "0]"
    for event, words in (
        ("presence", "Track message size exceeded"),
        ("access_token", "The token provided is not a valid JWT"),
    ):
        client.join()
        started = time.perf_counter()
        system, close = client.raw(f'["1","1","{ROOM}","{event}",{bomb}]')
        assert time.perf_counter() - started < 0.2
        assert (system[4]["message"], close[3]) == (words, "phx_close")
    # A frame of another shape is not looked at twice either.
    started = time.perf_counter()
    assert client.raw('{"a":' + bomb + "}") == []
    assert time.perf_counter() - started < 0.2
    assert world.backend.malformed == 1


class SlowDatabase:
    """Answers when it is told to."""

    reachable = True

    def __init__(self) -> None:
        self.asked: list[tuple[Token, Callable[[Rights | None], None]]] = []

    def ask_rights(
        self,
        token: Token,
        sub_topic: str,
        done: Callable[[Rights | None], None],
        client: object = None,
    ) -> None:
        self.asked.append((token, done))


def test_a_flood_of_tokens_asks_the_database_one_question_at_a_time() -> None:
    world = World()
    database = SlowDatabase()
    world.backend.database = database  # type: ignore[assignment]
    client = world.client()
    client.join(private=True)
    database.asked.pop()[1](Rights())
    client.heard()
    tokens = [world.token("authenticated", n=number) for number in range(100)]
    for token in tokens:
        client.push(ROOM, "access_token", {"access_token": token})
    assert len(database.asked) == 1
    database.asked[0][1](Rights())
    assert [token.text for token, _ in database.asked] == [tokens[0], tokens[-1]]
    # The last word is the newest token's.
    database.asked[1][1](Rights.none())
    assert client.events() == ["system", "phx_close"]


# -- odd frames ----------------------------------------------------------------------------

ODD = {
    "nested lists": "[" * 200_000,
    "nested objects": '{"a":' * 200_000,
    "5,000 digits": "9" * 5_000,
    "a million digits": "9" * MB,
    "1e400": "1e400",
    "-1e400": "-1e400",
    "a list of numbers": "[" + "9" * 5_000 + "]",
}


@pytest.mark.parametrize("vsn", ["1.0.0", "2.0.0"])
@pytest.mark.parametrize("case", list(ODD))
def test_numbers_and_nesting_without_end_cost_a_frame_at_most(case: str, vsn: str) -> None:
    world = World()
    client, other = world.client(vsn), world.client()
    other.join("realtime:elsewhere")
    odd = ODD[case]

    def frame(event: str, payload: str, ref: str = '"9"') -> str:
        if vsn == "2.0.0":
            return f'["1",{ref},"{ROOM}","{event}",{payload}]'
        return (
            f'{{"topic":"{ROOM}","event":"{event}","payload":{payload},"ref":{ref},"join_ref":"1"}}'
        )

    def send(data: str) -> None:
        # What comes back may hold the number again, which json.loads does not read.
        client.session.receive(data, world.now)

    started = time.perf_counter()
    for payload in (odd, f'{{"config":{odd}}}', f'{{"config":{{"presence":{{"key":{odd}}}}}}}'):
        send(frame("phx_join", payload))
    send(frame("phx_join", '{"config":{"presence":{"enabled":true}}}'))
    for event, payload in (
        ("presence", f'{{"event":"track","payload":{{"x":{odd}}}}}'),
        ("presence", f'{{"event":{odd}}}'),
        ("access_token", f'{{"access_token":{odd}}}'),
        ("broadcast", f'{{"event":"e","payload":{odd}}}'),
        ("nonsense", odd),
    ):
        send(frame(event, payload))
        send(frame(event, "{}", odd))
    send(odd)
    assert time.perf_counter() - started < 1.0
    assert not [each for each in client.session.outbox if isinstance(each, Close)]
    assert other.push("phoenix", "heartbeat", {})[-1][3] == "phx_reply"
    for found in world.backend.received:
        assert found.payload is None or json.dumps(found.payload, default=str) is not None


# -- the transport -------------------------------------------------------------------------


async def test_no_compression_is_negotiated_and_none_is_read() -> None:
    async with (
        LocalRealtime() as server,
        aiohttp.ClientSession() as session,
        session.ws_connect(
            f"{server.ws_url}/websocket?apikey={server.anon_key}&vsn=2.0.0", compress=15
        ) as ws,
    ):
        assert not ws.compress
        transport = ws.get_extra_info("socket")
        assert transport is not None
        # A compressed frame all the same: its first reserved bit is set.
        ws._writer.transport.write(b"\xc1\x81\0\0\0\0x")
        message = await ws.receive(timeout=2)
        assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1002)


async def test_large_frames_arrive_whole_and_pings_are_answered_between_them() -> None:
    async with LocalRealtime() as server, wire(server) as one, wire(server) as two:
        text = "é😀x" * 100_000
        for client in (one, two):
            await client.join(broadcast={"self": True})
        for number in range(3):
            payload = {"type": "broadcast", "event": "e", "payload": f"{number}{text}"}
            await one.send("1", "2", ROOM, "broadcast", payload)
            await one.ws.ping(b"now")
        for client in (one, two):
            for number in range(3):
                found = await client.recv(5.0)
                assert found[4]["payload"] == f"{number}{text}"
        server.broadcast("room", "binary", b"\0\xff" * 200_000)
        for client in (one, two):
            assert (await client.recv()).endswith(b"\0\xff" * 200_000)
        assert await one.beats()


async def test_a_large_frame_for_many_who_do_not_read_is_kept_once() -> None:
    async with LocalRealtime() as server:
        quiet = [await unread(server) for _ in range(8)]
        while server.joins < len(quiet):
            await asyncio.sleep(0.01)
        for _ in range(3):
            server.emit("room", "broadcast", {"x": "x" * 2 * MB})
            server.backend.hub.broadcast(("room", False), fanout("x" * 2 * MB))
        await asyncio.sleep(0.3)
        buffered = [
            link._transport.get_write_buffer_size()  # type: ignore[attr-defined]
            for link in server.faults.links.values()
        ]
        assert len(buffered) == len(quiet)
        assert max(buffered) < 200_000
        for each in quiet:
            each.close()


def fanout(text: str) -> Any:
    from supabase_rt.server._machine.outgoing import Fanout

    return Fanout(ROOM, "broadcast", {"payload": text})


async def unread(server: LocalRealtime) -> socket.socket:
    """A joined socket that nobody reads, with a small buffer."""
    loop = asyncio.get_running_loop()
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    found.setblocking(False)
    await loop.sock_connect(found, ("127.0.0.1", server.port))
    await loop.sock_sendall(found, upgrade(server.anon_key))
    await loop.sock_recv(found, 4096)
    await loop.sock_sendall(found, client_frame(f'["1","1","{ROOM}","phx_join",{{"config":{{}}}}]'))
    return found


def upgrade(key: str) -> bytes:
    return (
        f"GET /realtime/v1/websocket?vsn=2.0.0&apikey={key} HTTP/1.1\r\nHost: localhost\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    ).encode()


def client_frame(text: str, opcode: int = 1, *, fin: bool = True) -> bytes:
    data = text.encode()
    head = bytes([(0x80 if fin else 0) | opcode, 0xFF]) + struct.pack("!Q", len(data))
    return head + bytes(4) + data


async def test_the_client_that_reads_least_is_cut_when_all_together_wait_for_too_much() -> None:
    async with LocalRealtime(max_events_per_second=None) as server, wire(server) as good:
        await good.join()
        lazy = await unread(server)
        while server.joins < 2:
            await asyncio.sleep(0.01)
        for _ in range(40):
            server.faults.links[2].send_raw("x" * 2 * MB)
        async with asyncio.timeout(2):
            while server.open_connections == 2:
                await asyncio.sleep(0.01)
        assert await good.beats()
        assert server.backend.outgoing.total < MB
        lazy.close()


# -- HTTP ----------------------------------------------------------------------------------


async def answered(server: LocalRealtime, data: bytes, timeout: float = 3.0) -> bytes:
    """What the server says to these bytes until it ends the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        first, _, second = data.partition(b"|")
        writer.write(first)
        async with asyncio.timeout(timeout):
            if second:
                await reader.readuntil(b"ok")
                writer.write(second)
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ",
        b"GET /healthcheck HTTP/1.1\r\nHost: localhost\r\n\r\n|GET /x HTTP",
        b"POST /api/broadcast HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n1",
    ],
    ids=["nothing", "half a head", "half a second head", "half a body"],
)
async def test_a_request_that_is_never_finished_is_ended(
    data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supabase_rt.server._http.listening_socket.SWEEP", 0.05)
    async with LocalRealtime(request_timeout=0.2, body_timeout=0.2) as server:
        if b"POST" in data:
            key = f"apikey: {server.anon_key}\r\nContent-Length".encode()
            data = data.replace(b"Content-Length", key)
        await answered(server, data)


async def test_headers_that_would_be_kept_for_hours_are_refused() -> None:
    async with LocalRealtime() as server, aiohttp.ClientSession() as session:
        few = {f"x-{number}": "y" * 4000 for number in range(6)}
        many = {f"x-{number}": "y" * 4000 for number in range(12)}
        for path in ("/healthcheck", f"/socket/websocket?apikey={server.anon_key}"):
            async with session.get(server.url + path, headers=many) as response:
                assert response.status == 431
            async with session.get(server.url + path, headers=few) as response:
                assert response.status != 431


async def test_a_body_that_grows_when_it_is_decoded_is_refused() -> None:
    async with LocalRealtime() as server, aiohttp.ClientSession() as session:
        headers = {"apikey": server.anon_key, "Content-Type": "application/json"}
        body = b'{"messages":[' + b"[]," * 2_000_000 + b"0]}"
        for path in ("/api/broadcast", "/api/broadcast/room/events/e"):
            data = io.BytesIO(body)
            async with session.post(server.url + path, data=data, headers=headers) as response:
                assert response.status == 413


async def test_connections_that_do_nothing_make_room_for_those_that_join() -> None:
    async with LocalRealtime(max_connections=5) as server, wire(server) as client:
        await client.join()
        idle = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(20)]
        async with wire(server) as late:
            assert (await late.join())[4]["status"] == "ok"
            assert await client.beats()
        for _, writer in idle:
            writer.close()
