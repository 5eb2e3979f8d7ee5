"""One client's conversation: the link and time. Routing: test_session_routing.py."""

from __future__ import annotations

import pytest

from supabase_rt._protocol.events import (
    ConnectDue,
    GaveUpForGood,
    HeartbeatReported,
    IdleReached,
    LinkClosed,
    LinkDied,
    LinkOpened,
    Reconnected,
    ReconnectScheduled,
    TokenWanted,
)
from supabase_rt._protocol.reconnect_policy import ReconnectPolicy
from supabase_rt._protocol.requests import Request, RequestKind
from supabase_rt._wire.envelope import Message
from supabase_rt.enums import ConnectionState, HeartbeatStatus
from supabase_rt.errors import ConnectionLost, GaveUp

from .support import CHANNEL_ERROR, CLOSED, START, SUBSCRIBED, World, lost, opened, refused_connect


def told(world: World) -> list[str]:
    return [type(event).__name__ for event in world.told]


# -- the link ----------------------------------------------------------------------------


@pytest.mark.conformance("LC15-LC19", "PS26-PS31")
def test_connecting_asks_for_a_socket_once() -> None:
    world = World()
    states = [world.client_machine.state]
    for _ in range(3):
        world.connect()
    assert world.told == [ConnectDue()]
    states.append(world.client_machine.state)
    world.link_up()
    world.connect()
    assert told(world) == ["ConnectDue", "LinkOpened"]
    assert [*states, world.client_machine.state] == ["closed", "connecting", "open"]


@pytest.mark.conformance("RS4", "PS53")
def test_a_lost_link_is_told_with_its_code_and_tried_again_at_once() -> None:
    world = opened()
    world.told.clear()
    error = lost(1001, "bye")
    world.link_lost(error)
    assert world.told == [LinkClosed(1001, "bye"), ReconnectScheduled(0, 0.0, error)]
    assert world.client_machine.state == "connecting"
    world.advance(0.0)
    assert world.told[-1] == ConnectDue()
    world.advance(3.0)
    world.link_up()
    assert world.told[-2:] == [LinkOpened(), Reconnected(3.0)]


def test_a_link_without_a_close_frame_closed_with_1006() -> None:
    world = opened()
    world.link_lost(lost(None))
    assert LinkClosed(1006, "") in world.told


@pytest.mark.conformance("RS1", "RS5", "PS48", "PS49", "PS51")
@pytest.mark.parametrize("code", [1000, 1001, 1005, 1006, 1011, 1012, 1013, 4000])
def test_whatever_the_code_an_unasked_end_is_tried_again(code: int) -> None:
    world = opened()
    world.link_lost(lost(code))
    world.advance(1.0)
    assert world.told[-1] == ConnectDue()


def test_a_first_link_is_no_reconnection() -> None:
    world = World()
    world.connect()
    world.link_lost(refused_connect())
    world.advance(0.5)
    world.link_up()
    assert "Reconnected" not in told(world)
    assert "LinkClosed" not in told(world)


def test_by_default_a_dead_link_is_found_within_thirty_five_seconds() -> None:
    world = opened()
    world.advance(34.9)
    assert not world.take_told(LinkDied)
    world.advance(0.1)
    assert len(world.take_told(LinkDied)) == 1


def test_a_short_heartbeat_interval_is_the_timeout_too() -> None:
    assert opened(heartbeat_interval=4.0).client_machine.heartbeat.timeout == 4.0


def test_a_long_outage_is_tried_at_the_delays_of_the_policy_for_ten_minutes() -> None:
    world = opened(policy=ReconnectPolicy(jitter=0.0, outage_share=None))
    channel = world.joined()
    world.advance(10.0)
    world.link_lost()
    delays = []
    while world.now - START < 610.0:
        (planned,) = world.take_told(ReconnectScheduled)
        delays.append((planned.attempt, planned.delay))
        world.advance(planned.delay)
        assert world.told[-1] == ConnectDue()
        world.link_lost(refused_connect())
    assert delays[:8] == [
        (0, 0.0),
        (1, 0.5),
        (2, 1.0),
        (3, 2.0),
        (4, 4.0),
        (5, 8.0),
        (6, 16.0),
        (7, 30.0),
    ]
    assert delays[8:] == [(attempt, 30.0) for attempt in range(8, len(delays))]
    assert channel.state == "errored"
    world.link_up()
    world.accept(channel)
    assert channel.state == "joined"


def test_when_it_gives_up_every_channel_is_closed_with_the_reason() -> None:
    world = opened(policy=ReconnectPolicy(max_attempts=2, jitter=0.0))
    joined, leaving = world.joined("realtime:a"), world.joined("realtime:b")
    left = world.unsubscribe(leaving)
    for _ in range(3):
        world.link_lost()
    assert world.statuses(joined) == [SUBSCRIBED, CHANNEL_ERROR, CLOSED]
    error = world.last_error(joined)
    assert isinstance(error, GaveUp)
    assert world.told[-1] == GaveUpForGood(error)
    assert (world.ended, world.statuses(leaving)) == ({left: "ok"}, [SUBSCRIBED, CLOSED])
    assert (world.is_closed, world.client_machine.wanted) == (True, False)
    assert world.deadlines() == []


