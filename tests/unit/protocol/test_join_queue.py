from __future__ import annotations

import gc
import weakref

import pytest

from supabase_rt._protocol.channel.channel_machine import ChannelMachine
from supabase_rt._protocol.events import TokenWanted
from supabase_rt._protocol.join_queue import JOIN_BURST, JOIN_RATE, JoinQueue

from .support import DATABASE_DOWN, EXPIRED, World


def topics(world: World) -> list[str]:
    return [message.topic for message in world.frames("phx_join")]


def waiting(world: World, *names: str) -> tuple[JoinQueue, list[ChannelMachine]]:
    """Returns a separate queue with channels that want a join."""
    queue, channels = JoinQueue(world.context), []
    for name in names:
        channel = world.channel(name)
        channel.subscribe(10.0, world.now)
        queue.add(channel, False)
        channels.append(channel)
    return queue, channels


def context_is_open_by_hand(world: World) -> None:
    """An open link that the client's own queue does not know."""
    world.context.is_open = True


# -- the queue ---------------------------------------------------------------------------


def wants_token(queue: JoinQueue) -> bool:
    return queue.wants_token


def test_channels_join_in_the_order_of_their_asking() -> None:
    world = World()
    queue, _ = waiting(world, "realtime:b", "realtime:a")
    context_is_open_by_hand(world)
    queue.pump(world.now)
    world.collect()
    assert topics(world) == ["realtime:b", "realtime:a"]
    assert len(queue) == 0


def test_a_channel_that_was_refused_goes_behind_those_that_were_not() -> None:
    world = World()
    queue, (first, second, third) = waiting(world, "realtime:1", "realtime:2", "realtime:3")
    queue.clear()
    first.rejoin.refusals, second.rejoin.refusals = 2, 1
    for channel in (first, second, third):
        queue.add(channel, False)
    context_is_open_by_hand(world)
    queue.pump(world.now)
    world.collect()
    assert topics(world) == [third.topic, second.topic, first.topic]


def test_a_channel_that_wants_a_token_waits_and_lets_others_pass() -> None:
    world = World()
    queue, (first, second) = waiting(world, "realtime:1", "realtime:2")
    queue.add(first, True)
    queue.add(first, False)
    assert wants_token(queue)
    context_is_open_by_hand(world)
    queue.pump(world.now)
    world.collect()
    assert topics(world) == [second.topic]
    assert first in queue
    third = world.channel("realtime:3")
    third.subscribe(10.0, world.now)
    queue.add(third, False)
    queue.token_arrived()
    assert not wants_token(queue)
    queue.pump(world.now)
    world.collect()
    assert topics(world) == [second.topic, third.topic, first.topic]


def test_a_channel_that_asks_twice_joins_once() -> None:
    world = World()
    queue, (channel,) = waiting(world, "realtime:1")
    queue.add(channel, False)
    context_is_open_by_hand(world)
    queue.pump(world.now)
    world.collect()
    assert (topics(world), len(queue)) == ([channel.topic], 0)


def test_thousands_of_channels_join_in_their_order() -> None:
    world = World()
    queue, channels = waiting(world, *(f"realtime:{count}" for count in range(3000)))
    context_is_open_by_hand(world)
    while queue:
        queue.pump(world.now)
        world.collect()
        world.now += 0.02
    assert topics(world) == [channel.topic for channel in channels]


# -- in a session ------------------------------------------------------------------------


def test_500_channels_join_at_the_pace_of_the_bucket() -> None:
    """Beyond its rate limit the server cuts the socket (docs/protocol.md#10-limits)."""
    world = World()
    for count in range(500):
        world.joining(f"realtime:{count}")
    world.open()
    assert len(world.frames("phx_join")) == JOIN_BURST == 100
    world.advance(1.0)
    assert len(world.frames("phx_join")) == pytest.approx(100 + JOIN_RATE, abs=1)
    world.advance(6.9)
    assert len(world.frames("phx_join")) < 500
    world.advance(0.2)
    assert topics(world) == [f"realtime:{count}" for count in range(500)]


