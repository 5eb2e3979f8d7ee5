"""The behaviour that the blocking facade and the async API have in common."""

from __future__ import annotations

import inspect
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import supabase_rt
import supabase_rt.sync
from supabase_rt import InvalidState, ReconnectPolicy, Refused, TimedOut
from supabase_rt.server import LocalRealtime
from supabase_rt.sync.loop_thread import ask, call

QUICK = {"timeout": 5.0, "reconnect": ReconnectPolicy(initial_backoff=0.05, jitter=0)}
WAIT = 10


class Raw:
    """The async API; each call runs in the background loop and is awaited there."""

    def __init__(self, target: Any) -> None:
        self.target = target

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.target, name)
        if not inspect.isroutine(found):
            return wrapped(found)

        def run(*args: Any, **options: Any) -> Any:
            args = tuple(each.target if isinstance(each, Raw) else each for each in args)
            # Chained calls return the channel, which is awaitable; only subscribe() is awaited.
            chained = name in ("on", "once", "off", "channel", "stream")
            return wrapped((ask if chained else call)(found, *args, **options))

        return run

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Raw) and other.target is self.target

    __hash__ = None  # type: ignore[assignment]

    def __iter__(self) -> Iterator[Any]:
        while True:
            try:
                yield call(self.target.__anext__)
            except StopAsyncIteration:
                return


def wrapped(found: Any) -> Any:
    if isinstance(found, list):
        return [wrapped(each) for each in found]
    ours = ("RealtimeClient", "RealtimeChannel", "Stream")
    return Raw(found) if type(found).__name__ in ours else found


class Got:
    """A handler whose events the test waits for."""

    def __init__(self) -> None:
        self.events: queue.Queue[Any] = queue.Queue()

    def __call__(self, *args: Any) -> None:
        self.events.put(args[0] if len(args) == 1 else args)

    def next(self) -> Any:
        return self.events.get(timeout=WAIT)


Make = Callable[..., Any]


@pytest.fixture
def local() -> Iterator[LocalRealtime]:
    server = call(LocalRealtime().start)
    yield server
    call(server.stop)


@pytest.fixture(params=["async", "sync"])
def make(request: pytest.FixtureRequest, local: LocalRealtime) -> Iterator[Make]:
    made: list[Any] = []

    def create(key: str | None = None, **options: Any) -> Any:
        options = {"realtime": QUICK, **options}
        arguments = (local.url, key or local.anon_key)
        if request.param == "sync":
            made.append(supabase_rt.sync.create_client(*arguments, **options))
        else:
            made.append(Raw(supabase_rt.create_client(*arguments, **options)))
        return made[-1]

    yield create
    for each in made:
        each.aclose() if isinstance(each, Raw) else each.close()


def test_a_chain_joins_and_receives(make: Make, local: LocalRealtime) -> None:
    got, statuses = Got(), Got()
    channel = make().channel("room").on("broadcast", {"event": "*"}, got).subscribe(statuses)
    assert statuses.next()[0] == "SUBSCRIBED"
    assert channel.state == "joined"
    call(local.broadcast, "room", "hello", {"n": 1})
    assert got.next().payload["n"] == 1


def test_events_come_in_order(make: Make, local: LocalRealtime) -> None:
    got = Got()
    make().channel("room").on("broadcast", {"event": "*"}, got).subscribe()
    for number in range(200):
        call(local.broadcast, "room", "n", {"n": number})
    assert [got.next().payload["n"] for _ in range(200)] == list(range(200))


def test_database_changes_flow_when_ready(make: Make, local: LocalRealtime) -> None:
    got = Got()
    changes = {"event": "INSERT", "schema": "public", "table": "todos"}
    channel = make().channel("db").on("postgres_changes", changes, got).subscribe()
    channel.ready()
    call(local.insert, "todos", {"id": 1})
    change = got.next()
    assert (change.event_type, change.new) == ("INSERT", {"id": 1})


def test_a_handler_that_raises_harms_no_other_and_is_told(make: Make, local: LocalRealtime) -> None:
    supabase, got, errors = make(), Got(), Got()

    def broken(message: Any) -> None:
        raise LookupError(message.event)

    supabase.realtime.on("error", errors)
    channel = supabase.channel("room").on("broadcast", {"event": "*"}, broken)
    channel.on("broadcast", {"event": "*"}, got).subscribe()
    for number in range(2):
        call(local.broadcast, "room", "n", {"n": number})
        assert got.next().payload["n"] == number
        assert isinstance(errors.next()[0], LookupError)
    assert supabase.realtime.health().handler_errors == 2


def test_off_removes_what_on_was_given(make: Make, local: LocalRealtime) -> None:
    got, kept = Got(), Got()
    channel = make().channel("room").on("broadcast", {"event": "*"}, got)
    channel.on("broadcast", {"event": "*"}, kept).subscribe()
    channel.off("broadcast", {"event": "*"}, got)
    call(local.broadcast, "room", "n", {"n": 1})
    assert kept.next().payload["n"] == 1
    assert got.events.empty()


@pytest.mark.parametrize("is_decorator", [False, True])
def test_once_hears_one_event(make: Make, local: LocalRealtime, is_decorator: bool) -> None:
    got, kept = Got(), Got()
    channel = make().channel("room")
    if is_decorator:
        assert channel.once("broadcast", {"event": "*"})(got) is got
    else:
        channel = channel.once("broadcast", {"event": "*"}, got)
    channel.on("broadcast", {"event": "*"}, kept).subscribe()
    for number in range(2):
        call(local.broadcast, "room", "n", {"n": number})
        kept.next()
    assert got.next().payload["n"] == 0
    assert got.events.empty()


