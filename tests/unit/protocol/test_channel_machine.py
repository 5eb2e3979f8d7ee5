"""One channel: joining, losing, coming back. Closes, tokens, leaving: test_channel_*.py."""

from __future__ import annotations

import pytest

from supabase_rt._protocol.events import ChannelResumed, ErrorReported, GapFound, ReconnectScheduled
from supabase_rt._protocol.reconnect_policy import ReconnectPolicy
from supabase_rt.enums import ListenType
from supabase_rt.errors import InvalidState, Refused

from .support import (
    CHANNEL_ERROR,
    DATABASE_DOWN,
    EPOCH,
    FORBIDDEN,
    MALFORMED,
    PRIVATE_ONLY,
    RATE_LIMITED,
    START,
    SUBSCRIBED,
    TIMED_OUT,
    World,
    joins,
    lost,
    opened,
    refused_connect,
)

# -- joining -----------------------------------------------------------------------------


@pytest.mark.conformance("CL2", "CL4", "CL14", "PC2", "PC10", "realtime.channel.subscribe")
def test_the_join_frame_has_the_topic_its_ref_twice_and_the_config() -> None:
    world = opened()
    channel = world.joining("realtime:room")
    (join,) = world.frames("phx_join")
    assert join.join_ref == join.ref == channel.join_ref
    assert join.topic == "realtime:room"
    assert join.payload == {
        "config": {
            "broadcast": {"ack": False, "self": False},
            "presence": {"key": "", "enabled": False},
            "postgres_changes": [],
            "private": False,
        }
    }


@pytest.mark.conformance("CL8", "CL18", "PU14", "PC7", "PC13", "PC17", "PC20", "PC62", "PU6")
def test_an_answered_join_is_told_and_nothing_follows_when_its_time_is_over() -> None:
    world = opened()
    channel = world.joining()
    assert channel.state == "joining"
    world.accept(channel)
    world.take_written()
    world.advance(20.0)
    assert (channel.state, world.statuses(channel)) == ("joined", [SUBSCRIBED])
    assert world.take_written() == []


@pytest.mark.conformance("CL14", "CP1")
def test_a_reply_without_postgres_changes_joins_too() -> None:
    world = opened()
    channel = world.joining()
    world.reply(world.last_join(channel), "ok", "anything")
    assert world.statuses(channel) == [SUBSCRIBED]


@pytest.mark.conformance("CL10")
@pytest.mark.parametrize("state", ["joining", "joined", "errored"])
def test_subscribing_again_while_wanted_does_nothing(state: str) -> None:
    world = opened()
    channel = world.joining()
    if state != "joining":
        world.accept(channel)
    if state == "errored":
        world.crash(channel)
    for _ in range(10):
        world.subscribe(channel)
    assert (channel.state, joins(world)) == (state, 1)


@pytest.mark.conformance("CR2", "CL5")
def test_presence_is_enabled_in_the_join_by_a_handler() -> None:
    world = opened()
    channel = world.channel()
    channel.bindings.add(ListenType.PRESENCE, {"event": "sync"})
    world.subscribe(channel)
    assert world.last_join(channel).payload["config"]["presence"]["enabled"] is True


@pytest.mark.conformance("CL3")
def test_the_join_of_a_private_channel_says_so() -> None:
    world = opened()
    channel = world.joining(opts={"config": {"private": True}})
    assert world.last_join(channel).payload["config"]["private"] is True


@pytest.mark.conformance("AD4")
def test_what_the_user_merged_into_the_payload_wins() -> None:
    world = opened(token="token")
    channel = world.channel()
    channel.join_payload_extra.update({"access_token": "mine", "user": "ann"})
    world.subscribe(channel)
    payload = world.last_join(channel).payload
    assert (payload["access_token"], payload["user"]) == ("mine", "ann")


def test_the_sub_topic_is_the_topic_without_its_prefix() -> None:
    world = World()
    assert world.channel("realtime:a:b").sub_topic == "a:b"


def test_a_join_that_nobody_wants_is_a_mistake_and_writes_nothing() -> None:
    world = opened()
    channel = world.channel()
    with pytest.raises(InvalidState, match="REJOIN does not fit a closed channel"):
        channel.write_join(world.now)
    world.collect()
    assert (channel.state, world.written) == ("closed", [])


