"""A token is renewed before it ends, also while the socket only idles; in virtual time."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supabase_rt._protocol.events import TokenWanted
from supabase_rt._protocol.token_refresh import AHEAD, LAST_CALL

from .support import EPOCH, World, jwt

HOUR = 3600.0
RARELY = 100_000.0
"""A heartbeat interval that leaves everything to the timer."""


def ending_in(world: World, seconds: float, name: str = "") -> str:
    return jwt(EPOCH + world.now + seconds, name)


def opened(lifetime: float = HOUR, **options: Any) -> World:
    world = World(token_source=True, **{"heartbeat_interval": RARELY, **options})
    world.context.token = ending_in(world, lifetime)
    world.open()
    return world


def askings(world: World, seconds: float) -> list[float]:
    """Returns the times in the next seconds at which the source is asked."""
    begun, found = world.now, []
    world.take_told(TokenWanted)
    while world.now < begun + seconds:
        world.advance(0.25)
        found += [world.now - begun for _ in world.take_told(TokenWanted)]
    return found


def test_a_token_is_asked_for_half_a_minute_before_the_old_one_ends() -> None:
    world = opened()
    channel = world.joined()
    assert askings(world, HOUR - AHEAD - 1.0) == []
    assert askings(world, 1.0) == [1.0]
    assert world.take_written() == ["phx_join"]
    world.set_token(ending_in(world, HOUR, "next"))
    assert world.take_written() == ["access_token"]
    assert askings(world, HOUR - AHEAD) == [HOUR - AHEAD]
    assert channel.state == "joined"


def test_a_source_that_keeps_its_token_to_the_end_is_asked_a_few_times_more() -> None:
    world = opened()
    found = askings(world, 2 * HOUR)
    assert [HOUR - each for each in found] == pytest.approx([30.0, 15.0, 7.5, 3.75, 1.75], abs=0.3)


def test_a_short_lived_token_is_renewed_at_half_of_its_time() -> None:
    assert askings(opened(20.0), 12.0) == [10.0]


def test_rare_heartbeats_do_not_delay_it_and_frequent_ones_do_not_replace_it() -> None:
    frequent = opened(60.0, heartbeat_interval=25.0)
    assert askings(frequent, 40.0) == [25.0, 30.0]


@pytest.mark.parametrize("token", [None, "", "sb_publishable_x", "a.b.c", jwt(float("1e300"))])
def test_a_token_without_an_end_in_sight_needs_no_timer(token: str | None) -> None:
    world = opened()
    world.set_token(token)
    assert askings(world, 3 * HOUR) == []


def test_without_a_source_nobody_is_asked() -> None:
    world = World(heartbeat_interval=RARELY)
    world.context.token = ending_in(world, 60.0)
    world.open()
    assert askings(world, 60.0) == []


def test_without_a_link_nobody_is_asked_and_the_next_link_plans_anew() -> None:
    world = opened()
    world.link_lost()
    assert askings(world, HOUR) == []
    world.set_token(ending_in(world, HOUR, "next"))
    assert askings(world, HOUR) == []
    world.set_token(ending_in(world, HOUR, "third"))
    world.link_up()
    assert askings(world, HOUR - AHEAD) == [HOUR - AHEAD]
    world.disconnect()
    assert askings(world, HOUR) == []


@given(st.floats(-100.0, 90_000.0))
def test_askings_are_few_and_in_time(lifetime: float) -> None:
    world = opened(lifetime)
    ended, first_beat = world.now + lifetime, world.now + RARELY
    times = []
    while (due := world.client_machine.next_deadline()) is not None and due < first_beat:
        world.advance(max(0.0, due - world.now))
        times += [world.now for _ in world.take_told(TokenWanted)]
    assert len(times) <= 6
    assert all(LAST_CALL / 2 - 0.01 <= ended - each <= AHEAD + 0.01 for each in times)
