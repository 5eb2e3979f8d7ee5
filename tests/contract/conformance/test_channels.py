"""Rows about joining, losing and leaving that no other test covers; in virtual time."""

from __future__ import annotations

from typing import Any

import pytest

from supabase_rt._protocol.channel.channel_machine import ChannelMachine
from supabase_rt._protocol.reconnect_policy import ReconnectPolicy
from supabase_rt.enums import ListenType, SubscribeStatus

from ...unit.protocol.support import DATABASE_DOWN, World, refused_connect

SUBSCRIBED, CHANNEL_ERROR = SubscribeStatus.SUBSCRIBED, SubscribeStatus.CHANNEL_ERROR
CLOSED, TIMED_OUT = SubscribeStatus.CLOSED, SubscribeStatus.TIMED_OUT
ANY_PRESENCE = (ListenType.PRESENCE, {"event": "*"})


def opened(**options: Any) -> World:
    world = World(**options)
    world.open()
    return world


def listening(
    *listeners: tuple[ListenType, dict[str, Any]], opts: Any = None
) -> tuple[World, ChannelMachine]:
    """Returns a joined channel with these bindings; events reported before are forgotten."""
    world = opened()
    channel = world.channel(opts=opts)
    for kind, filter in listeners:
        channel.bindings.add(kind, filter)
    world.subscribe(channel)
    world.accept(channel)
    world.told.clear()
    return world, channel


def rejoins(world: World, channel: ChannelMachine) -> int:
    """Returns the number of planned rejoins of the channel; the world cannot be used afterwards."""
    return world.deadlines().count((channel, "rejoin"))


# -- joins that fail ---------------------------------------------------------------------


@pytest.mark.conformance("CE1")
def test_a_link_lost_under_a_join_and_the_join_of_the_next_link() -> None:
    world = opened()
    channel = world.joining()
    world.flap(down=1.0)
    assert channel.state == "joining"
    world.accept(channel)
    assert (channel.state, world.statuses(channel)) == ("joined", [CHANNEL_ERROR, SUBSCRIBED])


@pytest.mark.parametrize(
    "fails",
    [
        pytest.param("refused", marks=pytest.mark.conformance("CE9", "CE16", "CI3", "PU22")),
        pytest.param("refused with text", marks=pytest.mark.conformance("CP13", "NE3")),
        pytest.param("unanswered", marks=pytest.mark.conformance("CE12", "CE15", "PC29")),
    ],
)
def test_a_join_that_fails_errors_the_channel_and_plans_one_rejoin(fails: str) -> None:
    world = opened()
    channel = world.joining()
    if fails == "unanswered":
        world.advance(10.0)
    else:
        response = "boom" if fails == "refused with text" else {"reason": "boom"}
        world.reply(world.last_join(channel), "error", response)
    expected = TIMED_OUT if fails == "unanswered" else CHANNEL_ERROR
    assert (channel.state, world.statuses(channel)) == ("errored", [expected])
    if fails != "unanswered":
        assert str(world.last_error(channel)) == "boom"
    assert rejoins(world, channel) == 1


@pytest.mark.conformance("PU23", "PC30", "PC32", "PC37")
def test_a_refusal_is_told_once_and_nothing_else_is() -> None:
    world = opened(policy=ReconnectPolicy.disabled())
    channel = world.joining()
    for _ in range(3):
        world.refuse(channel, DATABASE_DOWN)
    world.advance(20.0)
    assert (channel.state, world.statuses(channel)) == ("errored", [CHANNEL_ERROR])


@pytest.mark.conformance("CE10")
def test_a_refusal_while_leaving_changes_and_plans_nothing() -> None:
    world = opened()
    channel = world.joining()
    world.unsubscribe(channel, timeout=100.0)
    world.refuse(channel, DATABASE_DOWN)
    assert (channel.state, world.statuses(channel)) == ("leaving", [])
    assert rejoins(world, channel) == 0


