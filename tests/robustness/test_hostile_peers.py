"""A peer that means harm hangs nobody: verdicts cut, closing is bounded, memory stays."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from supabase_rt import ConnectionFailed, ConnectionLost, RealtimeClient, RealtimeError
from supabase_rt._connection.transport import CLOSE_TIMEOUT

from ..support.clients import QUICK
from ..support.hostile import LINUX, Attack, Foe, client_tls, foe, open_sockets
from ..support.recorder import ClientEvents, Recorder
from ..support.waiting import our_tasks, until

pytestmark = pytest.mark.skipif(not LINUX, reason="reads /proc/net/tcp")

BOTH = pytest.mark.parametrize("tls", [False, True], ids=["TCP", "TLS"])
SLACK = 3.0
"""Seconds that a busy machine may add to a bound: a flood shares the processor with us."""
PING = b"p" * 125


@asynccontextmanager
async def attacked(
    script: Callable[[Foe], None], *, tls: bool, raw: bool = False, **options: Any
) -> AsyncIterator[tuple[RealtimeClient, Attack]]:
    """A client of a hostile peer; at the end it disconnects within its bound, leaving nothing."""
    with foe(script, tls=tls, raw=raw) as attack:
        options = {"heartbeat_interval": 60.0, "timeout": 5.0, "reconnect": QUICK, **options}
        if tls:
            options["ssl"] = client_tls()
        # In debug mode a timer costs a hundred times as much, and these tests look at the clock.
        asyncio.get_running_loop().set_debug(False)
        client = RealtimeClient(attack.url, params={"apikey": "key"}, **options)
        try:
            yield client, attack
        finally:
            started = time.monotonic()
            async with asyncio.timeout(30):
                assert await client.disconnect() == "ok"
            took = time.monotonic() - started
            assert our_tasks() == []
            assert open_sockets(attack.port) == 0
            assert took < CLOSE_TIMEOUT + SLACK


def push_much(client: RealtimeClient, mebibytes: int = 32) -> None:
    for _ in range(mebibytes):
        client.push({"topic": "t", "event": "e", "payload": "x" * 2**20, "ref": None})


# -- peers -------------------------------------------------------------------------------


def pings_without_reading(peer: Foe) -> None:
    peer.handshake()
    peer.flood(bytes([0x89, len(PING)]) + PING)


def reads_nothing(peer: Foe) -> None:
    peer.handshake()
    peer.sit()


def reads_and_never_answers(peer: Foe) -> None:
    peer.handshake()
    peer.take()


def closes_its_reading_side(peer: Foe) -> None:
    peer.handshake()
    peer.conn.shutdown(socket.SHUT_RD)
    peer.sit()


def closes_its_writing_side(peer: Foe) -> None:
    peer.handshake()
    time.sleep(0.3)
    # Of the TCP connection: within TLS there would be a goodbye before it.
    socket.socket.shutdown(peer.conn, socket.SHUT_WR)
    peer.sit()


def asks_to_close_and_reads_nothing(peer: Foe) -> None:
    peer.handshake()
    time.sleep(0.3)
    peer.frame(0x88, b"\x03\xe8")
    peer.sit()


def breaks_the_rules_and_reads_nothing(peer: Foe) -> None:
    peer.handshake()
    time.sleep(0.3)
    peer.frame(0x83, b"reserved")
    peer.sit()


def sends_without_end(peer: Foe) -> None:
    peer.handshake()
    peer.flood(b"\x81\x19" + b'[null,null,"room","x",{}]')


def fragments_without_end(peer: Foe) -> None:
    peer.handshake()
    peer.frame(0x01, b"[")
    peer.flood(b"\x00\x01 ")


def trickles_a_frame(peer: Foe) -> None:
    peer.handshake()
    peer.conn.sendall(b"\x81\x7f" + (2**20).to_bytes(8, "big"))
    while not peer.stop.wait(0.02):
        peer.conn.sendall(b" ")


def answers_the_close_and_never_says_goodbye(peer: Foe) -> None:
    """As TLS asks of a peer: its close_notify is never answered."""
    peer.handshake()
    while peer.recv(2)[:1] != b"\x88":
        pass
    peer.frame(0x88, b"\x03\xe8")
    peer.sit()


PEERS = [
    pings_without_reading,
    reads_nothing,
    reads_and_never_answers,
    closes_its_reading_side,
    closes_its_writing_side,
    asks_to_close_and_reads_nothing,
    breaks_the_rules_and_reads_nothing,
    sends_without_end,
    fragments_without_end,
    trickles_a_frame,
    answers_the_close_and_never_says_goodbye,
]


# -- the end is bounded ------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("script", PEERS)
async def test_disconnect_is_bounded_against(script: Callable[[Foe], None], tls: bool) -> None:
    async with attacked(script, tls=tls) as (client, _):
        await client.connect()
        await asyncio.sleep(0.5)


@BOTH
@pytest.mark.parametrize("script", PEERS)
async def test_disconnect_is_bounded_with_a_full_buffer_against(
    script: Callable[[Foe], None], tls: bool
) -> None:
    async with attacked(script, tls=tls) as (client, _):
        await client.connect()
        push_much(client)
        await asyncio.sleep(0.5)


@BOTH
@pytest.mark.parametrize(
    "script",
    [
        pings_without_reading,
        reads_nothing,
        reads_and_never_answers,
        closes_its_reading_side,
        sends_without_end,
        fragments_without_end,
        trickles_a_frame,
    ],
)
@pytest.mark.parametrize("full", [False, True], ids=["", "full"])
async def test_the_verdict_of_the_heartbeat_cuts_at_once(
    script: Callable[[Foe], None], tls: bool, full: bool
) -> None:
    async with attacked(script, tls=tls, heartbeat_interval=0.3) as (client, attack):
        events = ClientEvents(client)
        await client.connect()
        if full:
            push_much(client)
        started = time.monotonic()
        await events.some("reconnected", timeout=20)
        assert time.monotonic() - started < 0.6 + SLACK
        cause = events.of("reconnecting")[0][2]
        assert isinstance(cause, ConnectionLost)
        assert cause.code == "HeartbeatTimeout"
        # The one of now, and no other that lives on.
        await until(lambda: open_sockets(attack.port) <= 1, timeout=2)


@BOTH
async def test_many_links_that_were_given_up_leave_no_socket(tls: bool) -> None:
    async with attacked(pings_without_reading, tls=tls, heartbeat_interval=0.1) as (client, attack):
        await client.connect()
        push_much(client, 8)
        await until(lambda: attack.connections >= 5, timeout=20)
        await until(lambda: open_sockets(attack.port) <= 1)


# -- pings -------------------------------------------------------------------------------


@BOTH
async def test_a_flood_of_pings_stops_neither_the_reader_nor_fills_the_memory(tls: bool) -> None:
    flood, last = 100_000, b"the last one"
    pongs: list[bytes] = []

    def script(peer: Foe) -> None:
        peer.handshake()
        data = bytes([0x89, len(PING)]) + PING
        for _ in range(flood // 1000):
            peer.conn.sendall(data * 1000)
        peer.frame(0x89, last)
        peer.frame(0x81, b'[null,null,"phoenix","phx_flood_over",{}]')
        while not done.wait(0.01):
            pass
        while not peer.stop.is_set():
            pongs.append(peer.recv(65536))

    done = threading.Event()
    async with attacked(script, tls=tls) as (client, _):
        seen = Recorder()
        client.on("error", seen)
        await client.connect()
        before = client.health().frames_in
        await until(lambda: client.health().frames_in > before, timeout=20)
        link = client._parts.connection._link
        assert link is not None
        assert link.transport is not None
        wire = link.transport._wire
        assert wire is not None
        assert wire.get_write_buffer_size() < 2**20
        done.set()
        masked = len(last).to_bytes(1, "big")
        # The newest is answered, when there is room again: a masked pong of its length.
        await until(lambda: pongs and bytes([0x8A, 0x80 | masked[0]]) in b"".join(pongs))
        assert client.is_connected()


async def test_a_ping_is_answered_while_much_is_being_sent() -> None:
    got: list[float] = []

    def script(peer: Foe) -> None:
        peer.handshake()
        time.sleep(0.2)
        peer.frame(0x89, b"now")
        since = time.monotonic()
        tail = b""
        while not peer.stop.is_set() and not got:
            tail = tail[-10:] + peer.recv(4096)
            time.sleep(0.0005)
            if b"\x8a\x83" in tail:
                got.append(time.monotonic() - since)
        peer.take()

    async with attacked(script, tls=False) as (client, _):
        await client.connect()
        for _ in range(3000):
            client.push({"topic": "t", "event": "e", "payload": "x" * 10_000, "ref": None})
        await until(lambda: got, timeout=20)


async def test_a_timer_for_a_pong_ends_with_the_link() -> None:
    async with attacked(pings_without_reading, tls=False) as (client, _):
        await client.connect()
        push_much(client, 8)
        link = client._parts.connection._link
        assert link is not None
        transport = link.transport
        assert transport is not None
        await until(lambda: transport._pong_later is not None)
        await client.disconnect()
        assert transport._pong_later is None


# -- handshakes without end --------------------------------------------------------------


def accepts_only(peer: Foe) -> None:
    peer.sit()


def trickles_headers(peer: Foe) -> None:
    peer.recv(65536)
    peer.conn.sendall(b"HTTP/1.1 101 Switching Protocols\r\nX-Slow: ")
    while not peer.stop.wait(0.02):
        peer.conn.sendall(b"x")


def informs_without_end(peer: Foe) -> None:
    peer.recv(65536)
    while not peer.stop.wait(0.001):
        peer.conn.sendall(b"HTTP/1.1 103 Early Hints\r\n\r\n")


def refuses_without_end(peer: Foe) -> None:
    peer.recv(65536)
    peer.conn.sendall(b"HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n")
    peer.flood(b"400\r\n" + b"x" * 1024 + b"\r\n")


HANDSHAKES = [accepts_only, trickles_headers, informs_without_end, refuses_without_end]


@BOTH
@pytest.mark.parametrize("script", HANDSHAKES)
async def test_a_handshake_without_end_is_over_in_time(
    script: Callable[[Foe], None], tls: bool
) -> None:
    async with attacked(script, tls=tls, timeout=0.5) as (client, attack):
        started = time.monotonic()
        with pytest.raises(ConnectionFailed):
            await client.connect()
        assert time.monotonic() - started < 0.5 + SLACK
        await until(lambda: open_sockets(attack.port) == 0, timeout=2)


@pytest.mark.loop_errors("a TLS handshake that is cut")
async def test_a_tls_handshake_without_end_is_over_in_time() -> None:
    async with attacked(accepts_only, tls=True, raw=True, timeout=0.5) as (client, attack):
        with pytest.raises(ConnectionFailed):
            await client.connect()
        await until(lambda: open_sockets(attack.port) == 0, timeout=2)


@BOTH
@pytest.mark.parametrize("script", HANDSHAKES[:3])
async def test_disconnect_is_bounded_in_the_middle_of_a_handshake(
    script: Callable[[Foe], None], tls: bool
) -> None:
    async with attacked(script, tls=tls, raw=True) as (client, _):
        client.channel("room").subscribe()
        client.connect()
        await asyncio.sleep(0.3)


# -- over HTTP ---------------------------------------------------------------------------


def http_that_reads_nothing(peer: Foe) -> None:
    peer.sit()


def http_that_answers_unread(peer: Foe) -> None:
    peer.conn.sendall(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
    peer.sit()


@BOTH
@pytest.mark.parametrize("script", [http_that_reads_nothing, http_that_answers_unread])
@pytest.mark.parametrize("connected", [False, True], ids=["alone", "beside a socket"])
async def test_a_request_that_nobody_reads_leaves_no_socket(
    script: Callable[[Foe], None], tls: bool, connected: bool
) -> None:
    def serve(peer: Foe) -> None:
        if connected and attack.connections == 1:
            peer.handshake()
            peer.take()
        else:
            script(peer)

    async with attacked(serve, tls=tls) as (client, attack):
        if connected:
            await client.connect()
        started = time.monotonic()
        try:
            await client.channel("room").http_send("x", {"x": "y" * 2**24}, timeout=1.0)
        except RealtimeError:
            pass
        assert time.monotonic() - started < 1.0 + SLACK


async def test_a_session_of_the_users_keeps_its_own_sockets() -> None:
    def script(peer: Foe) -> None:
        peer.handshake()
        peer.take()

    async with aiohttp.ClientSession() as session:
        async with attacked(script, tls=False, session=session) as (client, _):
            await client.connect()
        assert not session.closed
