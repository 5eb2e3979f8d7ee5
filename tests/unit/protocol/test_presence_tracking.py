from __future__ import annotations

from typing import Any

import msgspec
import pytest

from supabase_rt._protocol.channel.channel_machine import ChannelMachine

from .support import World

ME = {"user": "ann"}
YOU = {"user": "bob"}
TOO_LARGE = "Track message size exceeded"


def joined(**options: Any) -> tuple[World, ChannelMachine]:
    world = World(**options)
    world.open()
    channel = world.joined()
    world.take_written()
    return world, channel


def calls(world: World) -> list[Any]:
    """Returns the presence calls to the server: tracked payloads, None for an untrack."""
    return [message.payload.get("payload") for message in world.frames("presence")]


def answer(world: World, status: str = "ok") -> None:
    world.reply(world.frames("presence")[-1], status)


# -- one call ----------------------------------------------------------------------------


@pytest.mark.conformance("CR10", "CR11")
def test_track_and_untrack_are_sent_and_end_with_the_reply() -> None:
    world, channel = joined()
    tracked = world.track(channel, ME)
    assert world.written[-1].payload == {"type": "presence", "event": "track", "payload": ME}
    assert world.ended == {}
    answer(world)
    untracked = world.untrack(channel)
    assert world.written[-1].payload == {"type": "presence", "event": "untrack"}
    answer(world)
    assert world.ended == {tracked: "ok", untracked: "ok"}


@pytest.mark.conformance("CR12")
def test_a_call_carries_the_join_ref_and_its_own_timeout() -> None:
    world, channel = joined()
    tracked = world.track(channel, ME, timeout=3.0)
    assert world.written[-1].join_ref == channel.join_ref
    world.advance(2.9)
    assert world.ended == {}
    world.advance(0.1)
    assert world.ended == {tracked: "timed out"}


def test_an_identical_track_within_one_join_is_ok_without_a_frame() -> None:
    world, channel = joined()
    world.track(channel, ME)
    answer(world)
    again = world.track(channel, dict(ME))
    assert calls(world) == [ME]
    assert world.ended[again] == "ok"


def test_a_track_is_identical_in_whatever_order_its_keys_stand() -> None:
    world, channel = joined()
    first = msgspec.Raw(b'{"a":1,"b":[{"c":1,"d":2}]}')
    world.track(channel, first)
    answer(world)
    again = world.track(channel, msgspec.Raw(b'{"b":[{"d":2,"c":1}],"a":1}'))
    assert calls(world) == [first]
    assert world.ended[again] == "ok"
    other = msgspec.Raw(b'{"a":true,"b":[{"c":1,"d":2}]}')
    world.track(channel, other)
    assert calls(world) == [first, other]


def test_a_payload_too_deep_to_be_compared_is_sent_again() -> None:
    world, channel = joined()
    deep = msgspec.Raw(b"[" * 10_000 + b"]" * 10_000)
    for _ in range(2):
        world.track(channel, deep)
        answer(world)
    assert calls(world) == [deep, deep]


@pytest.mark.parametrize("status", ["error", "timed out"])
def test_after_a_failed_track_the_same_payload_is_sent_again(status: str) -> None:
    world, channel = joined()
    world.track(channel, ME)
    if status == "error":
        answer(world, "error")
    else:
        world.advance(10.0)
    world.track(channel, ME)
    assert calls(world) == [ME, ME]


def test_the_same_payload_is_sent_again_after_an_untrack() -> None:
    world, channel = joined()
    for _ in range(2):
        world.track(channel, ME)
        answer(world)
        world.untrack(channel)
        answer(world)
    assert calls(world) == [ME, None, ME, None]


def test_the_failure_of_an_older_call_does_not_forget_a_newer_one() -> None:
    world, channel = joined()
    world.track(channel, ME)
    first = world.written[-1]
    world.track(channel, YOU)
    answer(world)
    world.reply(first, "error")
    world.track(channel, YOU)
    assert calls(world) == [ME, YOU]


# -- the limit ---------------------------------------------------------------------------


def test_calls_beyond_the_limit_wait_and_the_latest_wins() -> None:
    """The sixth call within 30 s would make the server close the channel."""
    world, channel = joined()
    outcomes = [world.track(channel, {"n": count}) for count in range(20)]
    assert calls(world) == [{"n": count} for count in range(5)]
    world.advance(29.9)
    assert len(calls(world)) == 5
    world.advance(0.1)
    assert calls(world)[5:] == [{"n": 19}]
    answer(world)
    assert {world.ended[outcome] for outcome in outcomes[5:]} == {"ok"}


