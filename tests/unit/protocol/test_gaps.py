"""Possible losses are reported: by the feed, the replay, and a feed that fell silent."""

from __future__ import annotations

from typing import Any

import pytest

from supabase_rt._protocol.channel.channel_machine import ChannelMachine
from supabase_rt._protocol.events import ChannelResumed, GapFound, ReadyChanged
from supabase_rt.enums import ListenType, SubscribeStatus
from supabase_rt.errors import DecodeError

from .support import CHANGES, EPOCH, START, World

TOPIC = "realtime:room"
AT = EPOCH + START
UP = "Subscribed to PostgreSQL"
REPLAY = {"config": {"private": True, "broadcast": {"replay": {"since": 0}}}}


def up(world: World, channel: ChannelMachine) -> None:
    world.system(channel, UP, "ok", "postgres_changes")


def listening(world: World, resubscribe_after: float | None = None) -> ChannelMachine:
    channel = world.channel()
    channel.bindings.add(ListenType.POSTGRES_CHANGES, dict(CHANGES))
    if resubscribe_after is not None:
        channel.silent_feed_watch.begin(resubscribe_after)
    world.subscribe(channel)
    world.accept(channel)
    return channel


def change(world: World, channel: ChannelMachine) -> None:
    data = {"type": "INSERT", "schema": "public", "table": "todos", "columns": [], "record": {}}
    world.receive(channel.topic, "postgres_changes", {"ids": [100], "data": data})


def opened() -> World:
    world = World(heartbeat_interval=1e6)
    world.open()
    return world


# -- what cannot be read -------------------------------------------------------------------


def unreadable(world: World, event: str, payload: Any, topic: str = TOPIC) -> None:
    with pytest.raises(DecodeError) as found:
        world.receive(topic, event, payload)
    world.client_machine.unreadable(found.value, world.now)
    world.collect()


def test_an_event_that_cannot_be_read_is_a_gap_of_its_channel_at_that_moment() -> None:
    world = opened()
    world.joined()
    world.joined("realtime:other")
    world.advance(1.0)
    unreadable(world, "broadcast", 7)
    assert world.take_told(GapFound) == [GapFound(TOPIC, AT + 1.0, AT + 1.0, "unreadable")]
    world.advance(60.0)
    assert world.take_told(GapFound) == []
    assert world.frames("probe") == []


def test_presence_beyond_the_bound_is_a_gap_of_its_channel() -> None:
    world = opened()
    world.joined()
    world.receive(TOPIC, "presence_state", {})
    for group in range(5):
        crowd = {f"{group}-{n}": {"metas": [{"phx_ref": str(n)}]} for n in range(20_000)}
        world.receive(TOPIC, "presence_diff", {"joins": crowd, "leaves": {}})
    assert world.take_told(GapFound) == []
    crowd = {f"more-{n}": {"metas": [{"phx_ref": str(n)}]} for n in range(40_000)}
    unreadable(world, "presence_diff", {"joins": crowd, "leaves": {}})
    assert world.take_told(GapFound) == [GapFound(TOPIC, AT, AT, "unreadable")]
    assert world.context.counters.decode_errors == 1


def test_an_answer_that_cannot_be_read_is_no_event_that_was_missed() -> None:
    world = opened()
    world.joined()
    unreadable(world, "phx_reply", {"status": 7})
    unreadable(world, "phx_reply", {"status": 7}, "phoenix")
    world.advance(60.0)
    assert world.take_told(GapFound) == []


def test_a_change_that_cannot_be_read_makes_a_backfill_read_again() -> None:
    world = opened()
    channel = listening(world)
    up(world, channel)
    world.take_told(ReadyChanged)
    unreadable(world, "broadcast", 7)
    assert world.take_told(ReadyChanged) == []
    unreadable(world, "postgres_changes", {"ids": [100]})
    assert world.take_told(ReadyChanged) == [ReadyChanged(channel, None)]


