"""The rate limits of a project, on all its clients together (docs/protocol.md#10-limits)."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from supabase_rt.server import REALISTIC, LocalRealtime, Settings
from supabase_rt.server._machine.outgoing import NO_CODE, Close
from supabase_rt.server._machine.rate_limits import BUCKETS, Rate

from .kit import Client, Wire, World, payload_of, wire

ROOM = "realtime:room"
CHAT = {"type": "broadcast", "event": "chat", "payload": {}}
MANY = "Too many messages per second"


def system(frame: Any) -> Any:
    return payload_of(frame)["message"]


def test_the_defaults_are_those_of_the_real_server() -> None:
    found = Settings()
    assert found.max_concurrent_users == 200
    assert found.max_joins_per_second == 100
    assert found.max_channels_per_client == 100
    assert found.max_events_per_second == 100
    assert found.max_presence_events_per_second == 1000
    assert found.presence_limit == (5, 30.0)
    assert (found.max_payload_size, found.max_frame_size) == (3_000_500, 5_000_000)
    assert (found.join_error_delay, found.connect_error_delay) == (0.0, 0.0)
    realistic = Settings(**REALISTIC)
    assert (realistic.join_error_delay, realistic.connect_error_delay) == (5.0, 2.0)


# -- averages ------------------------------------------------------------------------------


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.integers(0, 10_000), max_size=40), st.integers(1, 2000))
def test_a_rate_trips_at_the_average_of_the_last_minute(counts: list[int], limit: int) -> None:
    rate = Rate(limit, 5.0)
    for count in counts:
        rate.count += count
        rate.tick()
        assert rate.count == 0
    recent = counts[-BUCKETS:]
    # There is no average before the first use, nor after an idle minute.
    while len(counts) <= BUCKETS and recent and not recent[0]:
        del recent[0]
    if not any(recent):
        assert rate.average == 0
    assert rate.average <= max(recent, default=0) / 5 + 1e-9
    assert rate.average * 5 * BUCKETS >= sum(recent) - 1e-6
    assert rate.tripped is (rate.average >= limit)


def test_a_flood_is_forgotten_as_the_average_falls(caplog: pytest.LogCaptureFixture) -> None:
    rate = Rate(100, 5.0, "max_x")
    seen = []
    for count in (5200, *[0] * 10, 500, *[0] * BUCKETS, 500):
        rate.count += count
        rate.tick()
        seen.append((rate.average, rate.tripped))
    assert seen[0] == (1040.0, True)
    assert seen[9:12] == [(104.0, True), (5200 / 55, False), (95.0, False)]
    assert seen[-2:] == [(0.0, False), (100.0, True)]
    assert caplog.messages == [
        "1040 a second reach the limit of max_x",
        "100 a second reach the limit of max_x",
    ]


def test_a_rate_without_a_limit_never_trips() -> None:
    rate = Rate(None, 5.0)
    rate.count += 10**9
    rate.tick()
    assert not rate.tripped
    assert not rate.would_exceed(10**9)


# -- broadcasts ------------------------------------------------------------------------------


@pytest.fixture
def crowd() -> tuple[World, Client, Client]:
    """Returns a world where two events a second are too many, with two members of a room."""
    world = World(max_events_per_second=2, rate_interval=1.0)
    one, two = world.client(), world.client("1.0.0")
    one.join(broadcast={"ack": True, "self": True})
    two.join()
    return world, one, two


def test_too_many_broadcasts_end_the_channels_that_get_them(
    crowd: tuple[World, Client, Client],
) -> None:
    world, sender, other = crowd
    for _ in range(5):
        assert len(sender.push(ROOM, "broadcast", CHAT)) == 2
    other.heard()
    world.backend.limits.tick()
    ack, error, close = sender.push(ROOM, "broadcast", CHAT)
    assert payload_of(ack) == {"status": "ok", "response": {}}
    assert (system(error), close[3]) == (MANY, "phx_close")
    error, close = other.heard()
    assert error["payload"] == {
        "message": MANY,
        "status": "error",
        "extension": "system",
        "channel": "room",
    }
    assert close == {"topic": ROOM, "event": "phx_close", "payload": {}, "ref": "1"}
    for _ in range(12):
        world.backend.limits.tick()
    sender.join()
    other.join()
    assert sender.push(ROOM, "broadcast", CHAT) == []
    assert other.events() == ["broadcast"]


def test_one_who_only_sends_sees_nothing_of_it(crowd: tuple[World, Client, Client]) -> None:
    world, sender, other = crowd
    world.backend.limits.events.count += 2
    world.backend.limits.tick()
    assert other.push(ROOM, "broadcast", CHAT) == []
    assert sender.events() == ["system", "phx_close"]
    assert ROOM in other.session.channels


def test_what_counts_as_an_event(crowd: tuple[World, Client, Client]) -> None:
    world, sender, other = crowd
    events = world.backend.limits.events
    other.push(ROOM, "broadcast", CHAT)
    assert events.count == 2
    sender.push(ROOM, "nonsense", {})
    assert events.count == 3
    sender.push("phoenix", "heartbeat", {})
    sender.push(ROOM, "presence", {"event": "untrack"})
    assert events.count == 3
    assert world.backend.broadcast("room", "e", {}, private=False, now=world.now) == 2
    assert events.count == 6
    world.backend.limits.tick()
    assert world.backend.broadcast("room", "e", {}, private=False, now=world.now) == 0


def test_too_many_row_changes_are_skipped_in_silence() -> None:
    from supabase_rt.server._tables.table_writer import Publisher

    world = World(max_events_per_second=2, rate_interval=1.0)
    client = world.client()
    client.join(postgres_changes=[{"table": "t"}])
    rows = Publisher(world.backend.tables)
    for number in range(4):
        rows.insert("public", "t", {"id": number})
    assert client.events() == ["postgres_changes"] * 4
    world.backend.limits.tick()
    rows.insert("public", "t", {"id": 5})
    assert client.heard() == []
    world.backend.limits.tick()
    world.backend.limits.tick()
    rows.insert("public", "t", {"id": 6})
    assert client.events() == ["postgres_changes"]


def test_a_message_of_the_database_that_cannot_be_sent_is_dropped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World(max_payload_size=50)
    client = world.client()
    client.join()
    send = world.backend.broadcast
    assert send("room", "n" * 256, {}, private=False, now=world.now) == 0
    assert send("room", "e", {"x": "y" * 60}, private=False, now=world.now) == 0
    assert client.heard() == []
    assert len(caplog.messages) == 2


# -- presence --------------------------------------------------------------------------------


def test_too_many_presence_events() -> None:
    world = World(max_presence_events_per_second=4, rate_interval=1.0, presence_limit=None)
    client, other = world.client(), world.client()
    client.join(presence={"enabled": True})
    other.join()
    assert world.backend.limits.presence.count == 1
    client.push(ROOM, "presence", {"event": "track", "payload": {}})
    assert world.backend.limits.presence.count == 4
    world.backend.limits.tick()
    other.heard()
    assert other.join("realtime:calm")[0][4]["status"] == "ok"
    error, close = client.push(ROOM, "presence", {"event": "track", "payload": {"n": 2}})[-2:]
    assert system(error) == "Too many presence messages per second"
    assert close[3] == "phx_close"
    reply, error, close = client.join("realtime:other", presence={"enabled": True})
    assert reply[4]["status"] == "ok"
    assert system(error) == "Too many presence messages per second"
    assert close[3] == "phx_close"


# -- joins and sockets -----------------------------------------------------------------------


def test_too_many_joins_close_the_socket() -> None:
    world = World(max_joins_per_second=2, rate_interval=1.0)
    client = world.client()
    for number in range(3):
        client.join(f"realtime:{number}")
    world.backend.limits.tick()
    reply, close = client.join()
    reason = "ClientJoinRateLimitReached: Too many joins per second"
    assert reply[4] == {"status": "error", "response": {"reason": reason}}
    assert close == Close(1001)


def test_too_many_users() -> None:
    world = World(max_concurrent_users=1)
    first, second = world.client(), world.client()
    first.join()
    first.push(ROOM, "phx_leave", {})
    full = "ConnectionRateLimitReached: Too many connected users"
    # A joined socket counts until it ends, and may join more channels.
    assert second.reason() == full
    first.join("realtime:more")
    first.session.end()
    assert world.backend.limits.users == 0
    assert payload_of(second.join()[0])["status"] == "ok"


def test_a_socket_without_channels_is_swept_and_a_new_one_is_not() -> None:
    world = World(no_channel_timeout=100.0, idle_timeout=1e9)
    left, fresh = world.client(), world.client()
    left.join()
    left.push(ROOM, "phx_leave", {})
    world.advance(99)
    left.join()
    world.advance(99)
    assert left.heard() == []
    left.push(ROOM, "phx_leave", {})
    world.advance(101)
    assert left.heard() == [Close(NO_CODE)]
    assert fresh.heard() == []


async def get(server: LocalRealtime, path: str, **about: Any) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(server.url + path, **about) as response,
    ):
        return response.status, await response.text()


async def test_handshakes_beyond_the_limits() -> None:
    async with LocalRealtime(max_concurrent_users=1, rate_interval=3600.0) as server:
        params = {"apikey": server.anon_key}
        async with wire(server) as client:
            assert (await get(server, "/socket/websocket", params=params))[0] == 400
            await client.join()
            found = await get(server, "/socket/websocket", params=params)
            assert found == (429, '{"error":"Too many connected users"}')
            # The key is checked first.
            assert (await get(server, "/socket/websocket", params={"apikey": "x"}))[0] == 401
        server.backend.limits.joins.count += 10**9
        server.backend.limits.tick()
        for _ in range(100):
            found = await get(server, "/socket/websocket", params=params)
            if server.open_connections == 0:
                break
        assert found == (429, '{"error":"Too many joins per second"}')


async def test_a_swept_socket_sees_no_close_frame() -> None:
    async with LocalRealtime(no_channel_timeout=0.05) as server, wire(server) as client:
        await client.join()
        await client.send("1", "2", ROOM, "phx_leave", {})
        assert [(await client.recv())[3] for _ in range(2)] == ["phx_reply", "phx_close"]
        assert await client.recv() == ("closed", 1006)


async def test_the_averages_are_taken_while_the_server_runs() -> None:
    async with (
        LocalRealtime(max_events_per_second=1, rate_interval=0.02) as server,
        wire(server) as one,
        wire(server) as two,
    ):
        await one.join()
        await two.join()
        assert (await flood_until_closed(one, two))[3] == "phx_close"


async def flood_until_closed(sender: Wire, receiver: Wire) -> Any:
    """Broadcast until the receiver's channel ends; returns its last frame."""
    while True:
        await sender.send("1", None, ROOM, "broadcast", CHAT)
        frame = await receiver.recv()
        if frame[3] == "system":
            assert frame[4]["message"] == MANY
            return await receiver.recv()