def test_no_window_of_the_server_ever_holds_more_calls_than_the_limit() -> None:
    world, channel = joined(presence_limit=(5, 30.0))
    times = list[float]()
    for count in range(400):
        world.track(channel, {"n": count})
        for _ in range(7):
            times += [world.now] * world.take_written().count("presence")
            world.advance(0.1)
    assert all(later - earlier > 29.8 for earlier, later in zip(times, times[5:], strict=False))
    assert len(times) == pytest.approx(400 * 0.7 / 30 * 5, abs=6)


def test_the_result_of_the_latest_is_the_result_of_those_it_overtook() -> None:
    world, channel = joined(presence_limit=(1, 30.0))
    world.track(channel, {"n": 0})
    answer(world)
    waiting = [world.track(channel, {"n": count}) for count in (1, 2, 3)]
    world.advance(30.0)
    answer(world, "error")
    assert [world.ended[outcome] for outcome in waiting] == ["error"] * 3


def test_an_identical_track_waits_behind_one_that_waits() -> None:
    world, channel = joined(presence_limit=(1, 30.0))
    world.track(channel, ME)
    answer(world)
    world.track(channel, YOU)
    world.track(channel, ME)
    world.advance(30.0)
    assert calls(world) == [ME, ME]


def test_an_untrack_beyond_the_limit_wins_over_waiting_tracks() -> None:
    world, channel = joined(presence_limit=(1, 30.0))
    world.track(channel, ME)
    world.track(channel, YOU)
    world.untrack(channel)
    world.advance(30.0)
    assert calls(world) == [ME, None]


def test_the_limit_can_be_switched_off() -> None:
    world, channel = joined(presence_limit=None)
    for count in range(50):
        world.track(channel, {"n": count})
    assert len(calls(world)) == 50


def test_a_rejoin_opens_a_new_window() -> None:
    """The server counts for each join."""
    world, channel = joined()
    for count in range(6):
        world.track(channel, {"n": count})
    world.crash(channel)
    world.advance(0.5)
    world.accept(channel)
    assert calls(world)[5:] == [{"n": 5}]


# -- before the join ---------------------------------------------------------------------


def test_a_track_before_the_join_is_sent_after_it() -> None:
    world = World()
    world.open()
    channel = world.joining()
    early = world.track(channel, ME)
    assert calls(world) == []
    world.accept(channel)
    assert calls(world) == [ME]
    answer(world)
    assert world.ended == {early: "ok"}


def test_of_several_tracks_before_the_join_the_latest_is_sent() -> None:
    world = World()
    world.open()
    channel = world.joining()
    outcomes = [world.track(channel, payload) for payload in (ME, YOU)]
    world.accept(channel)
    assert calls(world) == [YOU]
    answer(world)
    assert world.ended == dict.fromkeys(outcomes, "ok")


def test_a_track_that_waited_too_long_for_the_join_times_out_and_is_sent_all_the_same() -> None:
    """The caller gets the timeout, but the payload is still tracked later."""
    world = World()
    channel = world.joining()
    world.connect()
    outcomes = [world.track(channel, ME, timeout=2.0), world.track(channel, YOU, timeout=2.0)]
    world.advance(2.0)
    assert world.ended == dict.fromkeys(outcomes, "timed out")
    world.link_up()
    world.accept(channel)
    assert calls(world) == [YOU]


# -- across joins ------------------------------------------------------------------------


def test_the_last_payload_is_tracked_again_after_a_rejoin() -> None:
    world, channel = joined()
    world.track(channel, YOU)
    answer(world)
    world.track(channel, ME)
    answer(world)
    world.flap()
    world.accept(channel)
    assert calls(world) == [YOU, ME, ME]
    assert world.written[-1].join_ref == channel.join_ref
    answer(world)
    world.flap()
    world.accept(channel)
    assert calls(world)[3:] == [ME]


def test_an_identical_track_after_the_rejoin_needs_no_frame() -> None:
    world, channel = joined()
    world.track(channel, ME)
    answer(world)
    world.flap()
    world.accept(channel)
    again = world.track(channel, ME)
    assert calls(world) == [ME, ME]
    assert world.ended[again] == "ok"


def test_nothing_is_tracked_again_after_an_untrack() -> None:
    world, channel = joined()
    world.track(channel, ME)
    world.untrack(channel)
    world.flap()
    world.accept(channel)
    assert calls(world) == [ME, None]