def test_a_frame_without_a_topic_may_have_been_for_every_channel_that_is_joined() -> None:
    world = opened()
    channel = listening(world)
    world.joined("realtime:other")
    world.joining("realtime:third")
    up(world, channel)
    world.take_told(ReadyChanged)
    for _ in range(10):
        world.client_machine.unreadable(DecodeError("?"), world.now)
        world.advance(0.1)
    assert world.take_told(GapFound) == []
    world.advance(1.0)
    assert world.take_told((GapFound, ReadyChanged)) == [
        GapFound(TOPIC, AT, AT + 2.0, "unreadable"),
        ReadyChanged(channel, None),
        GapFound("realtime:other", AT, AT + 2.0, "unreadable"),
    ]


def test_a_frame_that_could_not_be_read_is_told_though_the_link_ends_before_it_is_time() -> None:
    world = opened()
    world.joined()
    world.joining("realtime:other")
    world.client_machine.unreadable(DecodeError("?"), world.now)
    world.advance(1.0)
    world.flap()
    assert world.take_told(GapFound) == [GapFound(TOPIC, AT, AT + 1.0, "unreadable")]


# -- the change feed -----------------------------------------------------------------------


def test_the_first_wait_for_the_feed_is_no_gap() -> None:
    world = opened()
    channel = listening(world)
    world.advance(3.0)
    up(world, channel)
    assert world.take_told(GapFound) == []


def test_what_the_feed_missed_between_the_rejoin_and_its_start_is_told_at_its_start() -> None:
    world = opened()
    channel = listening(world)
    up(world, channel)
    world.flap(down=2.0)
    world.accept(channel)
    assert [gap.reason for gap in world.take_told(GapFound)] == ["lost"]
    world.advance(3.0)
    up(world, channel)
    assert world.take_told(GapFound) == [GapFound(TOPIC, AT + 2.0, AT + 5.0, "feed")]
    up(world, channel)
    assert world.take_told(GapFound) == []


def test_a_feed_that_the_server_reports_broken_leaves_a_gap_until_it_is_back() -> None:
    world = opened()
    channel = listening(world)
    up(world, channel)
    world.advance(10.0)
    for _ in range(2):
        text = '{:error, "Too many database timeouts"}'
        world.system(channel, text, "error", "postgres_changes")
        world.advance(5.0)
    up(world, channel)
    assert world.take_told(GapFound) == [GapFound(TOPIC, AT + 10.0, AT + 20.0, "feed")]


def test_a_feed_that_never_flowed_before_the_loss_is_no_gap_of_its_own() -> None:
    world = opened()
    channel = listening(world)
    world.flap()
    world.accept(channel)
    world.take_told(GapFound)
    world.advance(3.0)
    up(world, channel)
    assert world.take_told(GapFound) == []


# -- replay --------------------------------------------------------------------------------


def replayed(world: World, channel: ChannelMachine, *numbers: int) -> None:
    for number in numbers:
        world.broadcast(channel, meta={"id": f"id-{number}", "replayed": True})


@pytest.mark.parametrize(("limit", "most"), [(None, 25), (3, 3)])
def test_a_replay_as_long_as_its_limit_may_have_been_cut_short(
    limit: int | None, most: int
) -> None:
    world = opened()
    replay: dict[str, Any] = {"since": 5000} if limit is None else {"since": 5000, "limit": limit}
    channel = world.joined(opts={"config": {"private": True, "broadcast": {"replay": replay}}})
    replayed(world, channel, *range(most - 1))
    assert world.take_told(GapFound) == []
    replayed(world, channel, most - 1)
    assert world.take_told(GapFound) == [GapFound(TOPIC, 5.0, AT, "replay_truncated")]