def test_giving_up_keeps_channels_that_were_never_subscribed() -> None:
    world = opened(policy=ReconnectPolicy.disabled())
    idle = world.channel("realtime:idle")
    world.joined()
    world.link_lost()
    assert world.client_machine.channels == {idle.topic: idle}


def test_after_giving_up_the_user_can_connect_again_with_all_attempts_ahead() -> None:
    world = opened(policy=ReconnectPolicy(max_attempts=1))
    for _ in range(2):
        world.link_lost()
    world.told.clear()
    world.open()
    assert told(world) == ["ConnectDue", "LinkOpened"]
    world.link_lost()
    assert "ReconnectScheduled" in told(world)


def test_an_abandoned_first_attempt_leaves_nothing_running() -> None:
    world = World()
    world.connect()
    world.client_machine.cancel_first_attempt()
    world.collect()
    assert (world.is_closed, world.client_machine.wanted, world.deadlines()) == (True, False, [])


# -- disconnecting -----------------------------------------------------------------------


@pytest.mark.conformance("CE7", "CE13", "PS57", "PS58")
@pytest.mark.parametrize(
    ("code", "reason", "text"),
    [(1000, "", "socket closed: 1000"), (4001, "bye", "socket closed: 4001 (bye)")],
)
def test_a_disconnect_leaves_the_channels_errored_and_they_rejoin_on_connect(
    code: int, reason: str, text: str
) -> None:
    world = opened()
    joined, joining = world.joined("realtime:a"), world.joining("realtime:b")
    world.disconnect(code, reason)
    for channel in (joined, joining):
        assert (channel.state, str(world.last_error(channel))) == ("errored", text)
    assert world.deadlines() == []
    assert len(world.client_machine.channels) == 2
    world.open()
    world.accept(joined)
    world.accept(joining)
    assert world.statuses(joined) == [SUBSCRIBED, CHANNEL_ERROR, SUBSCRIBED]
    assert world.statuses(joining) == [CHANNEL_ERROR, SUBSCRIBED]
    assert "Reconnected" not in told(world)


@pytest.mark.conformance("LC15-LC19", "PS26-PS31")
def test_disconnecting_closes_before_it_is_closed() -> None:
    world = opened()
    world.client_machine.disconnect(world.now)
    assert world.client_machine.state is ConnectionState.CLOSING
    world.client_machine.link_closed()
    assert world.is_closed


def test_a_socket_that_closes_while_another_is_wanted_again_does_not_matter() -> None:
    world = opened()
    world.client_machine.disconnect(world.now)
    world.connect()
    world.client_machine.link_closed()
    assert world.client_machine.state == "connecting"


def test_disconnecting_twice_or_without_a_link_does_nothing() -> None:
    world = World()
    world.disconnect()
    assert (world.told, world.is_closed) == ([], True)


@pytest.mark.conformance("RS2", "PS50")
def test_a_link_that_ends_after_the_disconnect_is_not_tried_again() -> None:
    world = opened()
    world.disconnect()
    world.told.clear()
    world.link_lost()
    assert (world.told, world.is_closed, world.deadlines()) == ([], True, [])


def test_disconnecting_while_an_attempt_is_planned_ends_it() -> None:
    world = opened()
    world.link_lost()
    world.link_lost(refused_connect())
    world.disconnect()
    assert world.deadlines() == []


def test_frames_that_still_arrive_after_the_disconnect_change_nothing() -> None:
    world = opened()
    channel = world.joined()
    ref = channel.join_ref
    world.disconnect()
    world.receive(channel.topic, "broadcast", {"event": "x"}, join_ref=ref)
    world.receive(channel.topic, "phx_close", {}, join_ref=ref, ref=ref)
    world.receive(channel.topic, "phx_error", {})
    assert world.statuses(channel) == [SUBSCRIBED, CHANNEL_ERROR]
    assert world.context.counters.stale == 3


# -- without channels --------------------------------------------------------------------


@pytest.mark.conformance("CC15", "SI4")
@pytest.mark.parametrize(("idle_after", "seconds"), [(None, 50.0), (3.0, 3.0), (0.0, 0.0)])
def test_with_no_channel_left_the_socket_may_go_after_a_while(
    idle_after: float | None, seconds: float
) -> None:
    world = opened(idle_after=idle_after, heartbeat_interval=25.0, heartbeat_timeout=100.0)
    channel = world.joined()
    world.unsubscribe(channel)
    world.reply(world.frames("phx_leave")[-1])
    world.told.clear()
    if seconds:
        world.advance(seconds - 0.1)
        assert IdleReached() not in world.told
    world.advance(0.1)
    assert world.told.count(IdleReached()) == 1


