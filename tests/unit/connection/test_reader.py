"""The reader: the fast path delivers exactly what the general path delivers."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supabase_rt import RealtimeChannel, RealtimeClient
from supabase_rt._connection.codec import build_codec
from supabase_rt._connection.frame_decoders import decoder_for
from supabase_rt._connection.reader import HEADERS_KEPT, Reader
from supabase_rt._connection.traffic import Traffic
from supabase_rt._protocol.fast_routes import ROUTE_LIMIT
from supabase_rt._wire.envelope import UserBroadcast
from supabase_rt._wire.json_codec import UNREADABLE
from supabase_rt._wire.serializer import encode_user_broadcast

CHANGES = {"event": "*", "schema": "public", "table": "todos"}
REPLAY = {"config": {"private": True, "broadcast": {"replay": {"since": 0}}}}


class ReaderHarness:
    """A client without a socket, its reader, and everything that handlers were given.

    ``fast`` says if the reader may use the fast path at all.
    """

    def __init__(self, *, fast: bool, logger: Any = None) -> None:
        self.client = RealtimeClient("ws://localhost/realtime/v1", params={"apikey": "k"})
        parts = self.client._parts
        self.session, self.dispatch = parts.client_machine, parts.dispatcher
        self.traffic = Traffic()
        self.in_callback = self.flush_requested = False
        self.seen: list[Any] = []
        self.loop = asyncio.new_event_loop()
        codec = build_codec("2.0.0", None, None, logger)
        if not fast:
            codec = dataclasses.replace(codec, fast_path_allowed=False)
        self.session.connect()
        self.session.link_up(0.0, 0.0)
        self.reader = Reader(self, codec, self.dispatch, self.loop)
        self.client.on("error", lambda error: self.seen.append(("error", str(error))))

    def close(self) -> None:
        self.loop.close()

    def flush(self) -> None:
        """Do the steps of ``Connection.flush``, without a socket."""
        self.session.pop_frames()
        if self.in_callback:
            self.flush_requested = True
            return
        self.in_callback = True
        try:
            while found := self.session.pop_events():
                for event in found:
                    if type(event) in self.dispatch._actions:
                        self.dispatch.handle(event)
        finally:
            self.in_callback = False

    def report(self, error: BaseException) -> None:
        self.dispatch.error(error)

    def turn(self) -> None:
        """Run one turn of the loop, which ends the batch."""
        self.loop.run_until_complete(asyncio.sleep(0))

    def channel(self, name: str, opts: Any = None) -> RealtimeChannel:
        return self.client.channel(name, opts)

    def join(self, channel: RealtimeChannel, ids: Any = ()) -> None:
        """Subscribe, and reply to the join with ok."""
        machine = channel._machine
        self.session.subscribe(machine, 10.0, 0.0)
        ref = machine.join_ref
        entries = [
            {**entry, "id": number}
            for entry, number in zip(machine.bindings.postgres_changes(), ids, strict=False)
        ]
        response = {"postgres_changes": entries}
        self.text([ref, ref, channel.topic, "phx_reply", {"status": "ok", "response": response}])
        assert channel.state == "joined"

    def text(self, message: Any) -> None:
        self.reader.on_text(json.dumps(message).encode())

    def broadcast(self, channel: RealtimeChannel, event: str, x: Any = 1, ref: Any = None) -> None:
        payload = {"type": "broadcast", "event": event, "payload": {"x": x}}
        self.text([ref, None, channel.topic, "broadcast", payload])

    def handler(self, name: str) -> Callable[[Any], None]:
        return lambda payload: self.seen.append((name, dict(payload)))

    @property
    def counters(self) -> Any:
        found = self.session.context.counters
        return (self.traffic.frames_in, found.stale, found.unknown, found.decode_errors)


@pytest.fixture
def harness() -> Iterator[ReaderHarness]:
    found = ReaderHarness(fast=True)
    yield found
    found.close()


def binary(
    topic: str, event: str, body: bytes, *, is_json: bool = True, meta: bytes = b""
) -> bytes:
    return encode_user_broadcast(topic, UserBroadcast(event, is_json, meta, body))


# -- one way equals the other --------------------------------------------------------------


NAMES = st.sampled_from(["one", "two", "ONE", "*", "", "other"])
TOPICS = st.sampled_from(
    ["realtime:open", "realtime:replay", "realtime:left", "realtime:never", "phoenix", "", "é"]
)
EVENTS = st.sampled_from(
    [
        *("broadcast", "postgres_changes", "presence_diff", "presence_state", "system"),
        *("phx_reply", "phx_error", "phx_close", "made_up"),
    ]
)
REFS: st.SearchStrategy[Any] = st.sampled_from(
    [None, None, None, "mine", "0", "77", 1, True, 1.5, []]
)
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(max_size=3), st.just({"x": 1}), st.just([1])
)
ROWS: st.SearchStrategy[Any] = st.sampled_from([{"id": 1, "t": "é"}, {}, None, [], 7])
CHANGE_DATA = st.fixed_dictionaries(
    {"type": st.sampled_from(["INSERT", "UPDATE", "DELETE", "other", 5])},
    optional={
        "schema": st.sampled_from(["public", None, 4]),
        "table": st.just("todos"),
        "commit_timestamp": st.just("2026-01-01T00:00:00Z"),
        "columns": st.sampled_from([[{"name": "id", "type": "int8"}], None, 3]),
        "record": ROWS,
        "old_record": ROWS,
        "errors": st.sampled_from([None, ["Error 413"]]),
    },
)
PAYLOADS = st.one_of(
    VALUES,
    st.fixed_dictionaries(
        {"event": st.one_of(NAMES, st.none(), st.just(5))},
        optional={
            "type": st.sampled_from(["broadcast", "x", 5]),
            "payload": VALUES,
            "meta": st.sampled_from([{"id": "m1"}, {"id": "m2", "replayed": True}, None]),
        },
    ),
    st.fixed_dictionaries(
        {
            "ids": st.sampled_from([[7], [8], [7, 8], [9], [], ["7"], [None], 7]),
            "data": st.one_of(CHANGE_DATA, st.none()),
        }
    ),
    st.just({"joins": {"ann": {"metas": [{"phx_ref": "1"}]}}, "leaves": {}}),
    st.just({"status": "ok", "response": {}}),
    st.just({"extension": "system", "status": "ok", "message": "m", "channel": "open"}),
)
BROADCASTS = st.fixed_dictionaries(
    {"event": NAMES},
    optional={
        "payload": VALUES,
        "meta": st.sampled_from([{"id": "m1"}, {"id": "m2", "replayed": True}, None]),
    },
)
CHANGE_PAYLOADS = st.fixed_dictionaries(
    {"ids": st.sampled_from([[7], [8], [7, 8], [9], []]), "data": CHANGE_DATA}
)
GOOD_TOPICS = st.sampled_from(["realtime:open", "realtime:replay"])
GOOD_REFS = st.sampled_from([None, None, None, "mine", "77"])
MEMBERS = st.dictionaries(
    st.sampled_from(["ann", "bob", "é"]),
    st.fixed_dictionaries(
        {"metas": st.lists(st.fixed_dictionaries({"phx_ref": st.sampled_from("123")}), max_size=2)}
    ),
    max_size=2,
)
PRESENCE = st.one_of(
    st.tuples(st.just("presence_state"), MEMBERS),
    st.tuples(
        st.just("presence_diff"),
        st.fixed_dictionaries({"joins": MEMBERS}, optional={"leaves": MEMBERS}),
    ),
)
MESSAGES = st.one_of(
    st.tuples(GOOD_REFS, st.none(), st.just("realtime:open"), PRESENCE).map(
        lambda found: (*found[:3], *found[3])
    ),
    st.tuples(GOOD_REFS, st.none(), GOOD_TOPICS, st.just("broadcast"), BROADCASTS),
    st.tuples(GOOD_REFS, st.none(), GOOD_TOPICS, st.just("postgres_changes"), CHANGE_PAYLOADS),
    st.tuples(REFS, REFS, TOPICS, EVENTS, PAYLOADS),
).map(list)
RAW_TEXTS = st.sampled_from(
    [
        b"",
        b"[]",
        b"{}",
        b"nonsense",
        b'[null,null,"realtime:open","broadcast",{"event":"one","payload":1e400}]',
        b'[null,null,"realtime:open","broadcast",{"event":"one","payload":"\\ud800"}]',
        b'[null,null,"realtime:open","broadcast",{"event":"one","payload":"\xff"}]',
        b'[null,null,"realtime:open","broadcast",{"event":"one","payload":"\xc3\xa9"}]',
        b'[null,null,"realtime:open","broadcast",{"event":"one","payload":NaN}]',
        b'[null,null,"realtime:open","broadcast",{"event":"one","payload":{}},"more"]',
        b'[null,null,"realtime:open","broadcast",{"event":"one","payload":{}}',
        b'[null,null,"realtime:open","broadcast",' + b"[" * 3000 + b"]" * 3000 + b"]",
        b'{"topic":"realtime:open","event":"broadcast","payload":{"event":"one"},"ref":null}',
    ]
)
TEXTS = st.one_of(
    MESSAGES.map(lambda message: json.dumps(message, ensure_ascii=False).encode()), RAW_TEXTS
)
BODIES = st.sampled_from(
    [b"{}", b'{"x":1}', b"", b"{", b"\xff", b'"\xc3\xa9"', b'"\xff"', b"1e400", b"[1]", b"NaN"]
)
METAS = st.sampled_from([b"", b"", b'{"id":"m1"}', b"{"])
BINARIES = st.one_of(
    st.builds(binary, GOOD_TOPICS, NAMES, BODIES, is_json=st.booleans(), meta=METAS),
    st.builds(binary, st.sampled_from(["realtime:left", "realtime:é"]), NAMES, BODIES),
    st.binary(max_size=12),
    st.builds(lambda rest: b"\x04" + rest, st.binary(max_size=40)),
    st.sampled_from(
        [
            b"\x04\x02\x01\x00\x01\xff\xffxy",
            b"\x04\x02\x01\x00\x01ab\xff{}",
            b"\x04\x0d\x03\x00\x01",
            b"\x04\x00\x03\x00\x01one{}",
            b"\x02\x01\x01ab{}",
            b"\x01\x01\x01\x01\x02aaaok{}",
        ]
    ),
)
FRAMES = st.one_of(
    TEXTS.map(lambda data: ("text", data)),
    BINARIES.map(lambda data: ("binary", data)),
    st.sampled_from(["off", "on", "turn", "leave", "rejoin"]).map(lambda act: ("act", act)),
)


class ReaderScript:
    """Plays the same frames and calls to one harness."""

    def __init__(self, *, fast: bool, joins: bool) -> None:
        self.harness = harness = ReaderHarness(fast=fast)
        self.open = harness.channel("open")
        self.second = harness.handler("second")
        self.open.on("broadcast", {"event": "one"}, self.raising)
        self.open.on("broadcast", {"event": "One"}, self.second)
        self.open.once("broadcast", {"event": "two"}, harness.handler("once"))
        self.open.on("broadcast", {"event": "*"}, harness.handler("all"))
        self.open.on("postgres_changes", CHANGES, self.change)
        self.open.on("postgres_changes", {**CHANGES, "event": "INSERT"}, self.change, types="raw")
        self.open.on("presence", {"event": "sync"}, self.presence)
        if joins:
            self.open.on("presence", {"event": "join"}, self.presence)
        self.open.on("system", {}, harness.handler("system"))
        harness.join(self.open, ids=(7, 8))
        self.replay = harness.channel("replay", REPLAY)
        self.replay.on("broadcast", {"event": "one"}, harness.handler("replay"))
        harness.join(self.replay)
        left = harness.channel("left")
        left.on("broadcast", {"event": "*"}, harness.handler("left"))
        harness.join(left)
        harness.broadcast(left, "one")
        harness.session.unsubscribe(left._machine, 10.0, None, 0.0)
        harness.flush()

    def raising(self, payload: Any) -> None:
        self.harness.seen.append(("raising", dict(payload)))
        raise ValueError(payload.event)

    def presence(self, payload: Any) -> None:
        self.harness.seen.append((dict(payload), self.open.presence_state()))

    def change(self, payload: Any) -> None:
        self.harness.seen.append(("change", payload.event_type, payload.schema))
        self.harness.seen.append((payload.new, payload.old, payload.errors))

    def act(self, name: str) -> None:
        harness = self.harness
        if name == "off":
            self.open.off("broadcast", {"event": "One"}, self.second)
        elif name == "on":
            self.open.on("broadcast", {"event": "one"}, self.second)
        elif name == "turn":
            harness.turn()
        elif name == "leave":
            harness.session.unsubscribe(self.open._machine, 10.0, None, 0.0)
            harness.flush()
        elif self.replay.state == "joined":
            ref = self.replay._machine.join_ref
            harness.text([ref, ref, self.replay.topic, "phx_error", {}])
            harness.session.on_deadline(1000.0)
            if self.replay.state == "joining":
                ref = self.replay._machine.join_ref
                reply = {"status": "ok", "response": {}}
                harness.text([ref, ref, self.replay.topic, "phx_reply", reply])

    def run(self, steps: list[tuple[str, Any]]) -> Any:
        reader = self.harness.reader
        mine = json.dumps(self.open._machine.join_ref).encode()
        try:
            for kind, what in steps:
                if kind == "text":
                    reader.on_text(what.replace(b'"mine"', mine))
                elif kind == "binary":
                    reader.on_binary(what)
                else:
                    self.act(what)
            return self.harness.seen, self.harness.counters, self.open.state, self.replay.state
        finally:
            self.harness.close()


@given(st.lists(FRAMES, max_size=25), st.booleans())
def test_the_fast_path_delivers_what_the_general_path_delivers(
    steps: list[tuple[str, Any]], joins: bool
) -> None:
    fast, general = ReaderScript(fast=True, joins=joins), ReaderScript(fast=False, joins=joins)
    assert fast.run(steps) == general.run(steps)
    assert fast.open.presence_state() == general.open.presence_state()


@given(TEXTS)
def test_a_frame_decoded_in_one_pass_says_what_it_is(data: bytes) -> None:
    """A wrong guess of the event fails to decode, or the frame shows its event."""
    try:
        event = decoder_for("any")(data).event
    except UNREADABLE:
        return
    for guess in ("broadcast", "postgres_changes"):
        try:
            assert decoder_for(guess)(data).event == event
        except UNREADABLE:
            pass


# -- what the fast path must not lose - ------------------------------------------------------


def test_frames_of_an_older_join_are_dropped(harness: ReaderHarness) -> None:
    channel = harness.channel("room").on("broadcast", {"event": "x"}, harness.handler("x"))
    harness.join(channel)
    ref = channel._machine.join_ref
    harness.broadcast(channel, "x", 1, ref=ref)
    harness.broadcast(channel, "x", 2, ref="older")
    harness.broadcast(channel, "x", 3)
    assert [payload["payload"]["x"] for _, payload in harness.seen] == [1, 3]
    assert harness.session.context.counters.stale == 1


def test_after_leaving_no_event_is_delivered(harness: ReaderHarness) -> None:
    channel = harness.channel("room").on("broadcast", {"event": "x"}, harness.handler("x"))
    harness.join(channel)
    frame = binary(channel.topic, "x", b"{}")
    harness.reader.on_binary(frame)
    harness.session.unsubscribe(channel._machine, 10.0, None, 0.0)
    harness.reader.on_binary(frame)
    harness.broadcast(channel, "x")
    assert len(harness.seen) == 1
    assert harness.session.context.routes == {}


def test_a_second_channel_of_a_topic_that_was_left_gets_the_frames(harness: ReaderHarness) -> None:
    frame = binary("realtime:room", "x", b"{}")
    for name in ("first", "second"):
        channel = harness.channel("room").on("broadcast", {"event": "x"}, harness.handler(name))
        harness.join(channel)
        harness.reader.on_binary(frame)
        harness.broadcast(channel, "x")
        if name == "first":
            harness.session.unsubscribe(channel._machine, 10.0, None, 0.0)
    assert [name for name, _ in harness.seen] == ["first", "first", "second", "second"]


@pytest.mark.parametrize("form", ["text", "binary"])
def test_handlers_that_come_and_go_are_seen_at_the_next_frame(
    harness: ReaderHarness, form: str
) -> None:
    channel = harness.channel("room")
    first, second = harness.handler("first"), harness.handler("second")
    channel.on("broadcast", {"event": "x"}, first)
    harness.join(channel)

    def receive() -> None:
        if form == "text":
            harness.broadcast(channel, "x")
        else:
            harness.reader.on_binary(binary(channel.topic, "x", b"{}"))

    receive()
    channel.on("broadcast", {"event": "x"}, second)
    receive()
    channel.off("broadcast", {"event": "x"}, first)
    receive()
    channel.off("broadcast")
    receive()
    channel.once("broadcast", {"event": "x"}, harness.handler("once"))
    receive()
    receive()
    names = [name for name, _ in harness.seen]
    assert names == ["first", "first", "second", "second", "once"]


def test_what_a_handler_calls_is_done_after_it(harness: ReaderHarness) -> None:
    """Events that a handler causes are handled after it returns, in the order they happened."""
    other = harness.channel("other").on("broadcast", {"event": "x"}, harness.handler("other"))
    harness.join(other)
    channel = harness.channel("room")

    def leave(payload: Any) -> None:
        harness.session.unsubscribe(other._machine, 10.0, None, 0.0)
        harness.flush()
        harness.seen.append("left")

    channel.on("broadcast", {"event": "x"}, leave)
    harness.join(channel)
    harness.broadcast(channel, "x")
    assert harness.seen == ["left"]
    assert not harness.in_callback
    assert not harness.flush_requested
    assert harness.session.pop_events() == []


def test_a_raising_handler_stops_no_other_handler(harness: ReaderHarness) -> None:
    channel = harness.channel("room").on("broadcast", {"event": "x"}, lambda payload: 1 / 0)
    channel.on("broadcast", {"event": "x"}, harness.handler("after"))
    harness.join(channel)
    for _ in range(2):
        harness.broadcast(channel, "x")
    assert [one[0] for one in harness.seen] == ["error", "after", "error", "after"]
    assert harness.dispatch.tally.handler_errors == 2


def test_the_handler_that_blocks_is_named_and_no_other(
    harness: ReaderHarness, caplog: pytest.LogCaptureFixture
) -> None:
    channel = harness.channel("room")

    def quick(payload: Any) -> None:
        pass

    def blocking(payload: Any) -> None:
        time.sleep(0.11)

    channel.on("broadcast", {"event": "quick"}, quick)
    channel.on("broadcast", {"event": "slow"}, blocking)
    harness.join(channel)
    time.sleep(0.11)
    harness.turn()
    # A new batch: no handler is to blame for the time before it.
    for event in ("quick", "slow", "quick", "quick"):
        harness.broadcast(channel, event)
    blocked = [record.getMessage() for record in caplog.records if "blocked" in record.msg]
    assert len(blocked) == 1
    assert "blocking blocked" in blocked[0]


def test_a_callback_that_blocks_does_not_blame_the_next_handler(
    harness: ReaderHarness, caplog: pytest.LogCaptureFixture
) -> None:
    channel = harness.channel("room").on("broadcast", {"event": "x"}, harness.handler("x"))
    harness.join(channel)
    harness.client.on("error", lambda error: time.sleep(0.11))
    harness.reader.on_text(b"nonsense")
    harness.broadcast(channel, "x")
    assert harness.seen[-1][0] == "x"
    assert "blocked" not in caplog.text


def test_the_last_frame_counts_at_both_ends_of_a_batch(harness: ReaderHarness) -> None:
    context = harness.session.context
    channel = harness.channel("room")
    harness.join(channel)
    harness.turn()
    begun = harness.loop.time()
    harness.broadcast(channel, "x")
    heard = context.last_frame_at
    assert heard >= begun
    harness.broadcast(channel, "x")
    assert context.last_frame_at == heard
    before_end = harness.loop.time()
    harness.turn()
    assert context.last_frame_at >= before_end


def test_a_replayed_message_is_not_delivered_again(harness: ReaderHarness) -> None:
    channel = harness.channel("room", REPLAY).on("broadcast", {"event": "x"}, harness.handler("x"))
    harness.join(channel)
    for name in ("a", "a", "b"):
        payload = {"event": "x", "payload": name, "meta": {"id": name}}
        harness.text([None, None, channel.topic, "broadcast", payload])
        meta = json.dumps({"id": name}).encode()
        harness.reader.on_binary(binary(channel.topic, "x", b"{}", meta=meta))
    assert [payload["payload"] for _, payload in harness.seen] == ["a", "b"]


def test_a_channel_that_watches_its_changes_sees_every_one(harness: ReaderHarness) -> None:
    channel = harness.client.channel("room", resubscribe_after=60.0)
    channel.on("postgres_changes", CHANGES, lambda change: harness.seen.append(change.new))
    harness.join(channel, ids=(1,))
    for number in (1, 2):
        noted = channel._machine.inbound.changed_at
        harness.turn()
        payload = {"ids": [1], "data": {"type": "INSERT", "record": {"n": number}}}
        harness.text([None, None, channel.topic, "postgres_changes", payload])
        assert channel._machine.inbound.changed_at > noted
    assert harness.seen == [{"n": 1}, {"n": 2}]


@pytest.mark.parametrize("body", [b'{"x":"\xff"}', b"{", b"nonsense", b""])
def test_a_payload_that_is_no_json_costs_one_frame(harness: ReaderHarness, body: bytes) -> None:
    channel = harness.channel("room").on("broadcast", {"event": "x"}, harness.handler("x"))
    harness.join(channel)
    for content in (b"{}", body, b"{}"):
        harness.reader.on_binary(binary(channel.topic, "x", content))
        harness.reader.on_text(
            b'[null,null,"realtime:room","broadcast",{"event":"x","payload":' + content + b"}]"
        )
    assert [name for name, *_ in harness.seen] == ["x", "x", "error", "error", "x", "x"]
    assert harness.session.context.counters.decode_errors == 2


def test_invented_presences_do_not_fill_the_memory(harness: ReaderHarness) -> None:
    synced: list[Any] = []
    channel = harness.channel("room").on("presence", {"event": "sync"}, lambda: synced.append(1))
    harness.join(channel)
    harness.text([None, None, channel.topic, "presence_state", {}])
    for group in range(8):
        crowd = {f"{group}-{n}": {"metas": [{"phx_ref": str(n)}]} for n in range(20_000)}
        diff = {"joins": crowd, "leaves": {}}
        harness.text([None, None, channel.topic, "presence_diff", diff])
    kept = len(channel.presence_state()) // 20_000
    assert 4 <= kept <= 6
    assert len(synced) == 1 + kept
    assert harness.session.context.counters.decode_errors == len(harness.seen) == 8 - kept
    assert all("presence of more than 64 MiB" in text for _, text in harness.seen)


def test_invented_names_do_not_fill_the_memory(harness: ReaderHarness) -> None:
    channel = harness.channel("room").on("broadcast", {"event": "*"}, lambda payload: None)
    channel.on("postgres_changes", CHANGES, lambda payload: None)
    harness.join(channel, ids=(1,))
    route = harness.session.context.routes[channel.topic]
    for number in range(ROUTE_LIMIT + 10):
        harness.broadcast(channel, f"name{number}")
        payload = {"ids": [1, number], "data": {"type": "INSERT"}}
        harness.text([None, None, channel.topic, "postgres_changes", payload])
    assert len(route.broadcasts) <= ROUTE_LIMIT
    assert len(route.changes) <= ROUTE_LIMIT
    for number in range(HEADERS_KEPT + 10):
        harness.reader.on_binary(binary(channel.topic, f"name{number}", b"{}"))
    assert len(harness.reader._headers) <= HEADERS_KEPT


def test_a_logger_sees_every_frame() -> None:
    logged: list[str] = []
    harness = ReaderHarness(fast=True, logger=lambda kind, message, data: logged.append(message))
    channel = harness.channel("room").on("broadcast", {"event": "x"}, harness.handler("x"))
    harness.join(channel)
    logged.clear()
    harness.broadcast(channel, "x")
    harness.reader.on_binary(binary(channel.topic, "x", b"{}"))
    harness.close()
    assert logged == ["realtime:room broadcast"] * 2
    assert len(harness.seen) == 2


@pytest.mark.parametrize("given", [{"vsn": "1.0.0"}, {"decode": json.loads}, {"logger": print}])
def test_the_fast_path_needs_the_serializer_itself(given: dict[str, Any]) -> None:
    options: dict[str, Any] = {"vsn": "2.0.0", "encode": None, "decode": None, "logger": None}
    plain, other = build_codec(**options), build_codec(**{**options, **given})
    assert (plain.fast_path_allowed, other.fast_path_allowed) == (True, False)
