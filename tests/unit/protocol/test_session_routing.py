"""The receiver of a frame: which frames are stale, and which channel has a topic."""

from __future__ import annotations

from typing import Any

import pytest

from supabase_rt._protocol.channel.channel_machine import ChannelMachine
from supabase_rt._protocol.channel_options import ChannelConfig
from supabase_rt._protocol.events import Delivered, HeartbeatReported, IdleReached
from supabase_rt._wire.envelope import Message
from supabase_rt.enums import ListenType
from supabase_rt.errors import DecodeError

from .support import CHANNEL_ERROR, CLOSED, SUBSCRIBED, World, opened


def listening(world: World, topic: str = "realtime:room") -> ChannelMachine:
    """A joined channel that takes every broadcast."""
    channel = world.channel(topic)
    channel.bindings.add(ListenType.BROADCAST, {"event": "*"})
    world.subscribe(channel)
    world.accept(channel)
    return channel


# -- what is stale -----------------------------------------------------------------------


@pytest.mark.conformance("CE20", "PS65")
@pytest.mark.parametrize(
    ("topic", "join_ref", "arrives"),
    [
        ("realtime:room", None, True),
        ("realtime:room", "mine", True),
        ("realtime:room", "999", False),
        ("realtime:other", None, False),
        ("realtime:Room", None, False),
    ],
    ids=["no join_ref", "the present one", "an older one", "another topic", "another case"],
)
def test_a_frame_reaches_the_bindings_of_the_present_join_only(
    topic: str, join_ref: str | None, arrives: bool
) -> None:
    world = opened()
    channel = listening(world)
    ref = channel.join_ref if join_ref == "mine" else join_ref
    world.receive(topic, "broadcast", {"type": "broadcast", "event": "x"}, join_ref=ref)
    assert len(world.delivered(channel)) == arrives
    counters = world.context.counters
    assert counters.stale + counters.unknown == (not arrives)


def test_a_frame_without_a_join_ref_is_dropped_while_a_join_is_unanswered() -> None:
    world = opened()
    channel = listening(world)
    world.flap()
    world.broadcast(channel)
    assert world.delivered(channel) == []
    assert world.context.counters.stale == 1
    world.accept(channel)
    world.broadcast(channel)
    assert len(world.delivered(channel)) == 1


@pytest.mark.conformance("CE21")
@pytest.mark.parametrize("event", ["phx_close", "phx_error"])
@pytest.mark.parametrize(
    ("join_ref", "ref", "ends"),
    [
        ("mine", "mine", True),
        (None, "mine", True),
        ("mine", None, True),
        (None, None, True),
        ("999", "999", False),
        (None, "999", False),
        ("999", None, False),
        ("mine", "999", False),
        ("999", "mine", False),
    ],
)
def test_an_end_by_the_server_must_name_the_present_join_where_it_names_one(
    event: str, join_ref: str | None, ref: str | None, ends: bool
) -> None:
    world = opened()
    channel = world.joined()
    mine = {"mine": channel.join_ref, "999": "999", None: None}
    world.receive(channel.topic, event, {}, join_ref=mine[join_ref], ref=mine[ref])
    assert (channel.state == "errored") is ends
    assert world.context.counters.stale == (not ends)


@pytest.mark.parametrize("event", ["phx_close", "phx_error"])
def test_an_end_without_any_ref_is_dropped_while_a_join_is_unanswered(event: str) -> None:
    """In vsn 1.0.0 it may be the end of the earlier join."""
    world = opened()
    channel = world.joining()
    world.receive(channel.topic, event, {})
    assert channel.state == "joining"
    world.receive("realtime:unknown", event, {})
    assert world.context.counters.stale == 2


def test_an_end_that_names_an_unanswered_join_ends_it() -> None:
    world = opened()
    channel = world.joining()
    world.crash(channel)
    assert world.statuses(channel) == [CHANNEL_ERROR]
    assert world.client_machine.pending_replies == 0


def test_a_reply_of_an_older_link_meets_nothing() -> None:
    world = opened()
    channel = world.joining()
    older = world.last_join(channel)
    world.flap()
    world.reply(older, "error", {"reason": "no"})
    assert (channel.state, world.context.counters.stale) == ("joining", 1)
    assert world.last_join(channel).ref != older.ref