def test_an_untrack_while_the_channel_is_lost_wins_over_the_last_track() -> None:
    world, channel = joined()
    world.track(channel, ME)
    world.link_lost()
    world.untrack(channel, timeout=1.0)
    world.advance(1.0)
    world.link_up()
    world.accept(channel)
    assert calls(world) == [ME]


def test_a_track_while_the_channel_is_lost_wins_over_the_last_one() -> None:
    world, channel = joined()
    world.track(channel, ME)
    world.link_lost()
    newer = world.track(channel, YOU)
    world.link_up()
    world.accept(channel)
    assert calls(world) == [ME, YOU]
    answer(world)
    assert world.ended[newer] == "ok"


def test_a_track_whose_link_is_lost_ends_with_an_error_and_is_tracked_again() -> None:
    world, channel = joined()
    outcome = world.track(channel, ME)
    world.link_lost()
    assert world.ended == {outcome: "error"}
    world.link_up()
    world.accept(channel)
    assert calls(world) == [ME, ME]


def test_a_track_that_waits_for_the_limit_survives_the_loss() -> None:
    world, channel = joined(presence_limit=(1, 30.0))
    world.track(channel, ME)
    waiting = world.track(channel, YOU)
    world.flap()
    world.accept(channel)
    assert calls(world) == [ME, YOU]
    answer(world)
    assert world.ended[waiting] == "ok"


def test_a_track_that_waits_for_the_limit_waits_for_the_rejoin_when_the_link_is_lost() -> None:
    world, channel = joined(presence_limit=(1, 1.0))
    world.track(channel, ME)
    answer(world)
    waiting = world.track(channel, YOU, timeout=10.0)
    world.link_lost()
    world.advance(9.0)
    assert waiting not in world.ended
    world.link_up()
    world.accept(channel)
    assert calls(world) == [ME, YOU]
    answer(world)
    assert world.ended[waiting] == "ok"


@pytest.mark.parametrize("waits_for", ["the limit", "the rejoin"])
def test_a_track_that_waits_ends_when_the_user_disconnects_and_is_sent_when_he_comes_back(
    waits_for: str,
) -> None:
    world, channel = joined(presence_limit=(1, 30.0))
    world.track(channel, ME)
    answer(world)
    if waits_for == "the rejoin":
        world.link_lost()
    waiting = world.track(channel, YOU)
    world.disconnect()
    assert world.ended[waiting] == "error"
    late = world.track(channel, YOU)
    world.disconnect()
    assert world.ended[late] == "error"
    assert (channel, "track") not in world.deadlines()
    world.open()
    world.accept(channel)
    assert calls(world) == [ME, YOU]


def test_a_payload_that_the_server_refused_is_not_tracked_again() -> None:
    world, channel = joined()
    world.track(channel, ME)
    answer(world, "error")
    world.flap()
    world.accept(channel)
    assert calls(world) == [ME]


def test_the_refusal_of_an_older_payload_does_not_forget_a_newer_one() -> None:
    world, channel = joined()
    world.track(channel, ME)
    first = world.written[-1]
    world.track(channel, YOU)
    answer(world)
    world.reply(first, "error")
    world.flap()
    world.accept(channel)
    assert calls(world) == [ME, YOU, YOU]


def test_a_payload_too_large_for_the_server_is_not_tracked_again() -> None:
    world, channel = joined()
    world.track(channel, ME)
    world.close(channel, TOO_LARGE)
    world.advance(0.5)
    world.accept(channel)
    assert calls(world) == [ME]


# -- the end -----------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["unsubscribe", "teardown", "give up"])
def test_nobody_is_left_waiting_when_the_channel_is_over(end: str) -> None:
    world, channel = joined(presence_limit=(1, 30.0))
    outcomes = [world.track(channel, {"n": count}) for count in range(4)]
    if end == "unsubscribe":
        world.unsubscribe(channel)
        world.reply(world.frames("phx_leave")[-1])
    elif end == "teardown":
        world.teardown(channel)
    else:
        world.client_machine.give_up(RuntimeError("over"))
        world.collect()
    assert [world.ended[outcome] for outcome in outcomes] == ["error"] * 4
    assert (channel, "track") not in world.deadlines()


def test_a_wish_without_a_caller_ends_without_a_word() -> None:
    world, channel = joined()
    outcome = world.track(channel, ME)
    answer(world)
    world.flap()
    world.accept(channel)
    world.teardown(channel)
    assert world.ended == {outcome: "ok"}