def test_a_decorator_registers_and_keeps_the_function(make: Make, local: LocalRealtime) -> None:
    got = Got()
    channel = make().channel("room")

    def handler(message: Any) -> None:
        got(message)

    assert channel.on("broadcast", {"event": "*"})(handler) is handler
    channel.subscribe()
    call(local.broadcast, "room", "n", {"n": 1})
    assert got.next().payload["n"] == 1


def test_a_handler_that_was_called_instead_of_passed_is_explained(make: Make) -> None:
    supabase = make()
    channel = supabase.channel("room")
    for decorator in (channel.on("broadcast", {"event": "*"}), supabase.realtime.on("open")):
        with pytest.raises(AttributeError, match="was the handler called"):
            decorator.subscribe()


def test_options_in_another_form_are_explained(make: Make) -> None:
    channel = make().channel
    with pytest.raises(ValueError, match=r"channel\('room', {"):
        channel("room", config={"private": True})
    assert channel("room", resubscribe_after=60) == channel("room", resubscribe_after=60)


def test_sends_have_results(make: Make) -> None:
    config = {"config": {"broadcast": {"self": True, "ack": True}}}
    got = Got()
    channel = make().channel("room", config).on("broadcast", {"event": "*"}, got).subscribe()
    assert channel.send({"type": "broadcast", "event": "x", "payload": {"n": 1}}) == "ok"
    assert got.next().payload["n"] == 1
    assert channel.http_send("y", {"n": 2}) == {"success": True}
    assert got.next().payload["n"] == 2
    with pytest.raises(ValueError, match="type"):
        channel.send({"type": "nonsense"})


def test_presence_is_tracked_and_seen(make: Make) -> None:
    synced = Got()
    channel = make().channel("room", {"config": {"presence": {"key": "anna"}}})
    channel.on("presence", {"event": "join"}, synced).subscribe()
    assert channel.track({"mood": "curious"}) == "ok"
    assert synced.next().key == "anna"
    assert channel.presence_state()["anna"][0]["mood"] == "curious"
    assert channel.untrack() == "ok"


def test_a_stream_hands_out_events_until_the_channel_is_closed(
    make: Make, local: LocalRealtime
) -> None:
    channel = make().channel("room")
    stream = channel.stream("broadcast", {"event": "*"})
    channel.subscribe()
    for number in range(3):
        call(local.broadcast, "room", "n", {"n": number})
    events = iter(stream)
    assert [next(events).payload["n"] for _ in range(3)] == [0, 1, 2]
    channel.unsubscribe()
    assert list(events) == []


def test_wait_for_returns_what_passes_or_times_out(make: Make, local: LocalRealtime) -> None:
    channel = make().channel("room").subscribe()
    later = threading.Timer(0.05, call, (local.broadcast, "room", "n", {"n": 7}))
    later.start()
    found = channel.wait_for("broadcast", {"event": "n"}, lambda each: each.payload["n"] == 7, WAIT)
    assert found.payload["n"] == 7
    later.join()
    with pytest.raises(TimedOut):
        channel.wait_for("broadcast", {"event": "n"}, timeout=0.01)


def test_a_refused_join_raises_with_the_code_of_the_server(
    make: Make, local: LocalRealtime
) -> None:
    ask(local.faults.refuse_next_join, "Unauthorized: no")
    with pytest.raises(Refused) as caught:
        make().channel("secret").subscribe()
    assert caught.value.code == "Unauthorized"


def test_a_cut_link_is_mended_and_told(make: Make, local: LocalRealtime) -> None:
    got, statuses = Got(), Got()
    make().channel("room").on("broadcast", {"event": "*"}, got).subscribe(statuses)
    assert statuses.next()[0] == "SUBSCRIBED"
    ask(local.faults.cut)
    assert statuses.next()[0] == "CHANNEL_ERROR"
    assert statuses.next()[0] == "SUBSCRIBED"
    call(local.broadcast, "room", "n", {"n": 1})
    assert got.next().payload["n"] == 1


def test_leaving_frees_the_topic(make: Make) -> None:
    supabase, statuses = make(), Got()
    channel = supabase.channel("room").subscribe(statuses)
    assert statuses.next()[0] == "SUBSCRIBED"
    assert supabase.channel("room") == channel
    assert supabase.get_channels() == [channel]
    assert supabase.remove_channel(channel) == "ok"
    assert statuses.next()[0] == "CLOSED"
    assert supabase.get_channels() == []
    assert supabase.channel("room") != channel
    with pytest.raises(InvalidState):
        channel.subscribe()


def test_names_of_supabase_js_are_explained(make: Make) -> None:
    supabase = make()
    for owner, name, python in (
        (supabase, "removeChannel", "remove_channel"),
        (supabase.realtime, "isConnected", "is_connected"),
        (supabase.channel("room"), "presenceState", "presence_state"),
    ):
        with pytest.raises(AttributeError, match=f"in Python it is {python!r}"):
            getattr(owner, name)


def test_a_token_source_may_be_plain_or_async(make: Make, local: LocalRealtime) -> None:
    token = local.token("authenticated", "anna", 60)

    async def later() -> str:
        return token

    for source in (lambda: token, later):
        make(access_token=source).channel("room").subscribe()
        seen = [each.payload for each in local.received if each.event == "phx_join"]
        assert seen[-1]["access_token"] == token
