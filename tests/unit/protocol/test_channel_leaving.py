"""A channel that is left, and its requests before that."""

from __future__ import annotations

import pytest

from supabase_rt._protocol.events import ChannelRemoved, RequestEnded
from supabase_rt._protocol.reconnect_policy import ReconnectPolicy
from supabase_rt.enums import ListenType
from supabase_rt.errors import BindingMismatch, GaveUp, InvalidState

from .support import (
    CHANGES,
    CHANNEL_ERROR,
    CLOSED,
    DATABASE_DOWN,
    PRIVATE_ONLY,
    SUBSCRIBED,
    World,
    joins,
    opened,
)

# -- leaving -----------------------------------------------------------------------------


@pytest.mark.conformance("PU8", "PU10", "PC65", "PC67", "realtime.channel.unsubscribe")
def test_leaving_waits_for_the_server_and_is_told_once() -> None:
    world = opened()
    channel = world.joined()
    outcome = world.unsubscribe(channel)
    leave = world.written[-1]
    assert (leave.event, leave.join_ref, leave.payload) == ("phx_leave", channel.join_ref, {})
    assert (channel.state, world.ended) == ("leaving", {})
    world.reply(leave)
    assert world.ended == {outcome: "ok"}
    assert world.statuses(channel) == [SUBSCRIBED, CLOSED]
    world.receive(channel.topic, "phx_close", {}, join_ref=leave.join_ref, ref=leave.join_ref)
    assert (channel.state, world.statuses(channel)) == ("closed", [SUBSCRIBED, CLOSED])


def test_closed_is_told_before_the_call_ends() -> None:
    world = opened()
    channel = world.joined()
    world.unsubscribe(channel)
    world.told.clear()
    world.reply(world.written[-1])
    kinds = [type(event).__name__ for event in world.told]
    assert kinds == ["ChannelRemoved", "StatusChanged", "RequestEnded"]


@pytest.mark.conformance("CC11", "PU13")
@pytest.mark.parametrize(
    ("how", "result"),
    [("close", "ok"), ("error", "error"), ("timeout", "timed out"), ("link", "ok")],
)
def test_every_answer_to_a_leave_ends_it(how: str, result: str) -> None:
    world = opened()
    channel = world.joined()
    outcome = world.unsubscribe(channel, timeout=3.0)
    if how == "close":
        world.close(channel)
    elif how == "error":
        world.reply(world.written[-1], "error")
    elif how == "timeout":
        world.advance(3.0)
    else:
        world.link_lost()
    assert (world.ended, world.statuses(channel)) == ({outcome: result}, [SUBSCRIBED, CLOSED])


def test_leaving_twice_writes_one_leave_and_ends_both_calls() -> None:
    world = opened()
    channel = world.joined()
    outcomes = [world.unsubscribe(channel), world.unsubscribe(channel)]
    (leave,) = world.frames("phx_leave")
    world.reply(leave)
    outcomes.append(world.unsubscribe(channel))
    assert world.ended == dict.fromkeys(outcomes, "ok")
    assert world.statuses(channel) == [SUBSCRIBED, CLOSED]


def test_a_channel_whose_join_is_unanswered_leaves_with_that_joins_ref() -> None:
    world = opened()
    channel = world.joining()
    world.unsubscribe(channel)
    join, leave = world.written
    assert leave.join_ref == join.ref
    world.reply(join, "ok", {"postgres_changes": []})
    assert channel.state == "leaving"
    world.reply(leave)
    world.advance(60.0)
    assert world.statuses(channel) == [CLOSED]
    assert joins(world) == 1


def test_a_refusal_that_comes_while_leaving_changes_nothing() -> None:
    world = opened()
    channel = world.joining()
    world.unsubscribe(channel)
    world.refuse(channel, DATABASE_DOWN)
    assert (channel.state, world.statuses(channel)) == ("leaving", [])


