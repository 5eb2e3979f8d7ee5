from __future__ import annotations

from typing import Any

import msgspec
import pytest

from supabase_rt._payloads.postgres_change import PostgresChange
from supabase_rt._protocol.channel.channel_machine import ChannelMachine
from supabase_rt._protocol.events import Delivered, ErrorReported, PresenceDelivered, ReadyChanged
from supabase_rt.enums import ListenType
from supabase_rt.errors import DecodeError, SubscribeError

from .support import CHANGES, EPOCH, START, World

INSERT = {
    "schema": "public",
    "table": "todos",
    "type": "INSERT",
    "commit_timestamp": "2026-01-01T00:00:00Z",
    "columns": [{"name": "id", "type": "int8"}],
    "record": {"id": 7},
    "errors": None,
}
REPLAY = {"config": {"private": True, "broadcast": {"replay": {"since": 1000, "limit": 5}}}}


def listening(
    *listeners: tuple[ListenType, dict[str, Any]], opts: Any = None
) -> tuple[World, ChannelMachine]:
    """A joined channel with these bindings; events reported before are forgotten."""
    world = World()
    channel = world.channel(opts=opts)
    for type, filter in listeners:
        channel.bindings.add(type, filter)
    world.open()
    world.subscribe(channel)
    world.accept(channel)
    world.told.clear()
    return world, channel


ALL = (ListenType.BROADCAST, {"event": "*"})
SYSTEM = (ListenType.SYSTEM, dict[str, Any]())
PRESENCE = (ListenType.PRESENCE, {"event": "*"})
TODOS = (ListenType.POSTGRES_CHANGES, CHANGES)


def raw(value: Any) -> Any:
    """A payload in the form in which the decoder returns it: not decoded yet."""
    return msgspec.Raw(msgspec.json.encode(value))


# -- broadcast ---------------------------------------------------------------------------


def test_a_broadcast_reaches_the_bindings_of_its_event() -> None:
    world, channel = listening((ListenType.BROADCAST, {"event": "shout"}), ALL)
    world.broadcast(channel, event="Shout", payload={"n": 1})
    world.broadcast(channel, event="whisper")
    first, second = world.told
    assert (first.ids, first.payload.payload) == ((1, 2), {"n": 1})
    assert second.ids == (2,)


def test_a_broadcast_that_nobody_listens_to_is_not_told() -> None:
    world, channel = listening((ListenType.BROADCAST, {"event": "shout"}))
    world.broadcast(channel, event="whisper")
    assert world.told == []


@pytest.mark.conformance("CE4")
def test_a_broadcast_without_an_event_reaches_only_those_who_take_all() -> None:
    world, channel = listening((ListenType.BROADCAST, {"event": "shout"}), ALL)
    world.broadcast(channel, event=None)
    assert [event.ids for event in world.told] == [(2,)]


@pytest.mark.conformance("CE3")
@pytest.mark.parametrize("payload", [None, 7, "text", [1]])
def test_a_broadcast_that_cannot_be_read_raises_and_nothing_is_told(payload: Any) -> None:
    world, channel = listening(ALL)
    with pytest.raises(DecodeError):
        world.receive(channel.topic, "broadcast", raw(payload))
    assert world.told == []
    world.broadcast(channel)
    assert len(world.told) == 1


# -- replay ------------------------------------------------------------------------------


def test_a_replayed_broadcast_that_was_seen_is_not_told_again() -> None:
    world, channel = listening(ALL, opts=REPLAY)
    world.broadcast(channel, meta={"id": "a"})
    world.broadcast(channel, meta={"id": "a", "replayed": True})
    world.broadcast(channel, meta={"id": "b"})
    assert [event.payload.meta["id"] for event in world.told] == ["a", "b"]


def test_what_was_seen_is_remembered_across_a_rejoin() -> None:
    world, channel = listening(ALL, opts=REPLAY)
    world.broadcast(channel, meta={"id": "a"})
    world.flap()
    world.accept(channel)
    world.broadcast(channel, meta={"id": "a", "replayed": True})
    assert len(world.take_told(Delivered)) == 1


@pytest.mark.parametrize("meta", [None, {}, {"id": None}, {"id": 7}, "text"])
def test_broadcasts_without_an_id_are_all_told(meta: Any) -> None:
    world, channel = listening(ALL, opts=REPLAY)
    for _ in range(2):
        world.broadcast(channel, meta=meta)
    assert len(world.told) == 2