def test_the_wait_starts_anew_with_each_channel_that_leaves() -> None:
    world = opened(idle_after=5.0)
    for _ in range(3):
        world.teardown(world.joined())
        world.advance(4.0)
    assert IdleReached() not in world.told
    world.advance(1.0)
    assert IdleReached() in world.told


def test_a_new_channel_ends_the_wait() -> None:
    world = opened(idle_after=5.0)
    world.teardown(world.joined())
    world.channel()
    world.advance(60.0)
    assert IdleReached() not in world.told


def test_nothing_is_watched_where_no_link_is_wanted() -> None:
    world = World(idle_after=5.0)
    world.teardown(world.channel())
    assert world.deadlines() == []


@pytest.mark.parametrize("end", ["disconnect", "give up", "connect"])
def test_the_wait_ends_with_the_wish_for_a_link(end: str) -> None:
    world = opened(idle_after=100.0, policy=ReconnectPolicy.disabled())
    world.teardown(world.joined())
    if end == "give up":
        world.link_lost()
    else:
        world.disconnect()
    if end == "connect":
        world.connect()
    assert "idle" not in world.deadlines()


# -- frames of the user ------------------------------------------------------------------


@pytest.mark.conformance("PS36", "PS42", "PS43", "PS44")
def test_raw_messages_wait_for_a_link_and_go_out_behind_the_joins() -> None:
    world = World()
    channel = world.joining()
    for count in range(1100):
        world.client_machine.push_raw(Message(None, str(count), "any", "raw", {}))
    world.open()
    assert world.written[0].ref == channel.join_ref
    assert [message.ref for message in world.frames("raw")] == [
        str(count) for count in range(100, 1100)
    ]
    world.client_machine.push_raw(Message(None, "now", "any", "raw", {}))
    world.collect()
    assert world.written[-1].ref == "now"


def test_requests_still_waiting_are_counted() -> None:
    world = opened()
    channel = world.joined()
    world.client_machine.push(Request(channel, RequestKind.PUSH, "x", {}, 10.0), world.now)
    assert world.client_machine.pending_replies == 1


def test_deadlines_of_requests_joins_and_leaves_are_all_served() -> None:
    world = opened(heartbeat_interval=1000.0)
    for count in range(120):
        world.joining(f"realtime:{count}")
    channel = world.client_machine.channels["realtime:0"]
    world.accept(channel)
    outcomes = [world.push(channel, timeout=1.0), world.unsubscribe(channel, timeout=2.0)]
    world.advance(100.0)
    assert len({message.topic for message in world.frames("phx_join")}) == 120
    assert [world.ended[outcome] for outcome in outcomes] == ["timed out", "timed out"]
    assert world.client_machine.next_deadline() is not None


# -- tokens ------------------------------------------------------------------------------


def test_a_token_is_news_only_where_it_differs() -> None:
    world = opened(token="old")
    channel = world.joined()
    assert not world.client_machine.set_token("old", world.now)
    assert world.client_machine.set_token("new", world.now)
    world.collect()
    assert [message.payload for message in world.frames("access_token")] == [
        {"access_token": "new"}
    ]
    assert channel.state == "joined"


def test_a_join_waits_for_the_token_that_the_source_is_asked_for() -> None:
    world = opened(token_source=True)
    channel = world.joining()
    assert world.told[-1] == TokenWanted(blocking=True)
    assert world.written == []
    world.token_arrived()
    assert world.last_join(channel).ref == channel.join_ref


# -- heartbeats --------------------------------------------------------------------------


@pytest.mark.conformance("TR3", "PS41", "PS67", "PS68")
def test_a_heartbeat_by_hand_needs_a_link() -> None:
    world = World()
    assert not world.client_machine.send_heartbeat(world.now)
    world.open()
    assert world.client_machine.send_heartbeat(world.now)
    world.collect()
    assert world.told[-1] == HeartbeatReported(HeartbeatStatus.SENT)
    world.advance(0.5)
    world.reply(world.written[-1])
    assert world.told[-1] == HeartbeatReported(HeartbeatStatus.OK, 0.5)


def test_each_heartbeat_is_the_moment_to_look_for_a_new_token() -> None:
    world = opened(token="token", token_source=True)
    world.advance(25.0)
    assert world.told[-2:] == [
        HeartbeatReported(HeartbeatStatus.SENT),
        TokenWanted(blocking=False),
    ]


@pytest.mark.conformance("PS47")
def test_a_dead_link_is_told_to_the_channels_as_such() -> None:
    world = opened()
    channel = world.joined()
    world.advance(50.0)
    died = world.told[-1]
    world.link_lost(died.error)
    assert str(world.last_error(channel)) == "heartbeat timeout"
    assert isinstance(world.last_error(channel), ConnectionLost)
    assert world.frames("phx_join")[1:] == []
    world.link_up()
    assert len(world.frames("phx_join")) == 2
