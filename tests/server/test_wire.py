"""The server behind real sockets: handshakes, conversations, start and stop."""

from __future__ import annotations

import asyncio
import json
import logging
import struct
import time
from typing import Any

import aiohttp
import pytest

from supabase_rt.server import LocalRealtime
from supabase_rt.server.tokens import Tokens

from ..robustness.faults.wsframes import TEXT, build
from ..support.waiting import until
from .kit import Wire, wire

OK = {"status": "ok", "response": {}}
TOPIC = "realtime:room"
UPGRADE = """\
Host: localhost\r
Connection: Upgrade\r
Upgrade: websocket\r
Sec-WebSocket-Version: 13\r
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r
"""


async def get(server: LocalRealtime, path: str, **about: Any) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(server.url + path, **about) as response,
    ):
        return response.status, await response.text()


# -- handshakes ----------------------------------------------------------------------------


async def test_refused_handshakes() -> None:
    async with LocalRealtime() as server:
        other = Tokens("another-secret-of-at-least-32-bytes-")
        mint = server.backend.tokens.mint
        later = time.time() + 60
        cases = [
            (None, 401, "API key is missing"),
            ("", 401, "The token provided is not a valid JWT"),
            ("nope", 401, "The token provided is not a valid JWT"),
            ("sb_publishable_x", 401, "The token provided is not a valid JWT"),
            (server.token(expires_in=-60), 401, "Token has expired"),
            (other.mint({"role": "anon", "exp": later}), 401, "Failed to validate JWT signature"),
            (mint({"role": "a"}), 401, "Fields `role` and `exp` are required in JWT"),
            (mint({"exp": later}), 401, "Fields `role` and `exp` are required in JWT"),
            (mint({"role": "a", "exp": later, "iat": "x"}), 500, "Error connecting to Realtime"),
        ]
        for path in ("/socket/websocket", "/realtime/v1/websocket"):
            for key, status, error in cases:
                params = {"vsn": "2.0.0"} | ({} if key is None else {"apikey": key})
                found = await get(server, path, params=params)
                assert found == (status, f'{{"error":"{error}"}}')
            for vsn in ("2.0", "2", "1.1.0", "3.0.0", "x"):
                params = {"apikey": server.anon_key, "vsn": vsn}
                assert await get(server, path, params=params) == (403, "")
            assert await get(server, path, params={"apikey": server.anon_key}) == (
                400,
                "'upgrade' header must contain 'websocket', got []",
            )
            async with aiohttp.ClientSession() as session, session.post(server.url + path) as post:
                assert (post.status, await post.text()) == (400, "")
        assert server.connections == 0