# -- no answer ---------------------------------------------------------------------------


@pytest.mark.conformance("CE5", "PU20", "PU21", "PC26", "PC27")
def test_a_join_without_an_answer_times_out_leaves_and_is_tried_again() -> None:
    world = opened()
    channel = world.joining()
    world.advance(9.9)
    assert world.statuses(channel) == []
    world.advance(0.1)
    join, leave = world.written
    assert (leave.event, leave.join_ref, leave.payload) == ("phx_leave", join.ref, {})
    assert (channel.state, world.statuses(channel)) == ("errored", [TIMED_OUT])
    assert world.last_error(channel) is None
    world.advance(0.5)
    assert (channel.state, joins(world)) == ("joining", 2)


@pytest.mark.conformance("PC28")
def test_a_late_reply_to_a_join_that_timed_out_is_dropped() -> None:
    world = opened()
    channel = world.joining()
    first = world.last_join(channel)
    world.advance(10.5)
    world.reply(first, "ok", {"postgres_changes": []})
    assert channel.state == "joining"
    world.reply(first, "error", {"reason": DATABASE_DOWN})
    assert (channel.state, world.context.counters.stale) == ("joining", 2)
    world.accept(channel)
    assert channel.state == "joined"


@pytest.mark.conformance("PC14")
def test_timeouts_repeat_with_growing_delays() -> None:
    world = opened(heartbeat_interval=1000.0)
    channel = world.joining()
    times = []
    while world.now - START < 50.0:
        told = len(world.statuses(channel))
        world.advance(0.5)
        if len(world.statuses(channel)) > told:
            times.append(world.now - START)
    assert times == [10.0, 20.5, 31.5, 43.5]
    assert world.statuses(channel) == [TIMED_OUT] * 4


@pytest.mark.conformance("CL17", "PC11")
@pytest.mark.parametrize("timeout", [1.0, 17.0])
def test_the_time_a_join_is_given_can_be_chosen_and_holds_for_rejoins(timeout: float) -> None:
    world = opened()
    channel = world.channel()
    world.subscribe(channel, timeout)
    world.advance(timeout)
    world.advance(0.5)
    world.advance(timeout - 0.1)
    assert world.statuses(channel) == [TIMED_OUT]
    world.advance(0.1)
    assert world.statuses(channel) == [TIMED_OUT, TIMED_OUT]


@pytest.mark.conformance("NX2")
def test_a_join_that_waits_for_the_change_feed_is_given_more_time() -> None:
    world = opened()
    channel = world.joining(opts={"config": {"postgres_changes_options": {"wait": True}}})
    world.advance(24.9)
    assert channel.state == "joining"


def test_while_other_joins_are_answered_a_join_waits_longer() -> None:
    """The server decides joins one at a time (docs/protocol.md#one-join-at-a-time)."""
    world = opened(heartbeat_interval=1000.0)
    last = world.joining("realtime:last")
    for count in range(3):
        other = world.joining(f"realtime:{count}")
        world.advance(9.0)
        world.accept(other)
    world.advance(2.9)
    assert last.state == "joining"
    assert joins(world) == 4
    world.advance(0.1)
    assert (last.state, world.now - START) == ("errored", 30.0)


@pytest.mark.conformance("PC15")
def test_a_subscription_without_a_link_times_out_and_joins_when_there_is_one() -> None:
    world = World()
    channel = world.joining()
    world.connect()
    world.advance(10.0)
    assert (channel.state, world.statuses(channel)) == ("errored", [TIMED_OUT])
    world.advance(5.0)
    world.link_up()
    world.accept(channel)
    assert world.statuses(channel) == [TIMED_OUT, SUBSCRIBED]


def test_a_join_that_waits_for_its_turn_on_a_link_does_not_time_out_unsent() -> None:
    world = World()
    channel = world.joining()
    world.connect()
    world.advance(9.0)
    world.link_up()
    world.advance(9.9)
    assert channel.state == "joining"


# -- refused -----------------------------------------------------------------------------