@pytest.mark.parametrize("event", ["shout", "phx_join", "access_token"])
def test_an_unknown_event_is_counted_and_nothing_else(event: str) -> None:
    world = opened()
    world.joined()
    world.told.clear()
    world.receive("realtime:room", event, {})
    assert (world.told, world.context.counters.unknown) == ([], 1)


@pytest.mark.parametrize(
    "payload", [None, [], "ok", {}, {"status": None}, {"status": 7, "response": {}}]
)
def test_a_reply_that_cannot_be_read_raises_and_its_request_still_waits(payload: Any) -> None:
    world = opened()
    channel = world.joining()
    ref = world.last_join(channel).ref
    with pytest.raises(DecodeError):
        world.receive(channel.topic, "phx_reply", payload, ref=str(ref))
    assert world.client_machine.pending_replies == 1
    world.accept(channel)
    assert channel.state == "joined"


def test_what_waits_to_be_told_is_told_before_a_delivery() -> None:
    world = opened()
    channel = listening(world)
    world.client_machine.send_heartbeat(world.now)
    message = Message(None, None, channel.topic, "broadcast", {"event": "x"})
    assert world.client_machine.receive(message, world.now) is None
    world.told.clear()
    world.collect()
    assert [type(event) for event in world.told] == [HeartbeatReported, Delivered]


# -- topics ------------------------------------------------------------------------------


def test_the_topic_is_free_from_the_moment_of_leaving() -> None:
    world = opened()
    older = world.joined()
    world.unsubscribe(older)
    assert world.client_machine.channels == {}
    newer = listening(world)
    events = [message.event for message in world.written]
    assert events == ["phx_join", "phx_leave", "phx_join"]
    world.receive(older.topic, "broadcast", {"event": "x"}, join_ref=older.join_ref)
    assert world.delivered(newer) == []
    world.close(older)
    assert (older.state, newer.state) == ("closed", "joined")
    assert world.statuses(older) == [SUBSCRIBED, CLOSED]
    assert world.client_machine.channels == {newer.topic: newer}


def test_ten_times_the_same_topic_left_and_joined_again_in_a_row() -> None:
    world = opened()
    channels, outcomes = [world.joined()], []
    for _ in range(10):
        outcomes.append(world.unsubscribe(channels[-1]))
        channels.append(world.joining())
    events = [message.event for message in world.written]
    assert events == ["phx_join"] + ["phx_leave", "phx_join"] * 10
    leaves = world.frames("phx_leave")
    assert [leave.join_ref for leave in leaves] == [
        message.ref for message in world.frames("phx_join")[:-1]
    ]
    for leave in leaves:
        world.reply(leave)
        ref = str(leave.join_ref)
        world.receive(leave.topic, "phx_close", {}, join_ref=ref, ref=ref)
    world.accept(channels[-1])
    assert world.ended == dict.fromkeys(outcomes, "ok")
    assert [channel.state for channel in channels] == ["closed"] * 10 + ["joined"]
    assert world.client_machine.channels == {channels[-1].topic: channels[-1]}
    assert world.context.counters.stale == 0


@pytest.mark.conformance("PC12")
def test_a_channel_made_by_hand_makes_the_one_on_its_topic_leave_first() -> None:
    """As in supabase-js: the server has one channel for a topic on each socket."""
    world = opened()
    older = world.joined()
    topic = older.topic
    newer = ChannelMachine(topic, ChannelConfig.build(None, topic), world.context)
    world.subscribe(newer)
    assert [message.event for message in world.written] == ["phx_join", "phx_leave", "phx_join"]
    assert (older.state, world.client_machine.channels) == ("leaving", {topic: newer})


def test_a_channel_made_by_hand_enters_the_registry_when_it_is_subscribed() -> None:
    world = opened(idle_after=5.0)
    world.unsubscribe(world.channel())
    channel = ChannelMachine("realtime:hand", ChannelConfig.build(None, ""), world.context)
    world.subscribe(channel)
    world.advance(6.0)
    assert world.client_machine.channels == {"realtime:hand": channel}
    assert IdleReached() not in world.told


def test_a_teardown_of_an_older_channel_leaves_the_newer_one_alone() -> None:
    world = opened()
    older = world.joined()
    world.unsubscribe(older)
    newer = world.joining()
    world.teardown(older)
    world.unsubscribe(older)
    assert world.client_machine.channels == {newer.topic: newer}
    world.accept(newer)
    assert newer.state == "joined"