@pytest.mark.parametrize(
    ("headers", "problem"),
    [
        ({"Upgrade": "h2c"}, "'upgrade' header must contain 'websocket', got [\"h2c\"]"),
        ({"Connection": "close"}, "'connection' header must contain 'upgrade', got [\"close\"]"),
        ({"Sec-WebSocket-Version": "8"}, "'sec-websocket-version' header must equal '13', got"),
        ({"Sec-WebSocket-Key": ""}, "'sec-websocket-key' header is absent"),
    ],
)
async def test_requests_that_are_no_handshake(
    server: LocalRealtime, headers: dict[str, str], problem: str
) -> None:
    good = {
        "Connection": "keep-alive, Upgrade",
        "Upgrade": "WebSocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    params = {"apikey": server.anon_key}
    status, text = await get(server, "/socket/websocket", params=params, headers=good | headers)
    assert status == 400
    assert text.startswith(problem)


async def test_a_refused_handshake_can_be_held() -> None:
    async with LocalRealtime(connect_error_delay=0.1) as server:
        start = time.monotonic()
        assert (await get(server, "/socket/websocket"))[0] == 401
        assert time.monotonic() - start >= 0.1


async def test_the_header_wins_over_the_query() -> None:
    async with LocalRealtime() as server, aiohttp.ClientSession() as session:
        url = f"{server.url}/socket/websocket?apikey=nope&vsn=2.0.7"
        key = {"x-api-key": f" {server.anon_key} "}
        async with session.ws_connect(url, headers=key) as ws:
            assert await Wire(ws).beats()
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await session.ws_connect(url)


# -- conversations ---------------------------------------------------------------------------


async def test_a_conversation_of_two_versions() -> None:
    async with LocalRealtime() as server, wire(server) as new, wire(server, vsn="1.0.0") as old:
        assert await new.join(presence={"enabled": True, "key": "a"}) == [
            "1", "1", TOPIC, "phx_reply", {"status": "ok", "response": {"postgres_changes": []}},
        ]  # fmt: skip
        assert (await new.recv())[3] == "presence_state"
        join = {"topic": TOPIC, "event": "phx_join", "payload": {"config": {}}, "ref": "1"}
        await old.ws.send_json(join)
        assert (await old.recv())["payload"]["status"] == "ok"
        head = b"\x03\x01\x01\x0d\x04\x00\x01"
        await new.ws.send_bytes(head + b"15" + TOPIC.encode() + b'blob{"x":1}')
        assert (await old.recv())["payload"] == {
            "type": "broadcast",
            "event": "blob",
            "payload": {"x": 1},
        }
        assert server.broadcast(TOPIC, "db", {"y": 2}) == 2
        assert (await old.recv())["payload"]["event"] == "db"
        assert (await new.recv())[:3] == b"\x04\x0d\x02"
        assert await server.broadcast("room", "db", b"\x00") == 1
        assert (await new.recv())[4] == 0
        track = {"type": "presence", "event": "track", "payload": {}}
        assert await new.ask("1", "6", TOPIC, "presence", track) == [
            "1", "6", TOPIC, "phx_reply", OK,
        ]  # fmt: skip
        assert list((await old.recv())["payload"]["joins"]) == ["a"]
        await new.ws.close()
        assert list((await old.recv())["payload"]["leaves"]) == ["a"]
        assert (server.connections, server.joins) == (2, 2)
        assert [each.connection for each in server.received] == [1, 2, 1, 1]
        assert server.received[2].payload["payload"] == {"x": 1}


async def test_changes_arrive() -> None:
    async with LocalRealtime() as server, wire(server) as client:
        binding = {"event": "*", "schema": "public", "table": "messages"}
        await client.join(postgres_changes=[binding])
        assert (await client.recv())[4]["message"] == "Subscribed to PostgreSQL"
        assert await server.insert("messages", {"id": 1, "body": "hi"}) == 1
        assert (await client.recv())[4]["data"]["record"] == {"id": 1, "body": "hi"}
        assert await server.update("messages", {"id": 1, "body": "ho"}) == 1
        assert (await client.recv())[4]["data"]["type"] == "UPDATE"
        assert await server.delete("messages", {"id": 1}) == 1
        assert (await client.recv())[4]["data"]["old_record"] == {"id": 1}


async def test_a_token_expires() -> None:
    async with LocalRealtime() as server, wire(server) as client:
        payload = {"config": {}, "access_token": server.token(expires_in=0.15)}
        assert (await client.ask("1", "1", TOPIC, "phx_join", payload))[4]["status"] == "ok"
        assert (await client.recv())[4]["message"] == "Token has expired 0 seconds ago"
        assert (await client.recv())[3] == "phx_close"
        assert await client.beats()


async def test_a_silent_client_is_closed_and_a_ping_is_a_sign_of_life() -> None:
    async with LocalRealtime(idle_timeout=0.6) as server, wire(server) as client:
        for _ in range(3):
            await asyncio.sleep(0.25)
            await client.ws.ping()
            await client.ws.pong()
        assert server.open_connections == 1
        assert await client.recv() == ("closed", 1000, "")


async def test_a_silent_client_that_reads_nothing_either_is_hung_up_on() -> None:
    async with LocalRealtime(
        idle_timeout=0.3, close_timeout=0.1, max_events_per_second=None
    ) as server:
        # With this low limit the client's transport stops reading if nobody takes its frames.
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1024)
        path = f"/socket/websocket?vsn=2.0.0&apikey={server.anon_key}"
        writer.write(f"GET {path} HTTP/1.1\r\n{UPGRADE}\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        join = ["1", "1", TOPIC, "phx_join", {"config": {}}]
        writer.write(build(TEXT, json.dumps(join).encode(), masked=True))
        await until(lambda: server.joins)
        for _ in range(200):
            server.broadcast("room", "e", {"x": "x" * 100_000})
        await until(lambda: server.open_connections == 0)
        writer.close()


async def test_malformed_frames_disturb_nobody() -> None:
    async with LocalRealtime() as server, wire(server) as client:
        await client.ws.send_str("nonsense")
        await client.ws.send_bytes(b"\xff\xff")
        await client.ws.send_frame(b'[null,"1","phoenix","\xff",{}]', aiohttp.WSMsgType.TEXT)
        assert await client.beats()
        assert server.malformed == 3


async def test_a_frame_that_is_too_large_closes_with_1009() -> None:
    async with LocalRealtime(max_frame_size=1000) as server, wire(server) as client:
        await client.ws.send_str("x" * 1001)
        assert (await client.recv())[1] == 1009


async def test_a_client_that_does_not_read_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    async with LocalRealtime(max_buffer_size=100_000) as server, wire(server) as client:
        await client.join()
        for _ in range(20):
            server.broadcast("room", "big", {"x": "y" * 10_000})
        await asyncio.sleep(0.05)
        assert server.open_connections == 0
    assert not caplog.records


async def test_a_failure_in_one_socket_ends_that_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with LocalRealtime() as server, wire(server) as good, wire(server) as bad:
        note = server.backend.note

        def fail(connection: int, message: Any, *size: int) -> None:
            if message.event == "bomb":
                raise RuntimeError("boom")
            note(connection, message, *size)

        monkeypatch.setattr(server.backend, "note", fail)
        await bad.send(None, "1", "phoenix", "bomb", {})
        assert await bad.recv() == ("closed", 1011, "")
        assert await good.beats()
        monkeypatch.setattr(server.faults, "apply", fail)
        await good.send(None, "1", "phoenix", "heartbeat", {})
        assert (await good.recv())[0] == "closed"
    assert [record.message for record in caplog.records] == [
        "socket 2 failed and is closed",
        "socket 1 cannot be written to and is cut",
    ]


async def test_the_close_code_of_a_client_is_echoed() -> None:
    async with LocalRealtime() as server:
        for payload, answer in ((struct.pack("!H", 4003), 4003), (b"", 1000)):
            reader, writer = await _raw_socket(server)
            writer.write(bytes([0x88, 0x80 | len(payload), 0, 0, 0, 0]) + payload)
            assert await reader.read(100) == b"\x88\x02" + struct.pack("!H", answer)
            writer.close()
            await writer.wait_closed()


async def _raw_socket(server: LocalRealtime) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection(server.host, server.port)
    writer.write(
        f"GET /socket/websocket?apikey={server.anon_key} HTTP/1.1\r\nHost: localhost\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101")
    assert b"xtensions" not in head
    return reader, writer


# -- start and stop ----------------------------------------------------------------------------


async def test_stop_closes_with_1012_and_leaves_nothing() -> None:
    server = LocalRealtime()
    await server.stop()
    assert server.open_connections == 0
    await server.start()
    with pytest.raises(RuntimeError, match="running already"):
        await server.start()
    async with wire(server) as client:
        await client.join()
        stopping = asyncio.ensure_future(server.stop())
        assert await client.recv() == ("closed", 1012, "")
        await stopping
    await asyncio.sleep(0)
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left
    with pytest.raises(OSError):
        await asyncio.open_connection(server.host, server.port)


async def test_stop_does_not_wait_for_clients_that_do_not_answer() -> None:
    server = await LocalRealtime(close_timeout=0.05).start()
    _, writer = await _raw_socket(server)
    start = time.monotonic()
    await server.stop()
    assert time.monotonic() - start < 1.0
    writer.close()


async def test_stop_does_not_wait_for_clients_that_do_not_read() -> None:
    server = await LocalRealtime(close_timeout=0.05).start()
    _, writer = await _raw_socket(server)
    for _ in range(50):
        server.faults.send_raw("x" * 200_000)
    await asyncio.sleep(0.02)
    await server.stop()
    assert server.open_connections == 0
    writer.close()


async def test_a_port_that_is_taken() -> None:
    async with LocalRealtime() as server:
        with pytest.raises(OSError):
            await LocalRealtime(server.port).start()


async def test_restart_keeps_the_port_and_the_state() -> None:
    async with LocalRealtime() as server:
        url = server.url
        async with wire(server) as client:
            restarting = asyncio.ensure_future(server.restart(downtime=0.05))
            assert await client.recv() == ("closed", 1012, "")
            await restarting
        assert server.url == url
        async with wire(server) as client:
            assert await client.beats()
        assert server.connections == 2


def test_addresses() -> None:
    server = LocalRealtime(5555, "::1")
    assert server.url == "http://[::1]:5555"
    # A server that listens on all addresses is reached at this one.
    assert LocalRealtime(5555, "0.0.0.0").url == "http://127.0.0.1:5555"
    assert LocalRealtime(5555, "::").ws_url == "ws://[::1]:5555/realtime/v1"
    assert LocalRealtime(1).ws_url == "ws://127.0.0.1:1/realtime/v1"


async def test_nothing_is_logged_in_ordinary_use(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with LocalRealtime() as server, wire(server) as client:
        await client.join()
    assert [each for each in caplog.records if each.name.startswith(("aiohttp", "supa"))] == []