# -- HTTP ------------------------------------------------------------------------------------


async def post(server: LocalRealtime, path: str, body: Any) -> tuple[int, str, str | None]:
    headers = {"Authorization": f"Bearer {server.anon_key}"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(server.url + path, json=body, headers=headers) as response,
    ):
        return response.status, await response.text(), response.headers.get("x-rate-rolling")


async def test_too_much_over_http() -> None:
    batch, single = "/api/broadcast", "/api/broadcast/http/events/e"
    message = {"topic": "http", "event": "e", "payload": {}}
    async with LocalRealtime(max_events_per_second=10, rate_interval=3600.0) as server:
        limits = server.backend.limits
        found = await post(server, batch, {"messages": [message] * 10})
        assert found == (202, "", "0")
        assert limits.events.count == 10
        found = await post(server, batch, {"messages": [message] * 11})
        assert found[:2] == (
            429,
            '{"message":"Too many messages to broadcast, please reduce the batch size"}',
        )
        limits.events.count = 10 * 3600
        limits.tick()
        for path, body in ((batch, {"messages": [message]}), (single, {})):
            found = await post(server, path, body)
            assert found[:2] == (429, '{"message":"You have exceeded your rate limit"}')
        limits.requests.count = 11 * 2 * 3600
        limits.tick()
        for path, body in ((batch, {}), (single, {})):
            assert await post(server, path, body) == (
                429,
                '{"message":"Too many requests"}',
                "11",
            )
        # The join is counted before the token is checked.
        assert await get(server, "/api/ping") == (429, '{"message":"Too many requests"}')


async def test_without_a_limit_no_rate_is_told() -> None:
    async with LocalRealtime(max_events_per_second=None) as server:
        assert (await post(server, "/api/broadcast", {}))[2] is None