@pytest.mark.parametrize(
    "before", ["no link", "never subscribed", "errored", "waiting for a token", "resting"]
)
def test_a_channel_that_the_server_does_not_know_is_left_at_once(before: str) -> None:
    world = World(token_source=before == "waiting for a token")
    if before != "no link":
        world.open()
    channel = world.channel()
    if before != "never subscribed":
        world.subscribe(channel)
    if before in ("errored", "resting"):
        world.refuse(channel, PRIVATE_ONLY if before == "resting" else DATABASE_DOWN)
    told = len(world.statuses(channel))
    outcome = world.unsubscribe(channel)
    assert world.ended == {outcome: "ok"}
    assert world.frames("phx_leave") == []
    assert world.statuses(channel)[told:] == ([] if before == "never subscribed" else [CLOSED])
    world.flap() if world.context.is_open else world.open()
    world.token_arrived()
    world.advance(60.0)
    assert joins(world) == (1 if before in ("errored", "resting") else 0)


def test_a_channel_that_is_leaving_cannot_be_subscribed_again() -> None:
    """Otherwise it would take its topic back from the channel that has it now."""
    world = opened()
    channel = world.joined()
    world.unsubscribe(channel)
    newer = world.joining()
    with pytest.raises(InvalidState, match="tried to join multiple times"):
        world.subscribe(channel)
    assert world.client_machine.channels == {newer.topic: newer}


def test_frames_of_a_channel_that_is_leaving_reach_nobody() -> None:
    world = opened()
    channel = world.channel()
    channel.bindings.add(ListenType.BROADCAST, {"event": "*"})
    world.subscribe(channel)
    world.accept(channel)
    world.unsubscribe(channel)
    world.broadcast(channel)
    world.crash(channel)
    assert world.delivered(channel) == []
    assert (channel.state, world.statuses(channel)) == ("leaving", [SUBSCRIBED])


def test_a_teardown_is_closed_at_once_without_a_word_to_the_server() -> None:
    world = opened()
    channel = world.joined()
    pushed = world.push(channel)
    world.take_written()
    world.teardown(channel)
    world.teardown(channel)
    assert (world.take_written(), world.statuses(channel)) == ([], [SUBSCRIBED, CLOSED])
    assert world.ended == {pushed: "error"}
    assert world.client_machine.channels == {}


def test_a_teardown_while_leaving_ends_the_leaving() -> None:
    world = opened()
    channel = world.joined()
    outcome = world.unsubscribe(channel)
    world.teardown(channel)
    assert world.ended == {outcome: "ok"}
    assert world.statuses(channel) == [SUBSCRIBED, CLOSED]
    assert world.client_machine.pending_replies == 0


def test_a_teardown_while_joining_forgets_the_join() -> None:
    world = opened()
    channel = world.joining()
    world.teardown(channel)
    assert (world.client_machine.pending_replies, world.statuses(channel)) == (0, [CLOSED])


def test_a_client_that_gives_up_closes_the_channel_with_the_reason() -> None:
    world = opened(policy=ReconnectPolicy.disabled())
    channel, idle = world.joined(), world.channel("realtime:idle")
    pushed = world.push(channel)
    world.link_lost()
    assert world.statuses(channel) == [SUBSCRIBED, CHANNEL_ERROR, CLOSED]
    assert isinstance(world.last_error(channel), GaveUp)
    assert (channel.state, world.ended) == ("closed", {pushed: "error"})
    assert (idle.state, world.client_machine.channels) == ("closed", {idle.topic: idle})


def test_removal_is_told_once() -> None:
    world = opened()
    channel = world.joined()
    world.unsubscribe(channel)
    world.teardown(channel)
    world.teardown(channel)
    assert world.take_told(ChannelRemoved) == [ChannelRemoved(channel)]


# -- another set of bindings -------------------------------------------------------------