@pytest.mark.conformance("CE11")
def test_a_refusal_when_it_is_closed_changes_and_plans_nothing() -> None:
    world = opened()
    channel = world.joining()
    world.teardown(channel)
    world.refuse(channel, DATABASE_DOWN)
    assert (channel.state, world.statuses(channel)) == ("closed", [CLOSED])
    assert rejoins(world, channel) == 0


@pytest.mark.conformance("CE8", "PC39")
def test_three_crashes_in_a_row_are_one_loss() -> None:
    world = opened()
    channel = world.joined()
    for _ in range(3):
        world.receive(channel.topic, "phx_error", {})
        assert channel.state == "errored"
    assert world.statuses(channel) == [SUBSCRIBED, CHANNEL_ERROR]


@pytest.mark.conformance("PC24")
def test_an_answered_join_has_no_rejoin_planned() -> None:
    world = opened()
    channel = world.joining()
    world.refuse(channel, DATABASE_DOWN)
    world.advance(0.5)
    world.accept(channel)
    assert channel.state == "joined"
    assert rejoins(world, channel) == 0


@pytest.mark.conformance("PC38")
def test_what_is_held_is_still_held_after_a_refusal() -> None:
    world = opened()
    channel = world.joining()
    outcome = world.push(channel)
    world.refuse(channel, DATABASE_DOWN)
    assert (world.ended, world.frames("custom")) == ({}, [])
    world.advance(0.5)
    world.accept(channel)
    world.reply(world.frames("custom")[-1])
    assert world.ended == {outcome: "ok"}


@pytest.mark.conformance("PU3", "PC59")
def test_a_request_older_than_its_time_is_not_sent_by_a_later_join() -> None:
    world = opened()
    channel = world.joining()
    outcome = world.push(channel, timeout=5.0)
    world.advance(10.0)
    assert [message.event for message in world.written] == ["phx_join", "phx_leave"]
    world.advance(0.5)
    world.accept(channel)
    assert channel.state == "joined"
    assert world.ended == {outcome: "timed out"}
    assert world.frames("custom") == []


# -- leaving and losing ------------------------------------------------------------------


@pytest.mark.conformance("PU9", "PC66")
def test_only_the_channel_that_leaves_goes_out_of_the_list() -> None:
    world = opened()
    one, two = world.joined("realtime:1"), world.joined("realtime:2")
    world.unsubscribe(one)
    assert world.client_machine.channels == {two.topic: two}
    assert two.state == "joined"


@pytest.mark.parametrize(
    "before",
    [
        pytest.param("leaving", marks=pytest.mark.conformance("PC41", "PS56", "PS63")),
        pytest.param("closed", marks=pytest.mark.conformance("PC42")),
    ],
)
def test_a_channel_that_left_is_neither_errored_nor_joined_by_a_lost_socket(before: str) -> None:
    world = opened()
    channel = world.joined()
    world.unsubscribe(channel)
    if before == "closed":
        world.reply(world.frames("phx_leave")[-1])
    world.link_lost()
    world.link_lost(refused_connect())
    world.advance(1.0)
    world.link_up()
    world.advance(100.0)
    assert (channel.state, world.statuses(channel)) == ("closed", [SUBSCRIBED, CLOSED])
    assert len(world.frames("phx_join")) == 1


@pytest.mark.conformance("PS52")
def test_a_failed_connect_after_a_clean_disconnect_is_tried_again() -> None:
    world = opened()
    channel = world.joined()
    world.disconnect()
    world.connect()
    world.link_lost(refused_connect())
    world.advance(0.5)
    world.link_up()
    world.accept(channel)
    assert channel.state == "joined"


@pytest.mark.conformance("AU4")
def test_the_token_of_the_source_is_in_every_join() -> None:
    world = opened(token_source=True)
    channels = [world.joining(f"realtime:{name}") for name in "abc"]
    world.set_token("token")
    found = [world.last_join(channel).payload["access_token"] for channel in channels]
    assert found == ["token"] * 3


