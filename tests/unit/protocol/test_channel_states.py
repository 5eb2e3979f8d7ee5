"""The table of channel states, as h11 tests its own: the legal transitions, and no others."""

from __future__ import annotations

import itertools

import pytest

from supabase_rt._protocol.channel.channel_machine import ChannelMachine
from supabase_rt._protocol.channel.channel_states import TRANSITIONS, Input
from supabase_rt.enums import ChannelState
from supabase_rt.errors import InvalidState

from .support import World

LEGAL = """
closed   SUBSCRIBE     joining
closed   LEAVE_NOW     closed
joining  REJOIN        joining
joining  JOIN_OK       joined
joining  JOIN_REFUSED  errored
joining  JOIN_TIMEOUT  errored
joining  JOIN_MISMATCH errored
joining  LOST          errored
joining  CLOSE         closed
joining  LEAVE         leaving
joining  LEAVE_NOW     closed
joining  GIVE_UP       closed
joined   LOST          errored
joined   CLOSE         closed
joined   LEAVE         leaving
joined   LEAVE_NOW     closed
joined   GIVE_UP       closed
errored  SUBSCRIBE     joining
errored  REJOIN        joining
errored  LEAVE_NOW     closed
errored  GIVE_UP       closed
leaving  LEFT          closed
"""

ROWS = [tuple(line.split()) for line in LEGAL.split("\n") if line]
ILLEGAL = sorted(
    set(itertools.product(map(str, ChannelState), (what.name for what in Input)))
    - {(state, what) for state, what, _ in ROWS}
)


def channel_in(state: str) -> ChannelMachine:
    """Returns a channel in ``state``, reached by calls of a user and frames of a server."""
    world = World()
    channel = world.channel()
    if state == "closed":
        return channel
    world.open()
    world.subscribe(channel)
    if state != "joining":
        world.accept(channel)
    if state == "errored":
        world.crash(channel)
    elif state == "leaving":
        world.unsubscribe(channel)
    return channel


@pytest.mark.parametrize(
    ("state", "what", "after"), ROWS, ids=[f"{state}-{what}" for state, what, _ in ROWS]
)
def test_a_legal_input_moves_the_channel(state: str, what: str, after: str) -> None:
    channel = channel_in(state)
    assert channel.state == state
    channel._move(Input[what])
    assert channel.state == after


@pytest.mark.parametrize(("state", "what"), ILLEGAL, ids=[f"{one}-{two}" for one, two in ILLEGAL])
def test_an_illegal_input_raises_and_changes_nothing(state: str, what: str) -> None:
    channel = channel_in(state)
    with pytest.raises(InvalidState, match=f"{what} does not fit a {state} channel"):
        channel._move(Input[what])
    assert channel.state == state


def test_the_table_is_the_one_written_here() -> None:
    table = {
        (str(state), what.name, str(after))
        for state, row in TRANSITIONS.items()
        for what, after in row.items()
    }
    assert table == set(ROWS)


def test_every_state_can_be_entered_and_left() -> None:
    entered = {after for row in TRANSITIONS.values() for after in row.values()}
    assert entered == set(TRANSITIONS) == set(ChannelState)
    assert all(set(row.values()) - {state} for state, row in TRANSITIONS.items())
