from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from supabase_rt import __version__
from supabase_rt._protocol.events import ErrorReported
from supabase_rt._protocol.reconnect_policy import ReconnectPolicy
from supabase_rt._protocol.shared_state import CLIENT_VERSION, Counters, SharedState

from .support import EXACT, jwt


def test_contexts_share_nothing() -> None:
    first, second = SharedState(), SharedState()
    first.counters.stale += 1
    first.outbox.emit("event")
    assert second.counters == Counters(stale=0, unknown=0, decode_errors=0)
    assert second.outbox.pop_events() == []
    assert first.requests is not second.requests


def test_the_version_told_to_the_server_names_this_package() -> None:
    assert f"supabase-rt/{__version__}" == CLIENT_VERSION


# -- delays ------------------------------------------------------------------------------


def test_delays_are_those_of_the_policy() -> None:
    context = SharedState(policy=EXACT)
    assert [context.delay(attempt) for attempt in range(4)] == [0.0, 0.5, 1.0, 2.0]


def test_chance_can_be_given() -> None:
    context = SharedState(policy=ReconnectPolicy(jitter=0.5), random=lambda: 1.0)
    assert context.delay(1) == 0.25


def test_reconnect_after_is_asked_from_one_on() -> None:
    context = SharedState(reconnect_after=lambda tries: tries * 10.0)
    assert [context.delay(attempt) for attempt in (0, 1, 2)] == [10.0, 10.0, 20.0]


def _fails(tries: int) -> float:
    raise OSError("no such schedule")


async def _is_async(tries: int) -> float:
    return 1.0


@pytest.mark.parametrize(
    "reconnect_after",
    [
        _fails,
        _is_async,
        lambda tries: None,
        lambda tries: "5",
        lambda tries: -1.0,
        lambda tries: math.nan,
        lambda tries: math.inf,
    ],
    ids=["raises", "async", "nothing", "text", "negative", "nan", "never"],
)
def test_a_reconnect_after_that_fails_is_reported_and_the_policy_steps_in(
    reconnect_after: Callable[[int], Any],
) -> None:
    """Otherwise one bad schedule would silently end all attempts."""
    context = SharedState(policy=EXACT, reconnect_after=reconnect_after)
    assert context.delay(2) == 1.0
    (event,) = context.outbox.pop_events()
    assert isinstance(event, ErrorReported)


# -- time and tokens ---------------------------------------------------------------------


def test_the_servers_clock_is_the_machines_time_and_an_offset() -> None:
    assert SharedState(unix_time_offset=1_700_000_000.0).unix_time(5.0) == 1_700_000_005.0


def test_a_token_lives_until_its_expiry_by_the_servers_clock() -> None:
    context = SharedState(unix_time_offset=1000.0)
    context.token = jwt(1010.0)
    assert context.token_lifetime(3.0) == 7.0
    assert context.token_lifetime(15.0) == -5.0


@pytest.mark.parametrize("token", [None, "", "sb_publishable_key", "a.b.c"])
def test_a_token_that_cannot_be_read_lives_for_ever(token: str | None) -> None:
    context = SharedState()
    context.token = token
    assert context.token_lifetime(1e12) == math.inf