def test_beyond_the_burst_a_few_join_together() -> None:
    """A wake-up for each of them would cost more than the joins."""
    world = World()
    for count in range(112):
        world.joining(f"realtime:{count}")
    world.open()
    world.advance(0.09)
    # Frames that arrive meanwhile do not hurry the joins.
    world.accept(world.client_machine.channels["realtime:0"])
    assert len(world.frames("phx_join")) == 100
    world.advance(0.011)
    assert len(world.frames("phx_join")) == 105
    world.advance(0.1)
    assert len(world.frames("phx_join")) == 110
    world.advance(0.03)
    assert len(world.frames("phx_join")) == 110
    world.advance(0.01)
    assert topics(world) == [f"realtime:{count}" for count in range(112)]


def test_one_that_waits_alone_waits_for_its_own_turn_only() -> None:
    world = World()
    for count in range(101):
        world.joining(f"realtime:{count}")
    world.open()
    assert world.client_machine.joins_waiting(world.client_machine.channels["realtime:100"]) == 1
    assert world.client_machine.joins_waiting(world.client_machine.channels["realtime:0"]) == 0
    world.advance(0.021)
    assert len(world.frames("phx_join")) == 101
    assert world.client_machine.joins_waiting(world.client_machine.channels["realtime:100"]) == 0


def test_channels_that_leave_the_queue_hold_nobody_up() -> None:
    world = World()
    channels = [world.joining(f"realtime:{count}") for count in range(106)]
    world.open()
    for channel in channels[100:105]:
        world.unsubscribe(channel)
    world.advance(0.101)
    assert topics(world)[100:] == [channels[105].topic]


def test_the_pace_holds_across_a_reconnect() -> None:
    world = World()
    for count in range(100):
        world.joining(f"realtime:{count}")
    world.open()
    world.take_written()
    world.flap(1.0)
    assert len(world.frames("phx_join")) == 50
    world.advance(1.1)
    assert len(world.frames("phx_join")) == 100


def test_the_queue_is_empty_after_a_loss_and_nothing_wakes_for_it() -> None:
    world = World()
    for count in range(150):
        world.joining(f"realtime:{count}")
    world.open()
    world.link_lost()
    assert "joins" not in world.deadlines()


def test_after_a_reconnect_refused_channels_join_after_the_healthy_ones() -> None:
    world = World()
    world.open()
    refused = world.joining("realtime:refused")
    world.refuse(refused, DATABASE_DOWN)
    healthy = world.joined("realtime:healthy")
    world.take_written()
    world.flap()
    assert topics(world) == [healthy.topic, refused.topic]


def test_a_rejoin_for_an_expired_token_asks_for_a_fresh_one_first() -> None:
    world = World(token="old", token_source=True)
    world.open()
    channel = world.joining()
    world.refuse(channel, EXPIRED)
    world.take_written()
    world.told.clear()
    world.advance(0.5)
    assert world.take_written() == []
    assert world.take_told(TokenWanted) == [TokenWanted(blocking=True)]
    world.set_token("fresh")
    assert world.last_join(channel).payload["access_token"] == "fresh"


def test_a_rejoin_goes_out_with_the_old_token_where_asking_failed() -> None:
    world = World(token="old", token_source=True)
    world.open()
    channel = world.joining()
    world.refuse(channel, EXPIRED)
    world.advance(0.5)
    world.token_arrived()
    assert len(world.frames("phx_join")) == 2
    assert world.last_join(channel).payload["access_token"] == "old"


def test_a_channel_that_left_while_it_waited_is_let_go() -> None:
    world = World()
    queue, (channel,) = waiting(world, "realtime:room")
    queue.discard(channel)
    world.teardown(channel)
    # By then the timers have forgotten the channel.
    world.advance(11.0)
    gone = weakref.ref(channel)
    del channel, world
    gc.collect()
    assert gone() is None
    assert len(queue) == 0
