"""After every ``...RateLimitReached`` a channel does not join for 30 s, even on a new link."""

from __future__ import annotations

import pytest

from supabase_rt._protocol.channel.channel_machine import ChannelMachine

from .support import RATE_LIMITED, World, joins, lost

PAUSE = 30.0


def keeps_away(world: World, channel: ChannelMachine, since: float) -> None:
    """No join is sent before the pause is over, not even on a new link; one is sent soon after
    it.
    """
    before = joins(world)
    for _ in range(3):
        world.flap(down=1.0)
        world.advance(5.0)
    world.advance(since + PAUSE - world.now - 0.1)
    assert joins(world) == before
    world.advance(1.0)
    assert joins(world) == before + 1
    world.accept(channel)
    assert channel.can_push


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Too many messages per second", "MessagePerSecondRateLimitReached"),
        ("Too many presence messages per second", "PresenceRateLimitReached"),
        ("Client presence rate limit exceeded", "ClientPresenceRateLimitReached"),
        ("SomethingNewRateLimitReached: nobody knows it yet", "SomethingNewRateLimitReached"),
    ],
)
def test_a_channel_closed_for_its_rate_comes_back_after_a_pause(text: str, code: str) -> None:
    world = World(heartbeat_interval=1e6)
    world.open()
    channel = world.joined()
    at = world.now
    world.close(channel, text)
    error = world.last_error(channel)
    assert (error.code, error.retryable) == (code, True)
    assert error.hint
    keeps_away(world, channel, at)


def test_a_join_refused_for_its_rate_waits_although_the_socket_is_closed_after_it() -> None:
    world = World(heartbeat_interval=1e6)
    world.open()
    channel = world.joining()
    at = world.now
    world.refuse(channel, RATE_LIMITED)
    world.link_lost(lost(1001))
    world.link_up()
    keeps_away(world, channel, at)


def test_other_channels_of_the_socket_do_not_wait() -> None:
    world = World(heartbeat_interval=1e6)
    world.open()
    other = world.joined("realtime:other")
    channel = world.joining()
    world.refuse(channel, RATE_LIMITED)
    world.link_lost(lost(1001))
    world.link_up()
    assert world.last_join(other) is world.frames("phx_join")[-1]
    world.accept(other)
    assert other.can_push
