"""Tokens from the callback and by hand; a failing callback does not cost the socket."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from supabase_rt import AuthError, ConnectionFailed
from supabase_rt._connection.access_tokens import AccessTokens
from supabase_rt.server import LocalRealtime
from supabase_rt.types import ChannelOptions

from ...support.clients import MakeClient
from ...support.recorder import ClientEvents, Recorder, Statuses
from ...support.waiting import turns, until


def joins(server: LocalRealtime) -> list[Any]:
    return [each.payload for each in server.received if each.event == "phx_join"]


def tokens_of_joins(server: LocalRealtime) -> list[Any]:
    return [payload.get("access_token") for payload in joins(server)]


def pushed_tokens(server: LocalRealtime) -> list[Any]:
    return [
        each.payload["access_token"] for each in server.received if each.event == "access_token"
    ]


@pytest.mark.conformance("SI9")
async def test_the_first_join_waits_for_an_async_token(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    token = server.token()

    async def fetch() -> str:
        await asyncio.sleep(0.02)
        return token

    client = make_client(access_token=fetch)
    await client.channel("room").subscribe()
    assert tokens_of_joins(server) == [token]
    assert client.access_token_value == token


async def test_a_plain_function_is_a_callback_too(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    token = server.token()
    client = make_client(access_token=lambda: token)
    await client.channel("room").subscribe()
    assert tokens_of_joins(server) == [token]


@pytest.mark.conformance("AU13", "PS16", "CL13", "realtime.configuration.access_token_callback")
async def test_the_callback_is_asked_before_every_connect(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    given: list[str] = []

    def fetch() -> str:
        given.append(server.token(sub=f"user-{len(given)}"))
        return given[-1]

    statuses = Statuses()
    client = make_client(access_token=fetch)
    await client.channel("room").subscribe(statuses)
    server.faults.cut()
    await statuses.are("SUBSCRIBED", "CHANNEL_ERROR", "SUBSCRIBED")
    first, second = tokens_of_joins(server)
    assert first == given[0]
    assert second in given[1:]


@pytest.mark.conformance("CL13")
async def test_the_callback_is_asked_before_a_rejoin_on_the_same_link(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    given: list[str] = []

    async def fetch() -> str:
        given.append(server.token(sub=f"user-{len(given)}"))
        return given[-1]

    statuses = Statuses()
    client = make_client(access_token=fetch)
    await client.channel("room").subscribe(statuses)
    asked = len(given)
    server.faults.phx_error("room")
    await statuses.are("SUBSCRIBED", "CHANNEL_ERROR", "SUBSCRIBED")
    assert server.connections == 1
    assert len(given) > asked
    assert tokens_of_joins(server)[1] == given[asked]


@pytest.mark.conformance("AR4", "AU11", "SJ9")
async def test_a_raising_callback_is_told_and_the_last_token_stays(
    server: LocalRealtime, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    token = server.token()
    answers: list[Any] = [token]

    def fetch() -> Any:
        if answers:
            return answers.pop()
        raise RuntimeError("the token service is down")

    statuses = Statuses()
    client = make_client(access_token=fetch)
    events = ClientEvents(client)
    await client.channel("room").subscribe(statuses)
    server.faults.cut()
    await statuses.are("SUBSCRIBED", "CHANNEL_ERROR", "SUBSCRIBED")
    assert tokens_of_joins(server) == [token, token]
    found = [error for error in events.errors if isinstance(error, AuthError)]
    assert found[0].code == "TokenCallbackFailed"
    assert found[0].retryable
    assert "raised RuntimeError" in str(found[0])
    assert "Error fetching access token from callback" in caplog.text


async def test_a_hanging_callback_is_given_up_after_the_timeout(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    cancelled: list[bool] = []

    async def fetch() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise
        return ""

    client = make_client(access_token=fetch, timeout=0.2)
    events = ClientEvents(client)
    channel = client.channel("room").subscribe(timeout=3)
    await channel
    assert tokens_of_joins(server) == [None]
    assert cancelled
    assert any("did not return within 0.2 s" in str(error) for error in events.errors)


@pytest.mark.parametrize("answer", [17, "a\nb", b"bytes"])
async def test_what_is_no_token_is_not_used(
    server: LocalRealtime, make_client: MakeClient, answer: Any
) -> None:
    client = make_client(access_token=lambda: answer)
    events = ClientEvents(client)
    await client.channel("room").subscribe()
    assert tokens_of_joins(server) == [None]
    assert "returned no token" in str(events.errors[0])
    assert client.access_token_value is None


@pytest.mark.conformance("AU5")
async def test_none_from_the_callback_is_no_token(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    answers: list[str | None] = [None, server.token()]
    client = make_client(access_token=lambda: answers[0])
    events = ClientEvents(client)
    client.set_auth(answers[1])
    await client.channel("room").subscribe()
    assert client.access_token_value is None
    assert tokens_of_joins(server) == [None]
    assert events.errors == []


@pytest.mark.conformance("AU10")
async def test_set_auth_before_any_loop_is_in_use_at_once(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    client = make_client()
    token = server.token()
    await asyncio.to_thread(client.set_auth, token)  # a thread has no running loop
    assert client.access_token_value == token
    await client.channel("room").subscribe()
    assert tokens_of_joins(server) == [token]


@pytest.mark.conformance("AU1", "AU10", "SJ14", "realtime.client.set_auth_token")
async def test_set_auth_reaches_joined_channels_and_all_later_joins(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    client = make_client()
    await client.channel("one").subscribe()
    await client.channel("two").subscribe()
    token = server.token()
    outcome = client.set_auth(token)
    assert client.access_token_value == token  # at the call, as in supabase-js
    await outcome
    await until(lambda: len(pushed_tokens(server)) == 2)
    await client.channel("three").subscribe()
    assert pushed_tokens(server) == [token, token]
    assert tokens_of_joins(server) == [None, None, token]
    await client.set_auth(token)
    await client.send_heartbeat()
    await until(lambda: any(each.event == "heartbeat" for each in server.received))
    assert len(pushed_tokens(server)) == 2  # the same token is not pushed again
    server.faults.phx_error("one")
    await until(lambda: len(joins(server)) == 4)
    assert joins(server)[3]["access_token"] == token
    assert joins(server)[3]["version"].startswith("supabase-rt/")


async def test_set_auth_none_cannot_clear_a_manual_token(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    client = make_client()
    token = server.token()
    client.set_auth(token)
    await client.set_auth(None)
    await client.set_auth()
    await client.set_auth("")
    assert client.access_token_value == token


@pytest.mark.conformance("SJ8")
async def test_set_auth_none_asks_the_callback(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    tokens = [server.token(sub="a"), server.token(sub="b")]
    client = make_client(access_token=lambda: tokens[0])
    await client.set_auth()
    assert client.access_token_value == tokens[0]
    del tokens[0]
    await client.set_auth()
    assert client.access_token_value == tokens[0]


async def test_set_auth_without_a_loop_needs_a_token(make_client: MakeClient) -> None:
    client = make_client(access_token=lambda: None)
    with pytest.raises(RuntimeError, match=r"set_auth\(\) needs a running event loop"):
        await asyncio.to_thread(client.set_auth)


@pytest.mark.parametrize(("token", "error"), [(17, TypeError), ("a\nb", ValueError)])
async def test_set_auth_refuses_what_is_no_token(
    make_client: MakeClient, token: Any, error: type[Exception]
) -> None:
    client = make_client()
    with pytest.raises(error) as caught:
        client.set_auth(token)
    assert "a\nb" not in str(caught.value)
    assert client.access_token_value is None


@pytest.mark.conformance("AU6")
async def test_only_the_newest_asking_counts(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    slow, quick = server.token(sub="slow"), server.token(sub="quick")
    release = asyncio.Event()
    calls: list[int] = []

    async def fetch() -> str:
        calls.append(1)
        if len(calls) == 1:
            await release.wait()
            return slow
        return quick

    client = make_client(access_token=fetch)
    first = client.set_auth()
    await until(lambda: calls)
    second = client.set_auth()
    await until(lambda: client.access_token_value == quick)
    release.set()
    await asyncio.gather(first, second)
    assert client.access_token_value == quick


async def test_a_join_waits_for_the_newest_asking(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    tokens = [server.token(sub="old"), server.token(sub="new")]
    released = [asyncio.Event(), asyncio.Event()]
    calls = iter(range(2))

    async def fetch() -> str:
        number = next(calls)
        await released[number].wait()
        return tokens[number]

    client = make_client(access_token=fetch)
    statuses = Statuses()
    private: ChannelOptions = {"config": {"private": True}}
    channel = client.channel("room", private).subscribe(statuses)
    await turns(5)
    signed_in = client.set_auth()
    released[0].set()
    await turns(20)
    assert not signed_in.done()
    assert server.connections == 0
    released[1].set()
    await channel
    assert client.access_token_value == tokens[1]
    assert statuses.names == ["SUBSCRIBED"]


async def test_a_source_that_goes_while_it_is_asked_is_no_failure(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    """Signing out removes the callback, even in the turn in which a heartbeat calls it."""
    client, errors = make_client(access_token=lambda: server.anon_key), Recorder()
    client.on("error", errors)
    await client.connect()
    client.send_heartbeat()
    client._parts.use_token_source(None)
    by_hand = server.token(sub="by hand")
    client.set_auth(by_hand)
    await turns(10)
    assert errors.seen == []
    assert client.access_token_value == by_hand


@pytest.mark.conformance("AU7")
async def test_a_token_by_hand_overtakes_an_asking_under_way(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    late, by_hand = server.token(sub="late"), server.token(sub="by hand")
    release = asyncio.Event()

    async def fetch() -> str:
        await release.wait()
        return late

    client = make_client(access_token=fetch)
    asking = client.set_auth()
    client.set_auth(by_hand)
    release.set()
    await asking
    assert client.access_token_value == by_hand


async def test_many_who_want_a_token_ask_once() -> None:
    used: list[str | None] = []
    calls: list[int] = []
    release = asyncio.Event()

    async def fetch() -> str:
        calls.append(1)
        await release.wait()
        return "token"

    source = AccessTokens(fetch, 1.0, used.append, lambda error: None)
    flights = {source.refresh() for _ in range(5)}
    assert len(flights) == 1
    release.set()
    flight = flights.pop()
    assert flight is not None
    await flight
    assert (used, len(calls)) == (["token"], 1)
    assert source.refresh() is not flight
    await source.aclose()
    await source.aclose()


async def test_without_a_callback_there_is_nothing_to_ask() -> None:
    source = AccessTokens(None, 1.0, lambda token: None, lambda error: None)
    assert source.refresh() is None


@pytest.mark.conformance("AU12")
async def test_every_heartbeat_looks_for_a_new_token(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    tokens = [server.token(sub="a")]
    client = make_client(access_token=lambda: tokens[-1], heartbeat_interval=0.05)
    await client.channel("room").subscribe()
    tokens.append(server.token(sub="b"))
    await until(lambda: pushed_tokens(server) == [tokens[-1]])


async def test_a_token_is_renewed_before_it_ends_while_the_socket_only_idles(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    client = make_client(access_token=lambda: server.token(expires_in=3.0), heartbeat_interval=60.0)
    statuses = Statuses()
    await client.channel("room").subscribe(statuses)
    await until(lambda: len(pushed_tokens(server)) == 1)
    assert pushed_tokens(server) == [client.access_token_value]
    assert statuses.names == ["SUBSCRIBED"]


async def test_an_expired_token_is_renewed_and_the_channel_comes_back(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    lives = [0.3, 60.0]
    client = make_client(access_token=lambda: server.token(expires_in=lives[0]))
    statuses = Statuses()
    await client.channel("room").subscribe(statuses)
    del lives[0]
    await statuses.are("SUBSCRIBED", "CHANNEL_ERROR", "SUBSCRIBED")
    error = statuses.errors[1]
    assert isinstance(error, AuthError)
    assert "expired" in str(error)


async def test_an_expired_token_without_callback_rests_until_set_auth(
    server: LocalRealtime, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    client = make_client()
    events = ClientEvents(client)
    client.set_auth(server.token(expires_in=0.3))
    statuses = Statuses()
    channel = client.channel("room").subscribe(statuses)
    await channel
    await statuses.are("SUBSCRIBED", "CHANNEL_ERROR")
    assert channel.state == "errored"
    assert isinstance(events.errors[0], AuthError)
    with pytest.raises(AuthError):
        await channel
    client.set_auth(server.token())
    await channel
    assert statuses.names == ["SUBSCRIBED", "CHANNEL_ERROR", "SUBSCRIBED"]
    assert [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_client_that_is_closed_stops_asking(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    asked = asyncio.Event()

    async def fetch() -> str:
        asked.set()
        await asyncio.Event().wait()
        return ""

    client = make_client(access_token=fetch)
    client.connect()
    await asked.wait()
    await client.disconnect()
    assert client.connection_state() == "closed"
    assert server.connections == 0


# -- a callback that turns against its client ------------------------------------------------


class Calling:
    """A callback that calls its client before it returns a token."""

    def __init__(self, call: Any, *, awaits: bool, plain: bool = False) -> None:
        self.call = call
        self.awaits = awaits
        self.asked = 0
        self.client: Any = None
        self.token = ""
        self.ended: Any = None
        self.ask: Any = self.ask_plainly if plain else self.ask_async

    async def ask_async(self) -> str:
        return self.ask_plainly() if not self.awaits else await self.ask_and_wait()

    def ask_plainly(self) -> str:
        self.asked += 1
        self.call(self)
        return self.token

    async def ask_and_wait(self) -> str:
        self.asked += 1
        self.ended = await self.call(self)
        return self.token


def set_auth(calling: Calling) -> Any:
    return calling.client.set_auth()


@pytest.mark.parametrize("how", ["plain", "async", "awaited", "in a task"])
async def test_a_callback_that_asks_for_itself_is_asked_once(
    server: LocalRealtime, make_client: MakeClient, how: str
) -> None:
    """Otherwise it is called 2,270 times in four seconds, or no other task gets a turn."""

    async def later(calling: Calling) -> None:
        await asyncio.create_task(asyncio.wait_for(calling.client.set_auth(), 5))

    call: Any = later if how == "in a task" else set_auth
    calling = Calling(call, awaits=how in ("awaited", "in a task"), plain=how == "plain")
    calling.token = server.token()
    client = calling.client = make_client(access_token=calling.ask)
    async with asyncio.timeout(3):
        await client.channel("room").subscribe()
        await turns(50)
    assert calling.asked <= 2
    assert tokens_of_joins(server) == [calling.token]
    asked = calling.asked
    await client.set_auth()
    assert calling.asked == asked + 1


async def test_two_clients_whose_callbacks_ask_each_other_come_to_an_end(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    one, two = Calling(set_auth, awaits=True), Calling(set_auth, awaits=True)
    clients = [make_client(access_token=calling.ask) for calling in (one, two)]
    two.client, one.client = clients
    one.token = two.token = server.token()
    async with asyncio.timeout(3):
        await clients[0].channel("room").subscribe()
    await turns(50)
    assert one.asked + two.asked <= 6


async def test_a_task_that_the_callback_left_behind_may_ask_later(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    token, asked, go = server.token(), 0, asyncio.Event()
    tasks: list[asyncio.Task[None]] = []

    async def renew() -> None:
        await go.wait()
        await client.set_auth()

    async def ask() -> str:
        nonlocal asked
        asked += 1
        if not tasks:
            tasks.append(asyncio.create_task(renew()))
        return token

    client = make_client(access_token=ask)
    await client.channel("room").subscribe()
    before = asked
    go.set()
    await tasks[0]
    assert asked == before + 1


async def test_a_token_that_the_callback_sets_itself_counts(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    other = server.token(role="authenticated")
    calling = Calling(lambda found: found.client.set_auth(other), awaits=True)
    calling.token = server.token()
    client = calling.client = make_client(access_token=calling.ask)
    async with asyncio.timeout(3):
        await client.channel("room").subscribe()
    assert client.access_token_value == other
    assert calling.asked <= 2


async def test_an_error_listener_that_asks_at_once_does_not_do_so_for_ever(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    asked = 0

    def fail() -> str:
        nonlocal asked
        asked += 1
        raise RuntimeError("no token today")

    client = make_client(access_token=fail)
    client.on("error", lambda: client.set_auth())
    async with asyncio.timeout(3):
        await client.channel("room").subscribe()
    await turns(100)
    assert asked <= 3


@pytest.mark.parametrize("awaits", [False, True])
@pytest.mark.parametrize("name", ["connect", "disconnect", "subscribe"])
async def test_a_callback_may_call_what_waits_for_it(
    server: LocalRealtime, make_client: MakeClient, name: str, awaits: bool
) -> None:
    """The await ends within a documented bound, with a documented error."""

    def call(calling: Calling) -> Any:
        if name == "subscribe":
            return calling.client.channel("other").subscribe()
        return getattr(calling.client, name)()

    calling = Calling(call, awaits=awaits)
    calling.token = server.token()
    client = calling.client = make_client(access_token=calling.ask, timeout=0.3)
    events = ClientEvents(client)
    async with asyncio.timeout(5):
        connecting = client.connect()
        if name == "disconnect":
            with pytest.raises(ConnectionFailed):
                await connecting
            assert not client.is_connected()
        else:
            await connecting
            assert client.is_connected()
        await client.disconnect()
    hung = awaits and name != "disconnect"
    codes = [error.code for error in events.errors if isinstance(error, AuthError)]
    assert codes == ["TokenCallbackFailed"] * hung


async def test_a_callback_that_will_not_be_cancelled_is_left_behind(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    let_go = asyncio.Event()

    async def stubborn() -> str:
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                pass
        return ""

    client = make_client(access_token=stubborn, timeout=0.1)
    events = ClientEvents(client)
    async with asyncio.timeout(5):
        await client.connect()
        assert client.is_connected()
        await client.disconnect()
    assert [error.code for error in events.errors if isinstance(error, AuthError)] == [
        "TokenCallbackFailed"
    ]
    let_go.set()
    await turns(20)


@pytest.mark.parametrize("kind", [GeneratorExit, asyncio.CancelledError, StopAsyncIteration])
async def test_whatever_a_callback_raises_the_last_token_stays(
    server: LocalRealtime, make_client: MakeClient, kind: type[BaseException]
) -> None:
    async def broken() -> str:
        raise kind

    client = make_client(access_token=broken)
    token = server.token()
    await client.set_auth(token)
    events = ClientEvents(client)
    await client.channel("room").subscribe()
    assert tokens_of_joins(server) == [token]
    codes = {error.code for error in events.errors if isinstance(error, AuthError)}
    assert codes == {"TokenCallbackFailed"}
