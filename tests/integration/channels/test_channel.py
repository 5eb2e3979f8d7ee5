"""The public channel: joining, and the calls that wait for the join."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from supabase_rt import (
    BindingMismatch,
    ConnectionFailed,
    InvalidState,
    RealtimeChannel,
    RealtimeClient,
    Refused,
    SubscribeError,
    TimedOut,
)
from supabase_rt.server import LocalRealtime
from supabase_rt.types import ChannelOptions

from ...support.clients import MakeClient
from ...support.peers import RawPeer, closed_port, raw_peer
from ...support.recorder import ClientEvents, Recorder, Statuses
from ...support.waiting import turns, until

TABLE = {"event": "*", "schema": "public", "table": "messages"}
PRIVATE: ChannelOptions = {"config": {"private": True}}


def events_of(server: LocalRealtime) -> list[str]:
    return [each.event for each in server.received]


# -- what it is --------------------------------------------------------------------------


@pytest.mark.conformance("CL1", "CL3", "CL9", "PC1", "PC8", "PS3")
def test_its_properties() -> None:
    client = RealtimeClient("wss://x.co/realtime/v1", params={"apikey": "key"}, timeout=3)
    channel = client.channel("room:1", {"config": {"broadcast": {"self": True}, "private": True}})
    assert (channel.topic, channel.sub_topic) == ("realtime:room:1", "room:1")
    assert channel.state == "closed"
    assert channel.params == {
        "config": {
            "broadcast": {"self": True},
            "presence": {"key": "", "enabled": False},
            "private": True,
        }
    }
    assert channel.joined_once is False
    assert channel.private is True
    assert channel.last_downtime is None
    assert channel.timeout == 3
    assert channel.broadcast_endpoint_url == "https://x.co/realtime/v1/api/broadcast"
    assert repr(channel) == "<RealtimeChannel 'realtime:room:1' closed>"
    assert channel.subscribe(timeout=7).timeout == 7
    assert channel.joined_once is True


def test_options_are_not_changed_and_not_kept() -> None:
    client = RealtimeClient("wss://x.co/realtime/v1", params={"apikey": "key"})
    options: Any = {"config": {"broadcast": {"self": True}}}
    channel = client.channel("room", options)
    assert options == {"config": {"broadcast": {"self": True}}}
    options["config"]["broadcast"]["self"] = False
    assert channel.params["config"]["broadcast"] == {"self": True}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"config": {"broadcast": {"slef": True}}}, "did you mean 'self'"),
        ({"config": {"broadcst": {}}}, "did you mean 'broadcast'"),
        ({"confg": {}}, "did you mean 'config'"),
        ({"broadcast": {"self": True}}, "put 'broadcast' under 'config'"),
        ({"config": {"broadcast": {"replicationReady": True}}}, "'replication_ready'"),
        ({"config": {"postgresChangesOptions": {}}}, "'postgres_changes_options'"),
        ({"config": {"broadcast": {"self": "yes"}}}, "is True or False"),
        ({"config": {"broadcast": True}}, "is a dict"),
        ({"config": {"private": 1}}, "is True or False"),
        ({"config": {"presence": {"key": 5}}}, "is a string"),
        ({"config": 5}, "is a dict"),
        (5, "is a dict"),
        ({"config": {"broadcast": {"replay": {"since": 1}}}}, "must be a private channel"),
        ({"config": {"private": True, "broadcast": {"replay": {}}}}, "needs 'since'"),
        (
            {"config": {"private": True, "broadcast": {"replay": {"since": 1, "limit": 26}}}},
            "is 1 to 25",
        ),
    ],
)
def test_options_that_cannot_work_raise_at_the_call(options: Any, message: str) -> None:
    client = RealtimeClient("wss://x.co/realtime/v1", params={"apikey": "key"})
    with pytest.raises(ValueError, match=message):
        client.channel("room", options)
    assert client.get_channels() == []


# -- awaiting subscribe ------------------------------------------------------------------


async def test_awaiting_subscribe_gives_the_joined_channel(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    channel = client.channel("room")
    assert await channel.subscribe() is channel
    assert channel.state == "joined"
    assert await channel is channel
    assert await asyncio.wait_for(asyncio.ensure_future(_await(channel)), 1) is channel
    assert set(await asyncio.gather(_await(channel), _await(channel))) == {channel}


async def _await(channel: RealtimeChannel) -> RealtimeChannel:
    return await channel


async def test_awaiting_a_channel_that_was_never_subscribed(client: RealtimeClient) -> None:
    with pytest.raises(InvalidState, match="was never subscribed") as caught:
        await client.channel("room")
    assert "subscribe() first" in caught.value.hint
    with pytest.raises(InvalidState):
        await client.channel("room").ready()


@pytest.mark.conformance("realtime.subscriptions.private_channel")
async def test_a_refusal_is_raised_with_the_servers_code_and_is_final(
    server: LocalRealtime, client: RealtimeClient, caplog: pytest.LogCaptureFixture
) -> None:
    statuses, events = Statuses(), ClientEvents(client)
    channel = client.channel("room", PRIVATE).subscribe(statuses)
    with pytest.raises(Refused) as caught:
        await channel
    error = caught.value
    assert error.code == "Unauthorized"
    assert not error.retryable
    assert error.hint
    assert error.topic == "realtime:room"
    assert error.response == {"reason": str(error)}
    assert statuses.names == ["CHANNEL_ERROR"]
    assert statuses.errors == [error]
    assert channel.state == "errored"
    assert events.errors == [error]
    with pytest.raises(Refused):
        await channel
    with pytest.raises(Refused):
        await channel.ready()
    assert events_of(server) == ["phx_join"]
    assert "no rejoin follows" in caplog.text
    client.set_auth(server.token())
    await channel.subscribe()  # the user decides to try again
    assert channel.state == "joined"


async def test_a_retryable_refusal_is_raised_and_tried_again(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    server.faults.refuse_next_join("InitializingProjectConnection: not yet", count=2)
    statuses = Statuses()
    channel = client.channel("room").subscribe(statuses)
    with pytest.raises(Refused) as caught:
        await channel
    assert caught.value.code == "InitializingProjectConnection"
    assert caught.value.retryable
    await statuses.are("CHANNEL_ERROR", "CHANNEL_ERROR", "SUBSCRIBED")
    await channel


async def test_a_token_that_expired_is_refused_until_another_comes(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    client.set_auth(server.token(expires_in=-10))
    statuses = Statuses()
    channel = client.channel("room").subscribe(statuses)
    with pytest.raises(Refused):
        await channel
    client.set_auth(server.token())
    await statuses.are("CHANNEL_ERROR", "SUBSCRIBED")


async def test_a_timeout_has_the_last_connection_error_as_its_cause(
    make_client: MakeClient,
) -> None:
    client = make_client(f"ws://127.0.0.1:{closed_port()}")
    statuses = Statuses()
    channel = client.channel("room").subscribe(statuses, timeout=0.5)
    with pytest.raises(TimedOut, match="took too long to be subscribed") as caught:
        await channel
    assert isinstance(caught.value, TimeoutError)
    assert isinstance(caught.value.__cause__, ConnectionFailed)
    assert isinstance(caught.value.__cause__.__cause__, OSError)
    assert statuses.names == ["CHANNEL_ERROR"]
    assert channel.state == "errored"


async def test_a_timeout_leaves_the_channel_trying(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    server.faults.refuse(503)
    channel = client.channel("room").subscribe(timeout=0.05)
    with pytest.raises(TimedOut):
        await channel
    server.faults.refuse(None)
    await asyncio.wait_for(_await(channel), 5)
    assert channel.state == "joined"


async def test_awaiting_later_waits_for_the_next_join(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    channel = await client.channel("room").subscribe()
    server.faults.refuse(503)
    server.faults.cut()
    await until(lambda: channel.state == "errored")
    waiting = asyncio.ensure_future(_await(channel))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(waiting), 0.1)
    server.faults.refuse(None)
    await waiting


async def test_a_join_without_answer_times_out_and_is_tried_again(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    await client.connect()
    server.faults.drop_next("phx_reply")
    statuses = Statuses()
    channel = client.channel("room").subscribe(statuses, timeout=0.3)
    with pytest.raises(TimedOut) as caught:
        await channel
    assert caught.value.__cause__ is None
    await statuses.are("TIMED_OUT", "SUBSCRIBED")
    assert statuses.errors == [None, None]
    assert events_of(server)[:3] == ["phx_join", "phx_leave", "phx_join"]


async def test_closing_ends_the_await(server: LocalRealtime, client: RealtimeClient) -> None:
    server.faults.stall(handshakes=True)
    channel = client.channel("room").subscribe()
    waiting = asyncio.ensure_future(_await(channel))
    await turns()
    assert await channel.unsubscribe() == "ok"
    with pytest.raises(SubscribeError, match="was closed") as caught:
        await waiting
    assert caught.value.code == "Closed"
    assert "client.channel('room')" in caught.value.hint
    with pytest.raises(SubscribeError, match="was closed"):
        await channel
    server.faults.resume()


async def test_cancelling_the_await_leaves_the_join_alone(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    server.faults.stall(handshakes=True)
    channel = client.channel("room").subscribe()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(_await(channel), 0.01)
    server.faults.resume()
    await channel
    assert channel.state == "joined"


async def mismatching(peer: RawPeer) -> None:
    """Answers the join with another table than the client asked for."""
    await peer.handshake()
    await peer.receive()
    peer.text(
        b'["1","1","realtime:room","phx_reply",{"status":"ok","response":{"postgres_changes":'
        b'[{"id":1,"event":"*","schema":"public","table":"other"}]}}]'
    )
    await peer.eof()


async def test_other_bindings_than_asked_for_are_a_mismatch(make_client: MakeClient) -> None:
    async with raw_peer(mismatching) as url:
        client = make_client(url)
        statuses = Statuses()
        channel = client.channel("room").on("postgres_changes", TABLE, print)
        with pytest.raises(BindingMismatch) as caught:
            await channel.subscribe(statuses)
        assert caught.value.hint
        await statuses.are("CLOSED", "CHANNEL_ERROR")
        assert isinstance(statuses.errors[1], BindingMismatch)
        assert channel.state == "errored"
        assert client.get_channels() == []
        for again in (_await(channel), channel.ready()):
            with pytest.raises(BindingMismatch):
                await again
        with pytest.raises(InvalidState):
            channel.subscribe()
        await client.disconnect()


@pytest.mark.parametrize("timeout", [0, -1, "5", True, float("nan")])
def test_a_timeout_that_cannot_be_one(timeout: Any) -> None:
    client = RealtimeClient("wss://x.co/realtime/v1", params={"apikey": "key"})
    for call in (client.channel("a").subscribe, client.channel("a").unsubscribe):
        with pytest.raises(ValueError, match="timeout"):
            call(timeout=timeout)


# -- subscribe ---------------------------------------------------------------------------


async def test_subscribing_twice_changes_nothing(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    first, second = Statuses(), Statuses()
    channel = client.channel("room").subscribe(first)
    assert channel.subscribe(second) is channel
    await channel
    channel.subscribe(second)
    await turns()
    assert (first.names, second.names) == (["SUBSCRIBED"], [])
    assert events_of(server) == ["phx_join"]


@pytest.mark.conformance("CL11", "PC9")
async def test_a_channel_that_was_closed_cannot_be_subscribed_again(
    client: RealtimeClient,
) -> None:
    channel = await client.channel("room").subscribe()
    await channel.unsubscribe()
    with pytest.raises(InvalidState, match="tried to join multiple times"):
        channel.subscribe()


async def test_subscribing_an_errored_channel_without_socket_connects(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    first, second = Statuses(), Statuses()
    channel = await client.channel("room").subscribe(first)
    await client.disconnect()
    channel.subscribe(second)
    await channel
    assert first.names == ["SUBSCRIBED", "CHANNEL_ERROR", "SUBSCRIBED"]
    assert second.names == []


@pytest.mark.parametrize(
    "kind", ["none", "one", "two", "any", "async", "coroutine", "raising", "raising async"]
)
async def test_every_kind_of_status_callback(
    server: LocalRealtime, client: RealtimeClient, kind: str
) -> None:
    seen: list[tuple[Any, ...]] = []

    async def later(status: str, error: BaseException | None = None) -> None:
        seen.append((status, error))

    def raising(status: str) -> None:
        seen.append((status,))
        raise RuntimeError("broken")

    async def raising_async(status: str) -> None:
        raising(status)

    callbacks: dict[str, Any] = {
        "none": lambda: seen.append(()),
        "one": lambda status: seen.append((status,)),
        "two": lambda status, error: seen.append((status, error)),
        "any": lambda *args: seen.append(args),
        "async": later,
        "coroutine": lambda status: later(status),
        "raising": raising,
        "raising async": raising_async,
    }
    channel = client.channel("room").subscribe(callbacks[kind])
    await channel
    server.faults.cut()
    await until(lambda: len(seen) == 3)
    await channel
    assert await channel.unsubscribe() == "ok"
    await until(lambda: len(seen) == 4)
    if seen[0]:
        statuses = [str(args[0]) for args in seen]
        assert statuses == ["SUBSCRIBED", "CHANNEL_ERROR", "SUBSCRIBED", "CLOSED"]
    assert client.health().handler_errors == (4 if kind.startswith("raising") else 0)


def test_a_callback_that_cannot_be_called() -> None:
    client = RealtimeClient("wss://x.co/realtime/v1", params={"apikey": "key"})
    for callback in (5, lambda a, b, c: None):
        with pytest.raises(TypeError):
            client.channel("room").subscribe(callback)  # type: ignore[arg-type]
    assert client.channel("room").state == "closed"


async def test_the_state_is_the_new_one_inside_the_callback(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    seen: list[tuple[str, str]] = []
    channel = client.channel("room")
    channel.subscribe(lambda status: seen.append((str(status), str(channel.state))))
    await channel
    await client.disconnect()
    await client.connect()
    await channel
    await channel.unsubscribe()
    assert seen == [
        ("SUBSCRIBED", "joined"),
        ("CHANNEL_ERROR", "errored"),
        ("SUBSCRIBED", "joined"),
        ("CLOSED", "closed"),
    ]


async def test_a_new_channel_from_inside_the_callback(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    seen: list[str] = []

    def on_status(status: str, error: BaseException | None) -> None:
        seen.append(str(status))
        if status == "CHANNEL_ERROR" and len(seen) < 4:
            client.remove_channel(client.channel("room"))
            client.channel("room").subscribe(on_status)

    await client.channel("room").subscribe(on_status)
    server.faults.cut()
    await until(lambda: seen.count("SUBSCRIBED") == 2)
    assert seen == ["SUBSCRIBED", "CHANNEL_ERROR", "CLOSED", "SUBSCRIBED"]


# -- ready -------------------------------------------------------------------------------


async def test_ready_waits_for_the_change_feed() -> None:
    async with LocalRealtime(postgres_ready_delay=0.05) as server:
        client = RealtimeClient(server.ws_url, params={"apikey": server.anon_key})
        channel = client.channel("room").on("postgres_changes", TABLE, print)
        await channel.subscribe()
        with pytest.raises(TimedOut, match="to receive database changes"):
            await channel.ready(timeout=0.001)
        await channel.ready()
        await channel.ready()
        assert client.health().last_system_error is None
        await client.disconnect()


async def test_ready_without_changes_is_joined(client: RealtimeClient) -> None:
    channel = client.channel("room").subscribe()
    await channel.ready()
    assert channel.state == "joined"
    await channel.ready()


async def test_ready_raises_why_no_changes_come(
    server: LocalRealtime, client: RealtimeClient, caplog: pytest.LogCaptureFixture
) -> None:
    server.faults.postgres_error = "Unable to subscribe to changes with given parameters"
    events, system, statuses = ClientEvents(client), Recorder(), Statuses()
    channel = client.channel("room").on("postgres_changes", TABLE, print).on("system", {}, system)
    channel.subscribe(statuses)
    with pytest.raises(SubscribeError, match="Unable to subscribe") as caught:
        await channel.ready()
    assert caught.value.hint
    with pytest.raises(SubscribeError, match="Unable to subscribe"):
        await channel.ready()
    assert channel.state == "joined"
    assert statuses.names == ["SUBSCRIBED"]
    assert events.errors == [caught.value]
    assert "receives no database changes" in caplog.text
    assert str(client.health().last_system_error).startswith("Unable to subscribe")
    assert len(system.seen) == 1


async def test_ready_ends_with_the_channel(server: LocalRealtime, client: RealtimeClient) -> None:
    server.faults.stall(handshakes=True)
    channel = client.channel("room").subscribe()
    waiting = asyncio.ensure_future(channel.ready())
    await turns()
    await channel.unsubscribe()
    with pytest.raises(SubscribeError, match="was closed"):
        await waiting
    server.faults.resume()


async def test_a_lost_channel_is_not_ready_until_it_is_back(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    channel = client.channel("room").on("postgres_changes", TABLE, print)
    await channel.subscribe()
    await channel.ready()
    server.faults.refuse(503)
    server.faults.cut()
    await until(lambda: channel.state == "errored")
    with pytest.raises(TimedOut):
        await channel.ready(timeout=0.01)
    server.faults.refuse(None)
    await channel.ready()
    assert channel.state == "joined"