def test_without_replay_ids_are_not_looked_at() -> None:
    world, channel = listening(ALL)
    for _ in range(2):
        world.broadcast(channel, meta={"id": "a"})
    assert len(world.told) == 2


def test_the_memory_of_ids_is_bounded_and_forgets_the_oldest() -> None:
    world, channel = listening(ALL, opts=REPLAY)
    for count in range(5000):
        world.broadcast(channel, meta={"id": str(count)})
    assert len(channel.inbound._seen) == 4096
    world.told.clear()
    world.broadcast(channel, meta={"id": "4999"})
    world.broadcast(channel, meta={"id": "0"})
    assert [event.payload.meta["id"] for event in world.told] == ["0"]


def test_the_replay_starts_where_the_user_said() -> None:
    world, channel = listening(opts=REPLAY)
    sent = world.last_join(channel).payload["config"]["broadcast"]["replay"]
    assert sent == {"since": 1000, "limit": 5}


@pytest.mark.conformance("PC3", "PC6")
def test_the_replay_of_a_rejoin_starts_shortly_before_the_last_frame_heard() -> None:
    world, channel = listening(ALL, opts=REPLAY)
    world.advance(10.0)
    world.broadcast(channel)
    world.advance(14.0)
    world.flap(5.0)
    heard = EPOCH + START + 10.0
    sent = world.last_join(channel).payload["config"]["broadcast"]["replay"]
    assert sent == {"since": int((heard - 30.0) * 1000), "limit": 5}


def test_the_replay_never_reaches_back_beyond_what_the_user_said() -> None:
    since = int((EPOCH + START) * 1000) - 5000
    replay = {"private": True, "broadcast": {"replay": {"since": since}}}
    world, channel = listening(opts={"config": replay})
    world.flap(1.0)
    assert world.last_join(channel).payload["config"]["broadcast"]["replay"]["since"] == since


def test_rejoins_that_fail_do_not_move_the_replay() -> None:
    world, _ = listening(ALL, opts=REPLAY)
    world.link_lost()
    world.advance(600.0)
    world.link_up()
    world.advance(10.0)
    world.advance(1.0)
    starts = {
        message.payload["config"]["broadcast"]["replay"]["since"]
        for message in world.frames("phx_join")[1:]
    }
    assert starts == {int((EPOCH + START - 30.0) * 1000)}
    assert len(world.frames("phx_join")) == 3


# -- database changes --------------------------------------------------------------------


@pytest.mark.conformance("CP16")
def test_a_change_reaches_the_bindings_of_its_server_ids() -> None:
    world, channel = listening(TODOS, (ListenType.POSTGRES_CHANGES, {**CHANGES, "table": "x"}))
    world.receive(channel.topic, "postgres_changes", raw({"ids": [100], "data": INSERT}))
    (event,) = world.told
    assert (event.ids, PostgresChange(event.payload, "js").new) == ((1,), {"id": 7})


@pytest.mark.conformance("CP17")
def test_a_change_for_foreign_ids_is_not_told() -> None:
    world, channel = listening(TODOS)
    world.receive(channel.topic, "postgres_changes", raw({"ids": [7], "data": INSERT}))
    assert world.told == []


@pytest.mark.parametrize(
    "payload",
    [None, {}, {"ids": [100]}, {"ids": 100, "data": INSERT}, {"ids": [[1]], "data": INSERT}],
)
def test_a_change_that_cannot_be_read_raises_and_nothing_is_told(payload: Any) -> None:
    world, channel = listening(TODOS)
    with pytest.raises(DecodeError):
        world.receive(channel.topic, "postgres_changes", raw(payload))
    assert world.told == []


# -- presence ----------------------------------------------------------------------------


def metas(*refs: str) -> dict[str, Any]:
    return {"metas": [{"phx_ref": ref, "name": ref} for ref in refs]}


@pytest.mark.conformance("PP11")
def test_presence_is_told_as_join_leave_and_sync() -> None:
    world, channel = listening(PRESENCE)
    world.receive(channel.topic, "presence_state", raw({"ann": metas("1")}))
    world.receive(channel.topic, "presence_diff", raw({"joins": {"bob": metas("2")}, "leaves": {}}))
    world.receive(channel.topic, "presence_diff", raw({"joins": {}, "leaves": {"ann": metas("1")}}))
    assert all(type(event) is PresenceDelivered for event in world.told)
    told = [event.payload for event in world.told]
    assert [payload.event for payload in told] == ["join", "sync"] * 2 + ["leave", "sync"]
    assert [told[0].key, told[2].key, told[4].key] == ["ann", "bob", "ann"]
    assert told[0].new_presences == [{"presence_ref": "1", "name": "1"}]
    assert told[4].left_presences == [{"presence_ref": "1", "name": "1"}]
    assert list(channel.inbound.presence.list()) == ["bob"]