def test_a_replay_is_counted_anew_for_every_join_known_messages_included() -> None:
    world = opened()
    channel = world.joined(opts=REPLAY)
    replayed(world, channel, *range(24))
    world.broadcast(channel, meta={"id": "live"})
    world.advance(100.0)
    world.broadcast(channel, meta={"id": "later"})
    world.flap(down=1.0)
    world.accept(channel)
    world.take_told(GapFound)
    assert world.last_join(channel).payload["config"]["broadcast"]["replay"]["since"] == (
        (AT + 100.0 - 30.0) * 1000
    )
    replayed(world, channel, *range(24))
    assert world.take_told(GapFound) == []
    replayed(world, channel, 24)
    (gap,) = world.take_told(GapFound)
    assert gap == GapFound(TOPIC, AT + 70.0, AT + 101.0, "replay_truncated")


def test_an_hour_of_sleep_is_part_of_the_gap_and_of_the_replay() -> None:
    world = opened()
    channel = world.joined(opts=REPLAY)
    world.advance(5.0)
    world.broadcast(channel)
    world.sleep(3600.0)
    world.advance(1.0)
    world.flap(down=2.0)
    world.accept(channel)
    since = world.last_join(channel).payload["config"]["broadcast"]["replay"]["since"]
    assert since == (AT + 5.0 - 30.0) * 1000
    assert world.take_told(GapFound) == [GapFound(TOPIC, AT + 5.0, AT + 3608.0, "lost")]


# -- a feed that fell silent ---------------------------------------------------------------


def test_a_silent_feed_is_subscribed_anew_and_the_silence_is_told() -> None:
    world = opened()
    channel = listening(world, resubscribe_after=60.0)
    up(world, channel)
    world.advance(50.0)
    change(world, channel)
    world.advance(59.0)
    world.broadcast(channel)
    assert world.take_written() == ["phx_join"]
    world.told.clear()
    world.advance(1.0)
    assert world.take_written() == ["phx_leave", "phx_join"]
    assert world.told == []


def test_resubscribing_is_told_as_a_gap_and_as_subscribed() -> None:
    world = opened()
    channel = listening(world, resubscribe_after=60.0)
    up(world, channel)
    world.advance(10.0)
    change(world, channel)
    world.advance(60.0)
    world.told.clear()
    world.accept(channel)
    gap, resumed, status = world.told
    assert gap == GapFound(TOPIC, AT + 10.0, AT + 70.0, "resubscribed")
    assert resumed == ChannelResumed(channel, 0.0)
    assert status.status is SubscribeStatus.SUBSCRIBED
    # Watched again, once changes flow.
    up(world, channel)
    world.advance(59.0)
    assert len(world.frames("phx_join")) == 2
    world.advance(1.0)
    assert len(world.frames("phx_join")) == 3


def test_the_silence_is_told_though_the_link_is_lost_and_the_computer_sleeps_meanwhile() -> None:
    world = opened()
    channel = listening(world, resubscribe_after=60.0)
    up(world, channel)
    world.advance(60.0)
    world.sleep(3600.0)
    world.flap()
    world.accept(channel)
    assert world.take_told(GapFound) == [GapFound(TOPIC, AT, AT + 3660.0, "resubscribed")]


def test_a_loss_ends_the_watch_and_is_told_as_a_loss() -> None:
    world = opened()
    channel = listening(world, resubscribe_after=60.0)
    up(world, channel)
    world.advance(59.0)
    world.flap(down=30.0)
    world.accept(channel)
    assert [gap.reason for gap in world.take_told(GapFound)] == ["lost"]
    world.advance(300.0)
    assert len(world.frames("phx_join")) == 2


def test_who_leaves_is_watched_no_more() -> None:
    world = opened()
    channel = listening(world, resubscribe_after=60.0)
    up(world, channel)
    world.unsubscribe(channel)
    world.reply(world.frames("phx_leave")[-1])
    world.advance(300.0)
    assert len(world.frames("phx_join")) == 1


def test_a_channel_that_is_leaving_is_not_joined_anew() -> None:
    world = opened()
    channel = listening(world, resubscribe_after=60.0)
    up(world, channel)
    world.unsubscribe(channel, timeout=500.0)
    world.advance(300.0)
    assert world.take_written() == ["phx_join", "phx_leave"]
