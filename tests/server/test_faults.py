"""Every fault of ``Faults``, through real sockets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest

from supabase_rt.server import LocalRealtime

from .kit import Wire, wire

TOPIC = "realtime:room"


@pytest.fixture
async def server() -> AsyncIterator[LocalRealtime]:
    async with LocalRealtime(close_timeout=0.1) as found:
        yield found


@pytest.fixture
async def client(server: LocalRealtime) -> AsyncIterator[Wire]:
    async with wire(server) as found:
        yield found


async def test_cut(server: LocalRealtime, client: Wire) -> None:
    await client.join()
    server.faults.cut()
    assert await client.recv() == ("closed", 1006)
    await asyncio.sleep(0.01)
    assert server.open_connections == 0
    assert server.backend.hub.members(("room", False)) == []


async def test_cut_resets_the_connection(server: LocalRealtime) -> None:
    reader, writer = await asyncio.open_connection(server.host, server.port)
    writer.write(
        f"GET /socket/websocket?apikey={server.anon_key} HTTP/1.1\r\nHost: localhost\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    await reader.readuntil(b"\r\n\r\n")
    server.faults.cut()
    with pytest.raises(ConnectionResetError):
        await reader.read(10)
    writer.close()


async def test_close(server: LocalRealtime, client: Wire) -> None:
    server.faults.close(4001, "because")
    server.faults.close(4002)
    server.faults.send_raw("too late")
    assert await client.recv() == ("closed", 4001, "because")


async def test_close_goes_ahead_of_what_waits(server: LocalRealtime, client: Wire) -> None:
    server.faults.delay(0.05)
    await client.send(None, "1", "phoenix", "heartbeat", {})
    await asyncio.sleep(0.02)
    server.faults.close(1013)
    assert await client.recv() == ("closed", 1013, "")


async def test_what_a_client_sends_after_the_close_is_not_read(
    server: LocalRealtime, client: Wire
) -> None:
    server.faults.delay(0.05)
    server.faults.close(1001)
    assert not server.received
    await client.send(None, "1", "phoenix", "heartbeat", {})
    assert (await client.recv())[1] == 1001
    assert not server.received


async def test_stall_and_resume(server: LocalRealtime, client: Wire) -> None:
    server.faults.stall()
    assert not await client.beats(0.1)
    assert server.open_connections == 1
    assert not server.received
    async with wire(server) as other:
        assert await other.beats()
    server.faults.resume()
    # The timeout above cancelled aiohttp's read, but the socket is still open.
    assert (await client.recv())[1] == "hb"


async def test_a_stalled_socket_can_be_closed_or_cut(server: LocalRealtime, client: Wire) -> None:
    async with wire(server) as other:
        server.faults.stall()
        server.faults.close(1001)
        assert await client.recv() == ("closed", 1001, "")
        assert await other.recv() == ("closed", 1001, "")
    async with wire(server) as other:
        server.faults.stall()
        server.faults.cut()
        assert (await other.recv())[0] == "closed"


async def test_stalled_handshakes(server: LocalRealtime) -> None:
    server.faults.stall(handshakes=True)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1), wire(server):
            pass
    server.faults.resume()
    async with wire(server) as found:
        assert await found.beats()


async def test_stop_releases_a_stalled_handshake() -> None:
    server = await LocalRealtime().start()
    server.faults.stall(handshakes=True)

    async def connect() -> str:
        try:
            async with wire(server) as found:
                await found.recv()
        except aiohttp.ClientError:
            pass
        return "ended"

    connecting = asyncio.ensure_future(connect())
    await asyncio.sleep(0.05)
    await server.stop()
    assert await connecting == "ended"


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (503, "Service Unavailable"),
        (429, "Too many connected users"),
        (404, "Tenant not found"),
        (599, "refused"),
    ],
)
async def test_refuse(server: LocalRealtime, status: int, error: str) -> None:
    server.faults.refuse(status)
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        async with wire(server):
            pass
    assert caught.value.status == status
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{server.url}/socket/websocket") as response,
    ):
        assert await response.json() == {"error": error}
    server.faults.refuse(None)
    async with wire(server) as found:
        assert await found.beats()


async def test_refuse_by_dropping_the_connection(server: LocalRealtime) -> None:
    server.faults.refuse(0)
    with pytest.raises(aiohttp.ClientError) as caught:
        async with wire(server):
            pass
    assert not isinstance(caught.value, aiohttp.WSServerHandshakeError)


async def test_refuse_next_join(server: LocalRealtime, client: Wire) -> None:
    server.faults.refuse_next_join("InitializingProjectConnection: soon")
    reply = await client.join()
    assert reply[4] == {
        "status": "error",
        "response": {"reason": "InitializingProjectConnection: soon"},
    }
    assert (await client.join())[4]["status"] == "ok"
    server.faults.refuse_next_join("ClientJoinRateLimitReached: x", close=1001)
    await client.join("realtime:other")
    assert await client.recv() == ("closed", 1001, "")


async def test_delay_keeps_the_order(server: LocalRealtime, client: Wire) -> None:
    server.faults.delay(0.1)
    start = time.monotonic()
    for ref in "0123456789":
        await client.send(None, ref, "phoenix", "heartbeat", {})
    assert [(await client.recv())[1] for _ in range(10)] == list("0123456789")
    # All frames have the same delay; one after the other they would need a second.
    assert 0.1 <= time.monotonic() - start < 0.8


async def test_lost_and_spoiled_frames(server: LocalRealtime, client: Wire) -> None:
    server.faults.drop_next("phx_reply")
    assert not await client.beats(0.05)
    server.faults.corrupt_next()
    await client.send(None, "2", "phoenix", "heartbeat", {})
    message = await client.ws.receive(timeout=1)
    assert not message.data.endswith("]")
    server.faults.send_raw("]]")
    server.faults.send_raw(b"\xff")
    assert (await client.ws.receive(timeout=1)).data == "]]"
    assert await client.recv() == b"\xff"
    assert await client.beats()


async def test_heartbeats_without_answer(server: LocalRealtime, client: Wire) -> None:
    server.faults.heartbeat_replies = False
    assert not await client.beats(0.05)
    assert (await client.join())[4]["status"] == "ok"


async def test_channel_faults(server: LocalRealtime, client: Wire) -> None:
    await client.join()
    assert server.faults.system("room", "Too many messages per second") == 1
    assert (await client.recv())[4] == {
        "message": "Too many messages per second",
        "status": "error",
        "extension": "system",
        "channel": "room",
    }
    assert server.faults.phx_error(TOPIC) == 1
    assert await client.recv() == ["1", "1", TOPIC, "phx_error", {"reason": "channel_crash"}]
    await client.join()
    assert server.faults.phx_close("other") == 0
    assert server.faults.phx_close("room", "Token has expired 0 seconds ago") == 1
    assert (await client.recv())[4]["message"] == "Token has expired 0 seconds ago"
    assert await client.recv() == ["1", "1", TOPIC, "phx_close", {}]
    reply = await client.ask("1", "2", TOPIC, "broadcast", {})
    assert reply[4]["response"] == {"reason": "unmatched topic"}


async def test_disconnect(server: LocalRealtime, client: Wire) -> None:
    await client.join()
    server.faults.disconnect()
    assert await client.recv() == [
        None,
        None,
        TOPIC,
        "system",
        {"message": "Server requested disconnect", "status": "ok", "extension": "system"},
    ]
    assert await client.recv() == ("closed", 1012, "")


async def test_a_client_that_never_answers_the_close_is_dropped(server: LocalRealtime) -> None:
    async with wire(server) as client:
        server.faults.close(1001)
        await asyncio.sleep(0.2)
        assert server.open_connections == 0
        assert (await client.recv())[:2] == ("closed", 1001)
