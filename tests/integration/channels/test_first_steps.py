"""Mistakes of users who know supabase-js, and the messages that help them."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from supabase_rt import InvalidState, RealtimeClient, ReconnectPolicy, create_client
from supabase_rt.server import LocalRealtime

from ...support.programs import run_program
from ...support.waiting import until

KEY = "a-key"
URL = "http://127.0.0.1:9"
ANY = {"event": "*"}
TABLE = {"event": "*", "schema": "public", "table": "todos"}


def client(**options: Any) -> RealtimeClient:
    return RealtimeClient(URL, params={"apikey": KEY}, **options)


def said(caplog: pytest.LogCaptureFixture, level: int = logging.WARNING) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.levelno >= level]


# -- a chain without a loop ---------------------------------------------------------------

CHAIN = f"""
import asyncio
from supabase_rt import create_client
supabase = create_client({URL!r}, {KEY!r})
"""
SUBSCRIBED = CHAIN + 'supabase.channel("a").subscribe()\n'
DROPPED = CHAIN + "supabase.realtime.connect()\ndel supabase\n"
LOOPED = (
    SUBSCRIBED
    + """
async def main():
    supabase.realtime.connect()
    await supabase.realtime.disconnect()
asyncio.run(main())
"""
)


@pytest.mark.parametrize("text", [SUBSCRIBED, DROPPED], ids=["subscribed", "dropped"])
async def test_a_program_that_ends_without_a_loop_is_told_of_run(text: str) -> None:
    ended = await run_program(text)
    assert (ended.code, ended.out) == (0, "")
    (line,) = ended.err.splitlines()
    assert line.startswith("nothing was connected")
    assert "supabase.realtime.run()" in line


@pytest.mark.parametrize(
    "text",
    [CHAIN, LOOPED, CHAIN + 'supabase.channel("a").on("broadcast", {"event": "*"}, print)'],
    ids=["made", "looped", "listening"],
)
async def test_nothing_is_said_where_a_loop_ran_or_nothing_was_asked_for(text: str) -> None:
    ended = await run_program(text)
    assert (ended.code, ended.out, ended.err) == (0, "", "")


async def test_a_traceback_is_not_followed_by_advice() -> None:
    ended = await run_program(SUBSCRIBED + "1 / 0")
    assert ended.code == 1
    assert ended.err.splitlines()[-1].startswith("ZeroDivisionError")


# -- seconds and milliseconds -------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["timeout", "heartbeat_interval", "heartbeat_timeout", "disconnect_on_empty_channels_after"],
)
def test_an_option_that_looks_like_milliseconds_is_taken_with_a_warning(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    client(**{name: 999.0})
    assert said(caplog) == []
    client(**{name: 25_000})
    (text,) = said(caplog)
    assert text.startswith(f"{name} is in seconds, and 25000 seconds are 6.9 hours")


def test_so_is_a_delay_of_the_policy(caplog: pytest.LogCaptureFixture) -> None:
    client(reconnect=ReconnectPolicy(initial_backoff=1000, max_backoff=30_000))
    (text,) = said(caplog)
    assert text.startswith("initial_backoff is in seconds")


@pytest.mark.parametrize(
    ("since", "warns"), [(0, False), (1_764_000_000, True), (1_764_000_000_000, False)]
)
def test_a_replay_since_that_looks_like_seconds_is_taken_with_a_warning(
    since: int, warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    client().channel("a", {"config": {"private": True, "broadcast": {"replay": {"since": since}}}})
    assert len(said(caplog)) == warns
    assert all("replay.since is in milliseconds" in text for text in said(caplog))


# -- reconnect_after ----------------------------------------------------------------------


async def test_a_reconnect_after_that_fails_is_logged_once_and_told_each_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    errors: list[BaseException] = []
    policy = ReconnectPolicy(initial_backoff=0.01, jitter=0.0, max_backoff=0.01)
    bad: Any = lambda tries: None  # noqa: E731
    tried = client(reconnect=policy, reconnect_after=bad)
    tried.on("error", errors.append)
    tried.connect()
    await until(lambda: sum(isinstance(one, ValueError) for one in errors) > 2)
    await tried.disconnect()
    (text,) = [one for one in said(caplog, logging.ERROR) if "reconnect_after" in one]
    assert "the delays are those of the policy: ValueError" in text
    assert "None" in text


# -- the connection in the log ------------------------------------------------------------


async def test_a_dead_server_gets_its_hint_once_and_its_return_a_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    policy = ReconnectPolicy(initial_backoff=0.01, jitter=0.0, max_backoff=0.01)
    async with LocalRealtime() as server:
        one = create_client(server.url, server.anon_key, realtime={"reconnect": policy}).realtime
        server.faults.refuse(503)
        channel = one.channel("a").subscribe()
        await until(lambda: sum("HTTP 503" in text for text in said(caplog)) == 3)
        server.faults.refuse(None)
        await channel
        server.faults.cut()
        await until(lambda: one.health().reconnects == 1 and one.is_connected())
        await channel
        await one.disconnect()
    tries = [text for text in said(caplog, logging.INFO) if "trying again" in text]
    failed = [text for text in tries if "HTTP 503" in text]
    assert [text.endswith(")") for text in failed[:3]] == [False, True, True]
    assert any(text.startswith("connected to ") for text in said(caplog, logging.INFO))
    (again,) = [one for one in said(caplog, logging.INFO) if one.startswith("connected again")]
    assert again.endswith(" s")


# -- handlers that fail -------------------------------------------------------------------


async def test_the_log_of_a_failed_handler_says_where_and_shows_no_payload(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def on_change(change: Any) -> None:
        change.new.name

    def on_broadcast(message: Any) -> None:
        message.payload.name

    async with LocalRealtime() as server:
        supabase = create_client(server.url, server.anon_key)
        async with supabase.realtime:
            channel = supabase.channel("room", {"config": {"broadcast": {"self": True}}})
            channel.on("postgres_changes", TABLE, on_change)
            channel.on("broadcast", ANY, on_broadcast).subscribe()
            await channel.ready()
            server.insert("todos", {"id": 1, "note": "private words"})
            channel.send({"type": "broadcast", "event": "cursor", "payload": {"x": "secret words"}})
            await until(lambda: len(said(caplog, logging.ERROR)) == 2)
    change, broadcast = sorted(said(caplog, logging.ERROR), key=lambda text: "cursor" in text)
    assert "on_change failed: AttributeError (realtime:room, 'INSERT public.todos')" in change
    assert change.endswith('; rows are dicts: change.new["name"]')
    assert "on_broadcast failed: AttributeError (realtime:room, 'cursor')" in broadcast
    assert broadcast.endswith('; it is a dict: message.payload["name"]')
    assert "private words" not in caplog.text
    assert "secret words" not in caplog.text


# -- calls that do not fit ----------------------------------------------------------------


def test_a_handler_that_was_called_is_recognized_by_the_rest_of_the_chain() -> None:
    channel: Any = client().channel("a")
    with pytest.raises(AttributeError, match=r"no 'subscribe'; was the handler called"):
        channel.on("broadcast", ANY, None).subscribe()
    opened: Any = client().on("open")
    with pytest.raises(AttributeError, match="it is a decorator"):
        opened.connect()


def test_a_coroutine_is_no_handler() -> None:
    async def show(payload: object) -> None: ...

    channel: Any = client().channel("a")
    with pytest.raises(TypeError, match=r"pass show, not show\(\.\.\.\)"):
        channel.on("broadcast", ANY, show(1))


@pytest.mark.parametrize(
    ("keyword", "form"),
    [("config", '"config": {...}'), ("broadcast", '"config": {"broadcast": ...}')],
)
def test_options_of_a_channel_are_a_dict(keyword: str, form: str) -> None:
    maker: Any
    for maker in (client(), create_client(URL, KEY)):
        with pytest.raises(TypeError, match="a dict, as in supabase-js") as found:
            maker.channel("a", **{keyword: {}})
        assert form in str(found.value)


def test_a_missing_key_is_asked_for_in_the_words_of_the_call() -> None:
    with pytest.raises(ValueError, match=r"create_client\(url, key\)"):
        create_client(URL, "")
    with pytest.raises(ValueError, match=r"RealtimeClient\(url, params="):
        RealtimeClient(URL, params={})


def test_outside_a_loop_the_call_is_named_as_it_was_made() -> None:
    channel = client().channel("a")
    with pytest.raises(RuntimeError, match=r"^track\(\)"):
        channel.track({})
    with pytest.raises(RuntimeError, match=r"^untrack\(\)"):
        channel.untrack()


async def test_tracking_too_early_and_too_late_are_two_things() -> None:
    async with LocalRealtime() as server, client_of(server) as one:
        channel = one.channel("a")
        with pytest.raises(InvalidState, match="before joining") as early:
            channel.track({})
        assert "call channel.subscribe() first" in early.value.hint
        await channel.subscribe()
        await channel.unsubscribe()
        with pytest.raises(InvalidState, match="after it was closed") as late:
            channel.track({})
        assert late.value.hint == "make a new one: client.channel('a')"


def client_of(server: LocalRealtime) -> RealtimeClient:
    return RealtimeClient(server.ws_url, params={"apikey": server.anon_key})


async def test_the_rest_warning_has_the_words_of_javascript_and_the_name_of_python(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with LocalRealtime() as server:
        channel = client_of(server).channel("a")
        sent = channel.send({"type": "broadcast", "event": "x", "payload": {}})
        assert await asyncio.wait_for(sent, 10) == "ok"
    (text,) = said(caplog)
    assert text.endswith(
        "Please use httpSend() explicitly for REST delivery. (in Python: http_send())"
    )