@pytest.mark.conformance("CE6", "CE25")
def test_a_refused_join_is_told_with_every_value_of_the_answer() -> None:
    world = opened()
    channel = world.joining()
    response = {"reason": DATABASE_DOWN, "details": "port 5432"}
    world.reply(world.last_join(channel), "error", response)
    error = world.last_error(channel)
    assert isinstance(error, Refused)
    assert str(error) == f"{DATABASE_DOWN}, port 5432"
    assert (error.code, error.response) == ("UnableToConnectToProject", response)
    assert (error.retryable, error.topic) == (True, "realtime:room")


def test_refusals_repeat_with_growing_delays_until_the_server_says_yes() -> None:
    world = opened()
    channel = world.joining()
    times = []
    for _ in range(6):
        world.refuse(channel, DATABASE_DOWN)
        refused_at = world.now
        while channel.state == "errored":
            world.advance(0.25)
        times.append(world.now - refused_at)
    assert times == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0]
    world.accept(channel)
    assert world.statuses(channel) == [CHANNEL_ERROR] * 6 + [SUBSCRIBED]


@pytest.mark.conformance("CE14")
def test_the_schedule_of_supabase_js_holds_for_rejoins_too() -> None:
    world = opened(policy=ReconnectPolicy.supabase_js())
    channel = world.joining()
    for delay in (1.0, 2.0, 5.0, 10.0, 10.0):
        world.refuse(channel, DATABASE_DOWN)
        world.advance(delay - 0.01)
        assert channel.state == "errored"
        world.advance(0.01)
        assert channel.state == "joining"


def test_reconnect_after_paces_rejoins_and_is_asked_from_one_on() -> None:
    asked = list[int]()

    def reconnect_after(tries: int) -> float:
        asked.append(tries)
        return 3.0

    world = opened(reconnect_after=reconnect_after)
    channel = world.joining()
    for _ in range(3):
        world.refuse(channel, DATABASE_DOWN)
        world.advance(3.0)
        assert channel.state == "joining"
    assert asked == [1, 2, 3]


def test_a_join_that_died_young_does_not_reset_the_count_but_a_stable_one_does() -> None:
    world = opened()
    channel = world.joined()
    delays = []
    for lived in (4.0, 4.0, 4.0, 6.0, 4.0):
        world.advance(lived)
        world.crash(channel)
        crashed_at = world.now
        while channel.state == "errored":
            world.advance(0.25)
        world.accept(channel)
        delays.append(world.now - crashed_at)
    assert delays == [0.5, 1.0, 2.0, 0.5, 1.0]


def test_a_rate_limit_waits_thirty_seconds_across_a_lost_link() -> None:
    """The server cuts the socket after it (docs/protocol.md#refused-joins)."""
    world = opened()
    channel = world.joining()
    world.refuse(channel, RATE_LIMITED)
    world.advance(1.0)
    world.flap(1.0, lost(1001))
    world.advance(27.9)
    assert (channel.state, joins(world)) == ("errored", 1)
    world.flap()
    world.advance(0.1)
    assert (channel.state, joins(world)) == ("joining", 2)
    assert world.now - START == 30.0


def test_a_rate_limit_that_is_over_when_the_link_returns_does_not_wait_again() -> None:
    world = opened()
    channel = world.joining()
    world.refuse(channel, RATE_LIMITED)
    world.flap(31.0)
    assert channel.state == "joining"


@pytest.mark.parametrize("reason", [PRIVATE_ONLY, FORBIDDEN, MALFORMED])
def test_a_final_refusal_leaves_the_channel_errored_and_loud(reason: str) -> None:
    world = opened(token="token", token_source=True)
    channel = world.joining()
    world.refuse(channel, reason)
    error = world.last_error(channel)
    assert (channel.final_error, error.retryable) == (error, False)
    assert ErrorReported(error, channel) in world.told
    world.flap(60.0)
    world.advance(60.0)
    assert (channel.state, joins(world)) == ("errored", 1)
    assert world.statuses(channel) == [CHANNEL_ERROR]


def test_a_channel_that_rests_can_be_subscribed_again() -> None:
    world = opened()
    channel = world.joining()
    world.refuse(channel, PRIVATE_ONLY)
    world.subscribe(channel)
    assert (channel.state, channel.final_error) == ("joining", None)
    world.accept(channel)
    assert world.statuses(channel) == [CHANNEL_ERROR, SUBSCRIBED]