@pytest.mark.conformance("CL16")
def test_a_mismatch_is_closed_then_channel_error_and_the_channel_is_gone() -> None:
    world = opened()
    channel = world.channel()
    channel.bindings.add(ListenType.POSTGRES_CHANGES, CHANGES)
    world.subscribe(channel)
    join = world.last_join(channel)
    pushed = world.push(channel)
    world.reply(join, "ok", {"postgres_changes": []})
    assert world.statuses(channel) == [CLOSED, CHANNEL_ERROR]
    assert isinstance(world.last_error(channel), BindingMismatch)
    assert (channel.state, channel.final_error) == ("errored", world.last_error(channel))
    assert world.client_machine.channels == {}
    assert (world.written[-1].event, world.written[-1].join_ref) == ("phx_leave", join.ref)
    assert world.ended == {pushed: "error"}
    world.receive(channel.topic, "phx_close", {}, join_ref=channel.join_ref)
    world.flap()
    world.advance(100.0)
    assert (joins(world), len(world.statuses(channel))) == (1, 2)


def test_a_channel_with_a_mismatch_cannot_be_subscribed_again_but_its_topic_is_free() -> None:
    world = opened()
    channel = world.channel()
    channel.bindings.add(ListenType.POSTGRES_CHANGES, CHANGES)
    world.subscribe(channel)
    world.reply(world.last_join(channel), "ok", {"postgres_changes": []})
    with pytest.raises(InvalidState):
        world.subscribe(channel)
    outcome = world.unsubscribe(channel)
    assert world.ended[outcome] == "ok"
    assert world.statuses(channel) == [CLOSED, CHANNEL_ERROR]
    assert world.joined().state == "joined"


# -- requests ----------------------------------------------------------------------------


@pytest.mark.conformance("PU7", "AD1", "PC63")
def test_a_request_before_subscribing_raises_as_in_supabase_js() -> None:
    world = opened()
    channel = world.channel()
    with pytest.raises(InvalidState, match="tried to push 'custom' to 'realtime:room' before"):
        world.push(channel)
    assert world.written == []


def test_a_request_on_a_closed_channel_raises_and_nothing_is_written() -> None:
    world = opened()
    channel = world.joined()
    world.teardown(channel)
    world.take_written()
    for call in (world.push, world.untrack):
        with pytest.raises(InvalidState):
            call(channel)
    assert world.take_written() == []


@pytest.mark.conformance("PU1", "PU6", "PU17", "PU19", "PC22", "PC57")
@pytest.mark.parametrize(("status", "result"), [("ok", "ok"), ("error", "error"), ("x", "error")])
def test_a_request_ends_with_its_reply(status: str, result: str) -> None:
    world = opened()
    channel = world.joined()
    outcome = world.push(channel)
    request = world.written[-1]
    assert request.join_ref == channel.join_ref
    world.reply(request, status, {"n": 1})
    world.reply(request, status, {"n": 1})
    world.advance(20.0)
    (ended,) = [event for event in world.told if isinstance(event, RequestEnded)]
    assert (ended.outcome, ended.result, ended.response) == (outcome, result, {"n": 1})


@pytest.mark.conformance("PU5", "PC61")
def test_a_request_without_a_reply_times_out_after_its_own_time() -> None:
    world = opened()
    channel = world.joined()
    quick, slow = world.push(channel, timeout=1.0), world.push(channel, timeout=5.0)
    world.advance(1.0)
    assert world.ended == {quick: "timed out"}
    world.advance(4.0)
    assert world.ended == {quick: "timed out", slow: "timed out"}


@pytest.mark.conformance("PU2", "CE18", "PC25", "PC58")
def test_requests_made_while_joining_go_out_after_the_join_in_their_order() -> None:
    world = opened()
    channel = world.joining()
    for name in "abc":
        world.push(channel, name)
    assert [message.event for message in world.written] == ["phx_join"]
    world.accept(channel)
    assert [message.event for message in world.written] == ["phx_join", "a", "b", "c"]
    assert {message.join_ref for message in world.written} == {channel.join_ref}


