"""No hostile peer delays the client: a dead link is cut, closing is bounded, memory is bounded.

The suite runs some peers of each class, with short bounds. ``make hostile`` runs every peer over
TCP and TLS, with an empty and a full buffer, and with the bounds that users get.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from supabase_rt import ConnectionFailed, ConnectionLost, RealtimeClient, RealtimeError
from supabase_rt._connection import link, transport
from supabase_rt._runtime import http_session

from ..support.clients import QUICK
from ..support.hostile import LINUX, Attack, Foe, client_tls, foe, open_sockets
from ..support.recorder import ClientEvents, Recorder
from ..support.waiting import our_tasks, until

pytestmark = pytest.mark.skipif(not LINUX, reason="reads /proc/net/tcp")

WHOLE = os.environ.get("HOSTILE") == "all"
"""Set by ``make hostile``."""
NOT_IN_THE_SUITE = pytest.mark.skipif(not WHOLE, reason="one of many peers: make hostile runs it")
WIRES = {"TCP": False, "TLS": True}
SLACK = 1.5
"""Seconds that a busy machine may add to a bound."""
FLOOD_SLACK = 3.0
"""The same, for a flood that shares the processor with the client."""
PING = b"p" * 125


@pytest.fixture(autouse=True)
def bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most peers let a close run until its bound, so the suite waits for shorter ones."""
    if not WHOLE:
        monkeypatch.setattr(transport, "CLOSE_TIMEOUT", 0.4)
        monkeypatch.setattr(link, "DRAIN_TIMEOUT", 0.2)
        monkeypatch.setattr(http_session, "CLOSE_TIMEOUT", 0.2)


def matrix(names: str, *columns: Mapping[str, Any], suite: str) -> pytest.MarkDecorator:
    """Parametrize with all combinations of the columns; ``suite`` lists those that it runs."""
    kept, cases = set(suite.split()), []
    for ids in itertools.product(*columns):
        name = "-".join(filter(None, ids))
        values = [column[one] for column, one in zip(columns, ids, strict=True)]
        marks = () if name in kept else NOT_IN_THE_SUITE
        cases.append(pytest.param(*values, id=name, marks=marks))
    assert kept <= {str(case.id) for case in cases}
    return pytest.mark.parametrize(names, cases)


def by_name(*scripts: Callable[[Foe], None]) -> dict[str, Callable[[Foe], None]]:
    return {script.__name__: script for script in scripts}


def slack(script: Callable[[Foe], None]) -> float:
    floods = (pings_without_reading, sends_without_end, fragments_without_end)
    return FLOOD_SLACK if script in floods else SLACK


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
            assert took < transport.CLOSE_TIMEOUT + slack(script)


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
    # Closes the TCP connection only: a close within TLS would send a close_notify first.
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
    """The peer answers the close frame, but never the close_notify of TLS."""
    peer.handshake()
    while peer.recv(2)[:1] != b"\x88":
        pass
    peer.frame(0x88, b"\x03\xe8")
    peer.sit()


PEERS = by_name(
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
)


# -- the end is bounded ------------------------------------------------------------------


@matrix(
    "script, tls",
    PEERS,
    WIRES,
    suite="""
        pings_without_reading-TLS reads_nothing-TCP closes_its_writing_side-TCP
        asks_to_close_and_reads_nothing-TLS sends_without_end-TCP
        answers_the_close_and_never_says_goodbye-TLS
    """,
)
async def test_disconnect_is_bounded_against(script: Callable[[Foe], None], tls: bool) -> None:
    async with attacked(script, tls=tls) as (client, _):
        await client.connect()
        await asyncio.sleep(0.4)


@matrix(
    "script, tls",
    PEERS,
    WIRES,
    suite="""
        pings_without_reading-TCP reads_nothing-TLS closes_its_reading_side-TCP
        breaks_the_rules_and_reads_nothing-TCP fragments_without_end-TLS
    """,
)
async def test_disconnect_is_bounded_with_a_full_buffer_against(
    script: Callable[[Foe], None], tls: bool
) -> None:
    async with attacked(script, tls=tls) as (client, _):
        await client.connect()
        push_much(client)
        await asyncio.sleep(0.4)


@matrix(
    "full, script, tls",
    {"": False, "full": True},
    by_name(
        pings_without_reading,
        reads_nothing,
        reads_and_never_answers,
        closes_its_reading_side,
        sends_without_end,
        fragments_without_end,
        trickles_a_frame,
    ),
    WIRES,
    suite="""
        pings_without_reading-TCP reads_and_never_answers-TLS sends_without_end-TLS
        full-reads_nothing-TLS full-fragments_without_end-TCP
    """,
)
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
        assert time.monotonic() - started < 0.6 + slack(script)
        cause = events.of("reconnecting")[0][2]
        assert isinstance(cause, ConnectionLost)
        assert cause.code == "HeartbeatTimeout"
        # Only the socket of the present link may be open.
        await until(lambda: open_sockets(attack.port) <= 1, timeout=2)


@matrix("tls", WIRES, suite="TLS")
async def test_many_links_that_were_given_up_leave_no_socket(tls: bool) -> None:
    async with attacked(pings_without_reading, tls=tls, heartbeat_interval=0.1) as (client, attack):
        await client.connect()
        push_much(client, 8)
        await until(lambda: attack.connections >= 5, timeout=20)
        await until(lambda: open_sockets(attack.port) <= 1)


# -- pings -------------------------------------------------------------------------------


@matrix("tls", WIRES, suite="TCP")
async def test_a_flood_of_pings_stops_neither_the_reader_nor_fills_the_memory(tls: bool) -> None:
    flood, last = 100_000 if WHOLE else 30_000, b"the last one"
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
        current = client._parts.connection.links.current
        assert current is not None
        assert current.transport is not None
        wire = current.transport._wire
        assert wire is not None
        assert wire.get_write_buffer_size() < 2**20
        done.set()
        masked = len(last).to_bytes(1, "big")
        # The newest ping is answered once there is room again, by a masked pong of its length.
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
        for _ in range(3000 if WHOLE else 1000):
            client.push({"topic": "t", "event": "e", "payload": "x" * 10_000, "ref": None})
        await until(lambda: got, timeout=20)


async def test_a_timer_for_a_pong_ends_with_the_link() -> None:
    async with attacked(pings_without_reading, tls=False) as (client, _):
        await client.connect()
        push_much(client, 8)
        current = client._parts.connection.links.current
        assert current is not None
        websocket = current.transport
        assert websocket is not None
        await until(lambda: websocket._pong_later is not None)
        await client.disconnect()
        assert websocket._pong_later is None


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


HANDSHAKES = by_name(accepts_only, trickles_headers, informs_without_end)


@matrix(
    "script, tls",
    HANDSHAKES | by_name(refuses_without_end),
    WIRES,
    suite="accepts_only-TCP trickles_headers-TLS informs_without_end-TCP refuses_without_end-TLS",
)
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


@matrix("script, tls", HANDSHAKES, WIRES, suite="accepts_only-TLS trickles_headers-TCP")
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


@matrix(
    "connected, script, tls",
    {"alone": False, "beside-a-socket": True},
    by_name(http_that_reads_nothing, http_that_answers_unread),
    WIRES,
    suite="""
        alone-http_that_answers_unread-TLS beside-a-socket-http_that_reads_nothing-TCP
    """,
)
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