def test_with_the_policy_disabled_a_refused_channel_waits_for_its_user() -> None:
    world = opened(policy=ReconnectPolicy.disabled())
    channel = world.joining()
    world.refuse(channel, DATABASE_DOWN)
    world.advance(600.0)
    assert (channel.state, joins(world)) == ("errored", 1)
    world.subscribe(channel)
    world.accept(channel)
    assert world.statuses(channel) == [CHANNEL_ERROR, SUBSCRIBED]


# -- lost --------------------------------------------------------------------------------


def test_a_crash_is_told_and_joined_again_with_a_new_ref() -> None:
    world = opened()
    channel = world.joined()
    first = channel.join_ref
    world.crash(channel)
    assert world.statuses(channel) == [SUBSCRIBED, CHANNEL_ERROR]
    assert str(world.last_error(channel)) == "channel error: channel_crash"
    world.advance(0.5)
    world.accept(channel)
    assert world.statuses(channel) == [SUBSCRIBED, CHANNEL_ERROR, SUBSCRIBED]
    assert channel.join_ref not in (None, first)


@pytest.mark.conformance("CE23", "NE1", "NE2", "RS6", "PC40", "PS55", "PS61")
def test_a_lost_link_is_told_once_however_often_the_connect_fails() -> None:
    world = opened()
    channel = world.joined()
    error = lost(1006)
    world.link_lost(error)
    for _ in range(10):
        world.advance(30.0)
        world.link_lost(refused_connect())
    assert world.statuses(channel) == [SUBSCRIBED, CHANNEL_ERROR]
    assert world.last_error(channel) is error
    world.link_up()
    world.accept(channel)
    assert world.statuses(channel)[2:] == [SUBSCRIBED]


@pytest.mark.conformance("PS54")
def test_a_link_lost_while_joining_is_told_once_for_each_join() -> None:
    world = opened()
    channel = world.joining()
    for _ in range(3):
        world.flap()
    assert world.statuses(channel) == [CHANNEL_ERROR] * 3
    assert joins(world) == 4


@pytest.mark.conformance("PC16", "RS7", "PS60")
def test_an_unreachable_server_is_told_once_and_then_the_channel_is_subscribed() -> None:
    world = World()
    channel = world.joining()
    world.connect()
    for _ in range(5):
        world.link_lost(refused_connect())
        world.advance(8.0)
    world.link_up()
    world.accept(channel)
    assert world.statuses(channel) == [CHANNEL_ERROR, SUBSCRIBED]


def test_ten_minutes_of_refused_connects_then_everything_comes_back() -> None:
    world = opened()
    channel = world.joined()
    world.track(channel, {"user": "ann"})
    world.advance(6.0)
    began = world.now
    world.link_lost()
    while world.now - began < 600.0:
        (planned,) = world.take_told(ReconnectScheduled)[-1:]
        world.advance(planned.delay)
        world.link_lost(refused_connect())
    attempts = 7 + int((600.0 - 31.5) // 30) + 1
    assert joins(world) == 1
    assert channel.state == "errored"
    world.link_up()
    world.accept(channel)
    assert world.frames("phx_join")[-1].join_ref == channel.join_ref
    assert world.frames("presence")[-1].payload["payload"] == {"user": "ann"}
    (resumed,) = [event for event in world.told if isinstance(event, ChannelResumed)]
    assert resumed.downtime == pytest.approx(world.now - began)
    assert attempts == 26


def test_what_was_missed_is_told_before_the_channel_is_subscribed_again() -> None:
    world = opened()
    channel = world.joined()
    world.advance(10.0)
    world.broadcast(channel)
    world.advance(5.0)
    world.link_lost()
    world.advance(2.0)
    world.link_up()
    world.told.clear()
    world.accept(channel)
    gap, resumed, status = world.told
    at = EPOCH + START
    assert gap == GapFound("realtime:room", at + 10.0, at + 17.0, "lost")
    assert resumed == ChannelResumed(channel, 2.0)
    assert status.status is SUBSCRIBED
    assert channel.last_downtime == 2.0


def test_a_first_join_has_no_gap() -> None:
    world = opened()
    channel = world.joining()
    world.flap()
    world.accept(channel)
    assert world.take_told(GapFound) == []
    assert channel.last_downtime is None