def test_a_request_whose_time_ran_out_while_it_waited_is_never_written() -> None:
    world = opened()
    channel = world.joining()
    outcome = world.push(channel, timeout=1.0)
    kept = world.push(channel, "kept")
    world.advance(1.0)
    assert world.ended == {outcome: "timed out"}
    world.accept(channel)
    assert [message.event for message in world.written] == ["phx_join", "kept"]
    world.reply(world.written[-1])
    assert world.ended[kept] == "ok"


@pytest.mark.conformance("CE17", "CE18", "CE19", "AD3")
def test_the_oldest_of_150_waiting_requests_fall_out_with_an_error() -> None:
    world = opened()
    channel = world.joined()
    world.link_lost()
    outcomes = [world.push(channel, str(count)) for count in range(150)]
    assert world.ended == dict.fromkeys(outcomes[:50], "error")
    world.link_up()
    world.accept(channel)
    sent = [message.event for message in world.written if message.event.isdigit()]
    assert sent == [str(count) for count in range(50, 150)]


def test_a_request_written_before_the_link_was_lost_ends_with_an_error() -> None:
    world = opened()
    channel = world.joined()
    outcome = world.push(channel)
    world.flap()
    world.accept(channel)
    assert world.ended == {outcome: "error"}
    assert len(world.frames("custom")) == 1


@pytest.mark.parametrize("how", ["crash", "close"])
def test_a_request_written_before_the_channel_was_lost_ends_with_an_error(how: str) -> None:
    world = opened()
    channel, other = world.joined(), world.joined("realtime:other")
    outcome, untouched = world.push(channel), world.push(other)
    getattr(world, how)(channel)
    assert world.ended == {outcome: "error"}
    assert untouched not in world.ended


def test_leaving_ends_all_requests_of_the_channel() -> None:
    world = opened()
    channel = world.joined()
    written = world.push(channel)
    outcome = world.unsubscribe(channel)
    waiting = world.push(channel)
    world.reply(world.frames("phx_leave")[-1])
    assert world.ended == {written: "error", waiting: "error", outcome: "ok"}


def test_a_refused_track_ends_with_an_error_and_is_not_repeated() -> None:
    world = opened()
    channel = world.joined()
    outcome = world.track(channel, {"user": "ann"})
    world.reply(world.written[-1], "error")
    world.flap()
    world.accept(channel)
    assert (world.ended, len(world.frames("presence"))) == ({outcome: "error"}, 1)


def test_a_track_that_waits_for_its_turn_is_sent_when_it_comes() -> None:
    world = opened(presence_limit=(1, 30.0))
    channel = world.joined()
    world.track(channel, {"n": 1})
    world.track(channel, {"n": 2})
    world.advance(30.0)
    assert len(world.frames("presence")) == 2


def test_a_cast_expects_no_reply_and_settles_when_it_is_written() -> None:
    world = opened()
    channel = world.joined()
    channel.cast("broadcast", {"event": "x"}, "settles")
    world.collect()
    sent = world.written[-1]
    assert (sent.event, sent.join_ref, sent.payload) == (
        "broadcast",
        channel.join_ref,
        {"event": "x"},
    )
    assert world.written_outcomes[-1] == "settles"
    assert world.client_machine.pending_replies == 0


@pytest.mark.conformance("PU24", "PU25", "PC49", "PC50")
@pytest.mark.parametrize(
    ("joined", "link", "can"),
    [(True, True, True), (True, False, False), (False, True, False), (False, False, False)],
)
def test_only_a_joined_channel_on_an_open_link_can_push(
    joined: bool, link: bool, can: bool
) -> None:
    world = opened()
    channel = world.joined() if joined else world.joining()
    if not link:
        world.link_lost()
    assert channel.can_push is can


# -- over --------------------------------------------------------------------------------


def test_a_closed_channel_cannot_be_subscribed_again() -> None:
    world = opened()
    channel = world.joined()
    world.teardown(channel)
    with pytest.raises(InvalidState, match="tried to join multiple times") as raised:
        world.subscribe(channel)
    assert "client.channel('room')" in raised.value.hint
    assert channel.state == "closed"