@pytest.mark.conformance("PS62")
def test_a_failed_connection_is_the_error_of_a_joining_channel() -> None:
    world = World()
    channel = world.joining()
    world.connect()
    error = refused_connect(503)
    world.link_lost(error)
    assert (channel.state, world.statuses(channel)) == ("errored", [CHANNEL_ERROR])
    assert world.last_error(channel) is error


# -- presence ----------------------------------------------------------------------------


def entry(ref: str, **fields: Any) -> dict[str, Any]:
    return {"metas": [{"phx_ref": ref, **fields}]}


def diff(joins: dict[str, Any], leaves: dict[str, Any]) -> dict[str, Any]:
    return {"joins": joins, "leaves": leaves}


@pytest.mark.conformance("CR3", "CR4", "realtime.subscriptions.subscribe_presence")
def test_what_presence_handlers_get() -> None:
    world, channel = listening(ANY_PRESENCE)
    world.receive(channel.topic, "presence_state", {})
    joins = {"ann": entry("1", name="Ann")}
    world.receive(channel.topic, "presence_diff", diff(joins, {}))
    world.receive(channel.topic, "presence_diff", diff({}, joins))
    _, join, _, leave, _ = world.delivered(channel)
    ann = {"presence_ref": "1", "name": "Ann"}
    assert join.to_dict() == {
        "event": "join",
        "key": "ann",
        "currentPresences": [],
        "newPresences": [ann],
    }
    assert leave.to_dict() == {
        "event": "leave",
        "key": "ann",
        "currentPresences": [],
        "leftPresences": [ann],
    }


@pytest.mark.conformance("PA10")
def test_an_updated_presence_is_one_and_its_leave_takes_the_key() -> None:
    world, channel = listening(ANY_PRESENCE)
    world.receive(channel.topic, "presence_state", {"ann": entry("1", n=1)})
    update = diff({"ann": entry("2", phx_ref_prev="1", n=2)}, {"ann": entry("1", n=1)})
    world.receive(channel.topic, "presence_diff", update)
    presence = channel.inbound.presence
    assert presence.list() == {"ann": [{"presence_ref": "2", "n": 2}]}
    world.receive(channel.topic, "presence_diff", diff({}, {"ann": entry("2", n=2)}))
    assert presence.list() == {}


@pytest.mark.parametrize(
    ("option", "handler", "enabled"),
    [
        pytest.param(True, False, True, marks=pytest.mark.conformance("CR15")),
        pytest.param(True, True, True, marks=pytest.mark.conformance("CR16")),
        pytest.param(False, True, True, marks=pytest.mark.conformance("CR17")),
        pytest.param(False, False, False, marks=pytest.mark.conformance("CR18")),
    ],
)
def test_presence_is_on_by_option_or_by_handler(option: bool, handler: bool, enabled: bool) -> None:
    opts = {"config": {"presence": {"enabled": option}}}
    world, channel = listening(*[ANY_PRESENCE] * handler, opts=opts)
    assert world.last_join(channel).payload["config"]["presence"]["enabled"] is enabled


# -- one channel, everything -------------------------------------------------------------


@pytest.mark.conformance("CI2")
def test_each_kind_of_handler_gets_its_own_event_once() -> None:
    changes = {"event": "INSERT", "schema": "public", "table": "t"}
    world, channel = listening(
        (ListenType.BROADCAST, {"event": "x"}),
        (ListenType.PRESENCE, {"event": "sync"}),
        (ListenType.POSTGRES_CHANGES, changes),
    )
    world.broadcast(channel, event="x")
    world.receive(channel.topic, "presence_state", {})
    data = {"type": "INSERT", "schema": "public", "table": "t", "record": {}, "columns": []}
    world.receive(channel.topic, "postgres_changes", {"ids": [100], "data": data})
    assert [event.ids for event in world.told] == [(1,), (2,), (3,)]