def test_the_state_shown_with_an_event_belongs_to_it() -> None:
    world, channel = listening(PRESENCE)
    world.receive(channel.topic, "presence_state", raw({"ann": metas("1")}))
    assert [list(event.state.list()) for event in world.told] == [[], ["ann"]]


def test_presence_is_kept_for_who_asks_though_nobody_listens() -> None:
    world, channel = listening()
    world.receive(channel.topic, "presence_state", raw({"ann": metas("1")}))
    assert world.told == []
    assert list(channel.inbound.presence.list()) == ["ann"]


def test_differences_of_a_new_join_wait_for_its_state() -> None:
    world, channel = listening(PRESENCE)
    world.receive(channel.topic, "presence_state", raw({"ann": metas("1")}))
    world.flap()
    world.accept(channel)
    world.told.clear()
    diff = {"joins": {"bob": metas("2")}, "leaves": {}}
    world.receive(channel.topic, "presence_diff", raw(diff))
    assert world.told == []
    assert list(channel.inbound.presence.list()) == ["ann"]
    world.receive(channel.topic, "presence_state", raw({"ann": metas("1")}))
    assert [event.payload.event for event in world.told] == ["join", "sync"]


@pytest.mark.parametrize("event", ["presence_state", "presence_diff"])
def test_presence_that_cannot_be_read_raises_and_changes_nothing(event: str) -> None:
    world, channel = listening(PRESENCE)
    with pytest.raises(DecodeError):
        world.receive(channel.topic, event, raw({"joins": 7}))
    assert world.told == []


# -- system ------------------------------------------------------------------------------


def test_a_system_message_reaches_every_system_binding() -> None:
    world, channel = listening(SYSTEM, SYSTEM)
    world.system(channel, "Replication connection established", "ok")
    (event,) = world.told
    assert event.ids == (1, 2)
    assert event.payload.message == "Replication connection established"


def test_the_channel_is_ready_when_the_server_says_that_changes_flow() -> None:
    world, channel = listening(TODOS)
    before = channel.inbound.ready
    world.system(channel, "Subscribed to PostgreSQL", "ok", "postgres_changes")
    assert (before, channel.inbound.ready) == (False, True)
    assert world.told == [ReadyChanged(channel)]


def test_a_database_error_is_reported_with_its_remedy_and_the_channel_stays_joined() -> None:
    text = 'Unable to subscribe to changes with given parameters: "x"'
    world, channel = listening(TODOS, SYSTEM)
    world.system(channel, text, "error", "postgres_changes")
    reported, ready, delivered = world.told
    assert isinstance(reported, ErrorReported)
    assert isinstance(reported.error, SubscribeError)
    assert reported.error.hint
    assert ready == ReadyChanged(channel, reported.error)
    assert isinstance(delivered, Delivered)
    assert channel.inbound.ready_error is reported.error
    assert channel.state == "joined"
    assert world.context.last_system_error == text
    assert channel.inbound.system_error is None


def test_a_database_error_is_over_when_changes_flow() -> None:
    world, channel = listening(TODOS)
    world.system(channel, "no", "error", "postgres_changes")
    world.system(channel, "Subscribed to PostgreSQL", "ok", "postgres_changes")
    assert channel.inbound.ready
    assert channel.inbound.ready_error is None


def test_after_a_loss_changes_do_not_flow_until_the_server_says_so_again() -> None:
    world, channel = listening(TODOS)
    world.system(channel, "Subscribed to PostgreSQL", "ok", "postgres_changes")
    ready = [channel.inbound.ready]
    world.flap()
    ready.append(channel.inbound.ready)
    world.accept(channel)
    ready.append(channel.inbound.ready)
    assert ready == [True, False, False]


def test_a_system_error_is_kept_as_the_cause_of_a_close_that_may_follow() -> None:
    world, channel = listening()
    world.system(channel, "Too many messages per second")
    assert channel.inbound.system_error == "Too many messages per second"
    assert world.context.last_system_error == "Too many messages per second"


def test_a_system_message_that_cannot_be_read_raises_and_nothing_is_told() -> None:
    world, channel = listening(SYSTEM)
    with pytest.raises(DecodeError):
        world.receive(channel.topic, "system", raw([1]))
    assert world.told == []
