from __future__ import annotations

import dataclasses
import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supabase_rt._protocol.reconnect_policy import ReconnectPolicy

SECONDS = st.floats(0, 1e6)


def exact(**fields: Any) -> ReconnectPolicy:
    return ReconnectPolicy(**{"jitter": 0.0, **fields})


def test_the_defaults_are_those_of_the_contract() -> None:
    assert dataclasses.asdict(ReconnectPolicy()) == {
        "enabled": True,
        "initial_backoff": 0.5,
        "max_backoff": 30.0,
        "multiplier": 2.0,
        "jitter": 0.25,
        "max_attempts": None,
        "stable_after": 5.0,
        "rejoin_closed": True,
        "steps": (),
        "outage_share": 1 / 3,
        "final_after": 300.0,
    }


def test_delays_double_from_the_initial_one_up_to_the_cap() -> None:
    policy = exact(initial_backoff=0.1, multiplier=2, max_backoff=5)
    assert [policy.delay(attempt) for attempt in range(1, 9)] == [
        0.1,
        0.2,
        0.4,
        0.8,
        1.6,
        3.2,
        5.0,
        5.0,
    ]


@pytest.mark.parametrize("attempt", [0, -1])
def test_attempt_zero_is_at_once(attempt: int) -> None:
    assert ReconnectPolicy().delay(attempt) == 0.0
    assert ReconnectPolicy.supabase_js().delay(attempt) == 0.0


@pytest.mark.conformance("RT14")
@pytest.mark.parametrize("attempt", [10**6, 10**400])
def test_no_attempt_is_too_high_to_compute(attempt: int) -> None:
    assert exact().delay(attempt) == 30.0
    assert exact(multiplier=1e308).delay(attempt) == 30.0
    assert exact(multiplier=3).delay(attempt) == 30.0
    assert ReconnectPolicy.supabase_js().delay(attempt) == 10.0


@pytest.mark.parametrize("attempt", [1, 2, 10**6, 10**400])
def test_a_multiplier_of_one_never_grows(attempt: int) -> None:
    assert exact(initial_backoff=2, multiplier=1).delay(attempt) == 2.0


@pytest.mark.parametrize("attempt", [1, 10**6])
def test_an_initial_backoff_of_zero_never_grows(attempt: int) -> None:
    assert exact(initial_backoff=0).delay(attempt) == 0.0


def test_jitter_takes_off_the_capped_delay() -> None:
    policy = ReconnectPolicy(initial_backoff=100, max_backoff=100, jitter=0.25)
    assert policy.delay(9, lambda: 0.0) == 100.0
    assert policy.delay(9, lambda: 0.5) == 87.5
    assert policy.delay(9, lambda: 1.0) == 75.0


def test_jitter_takes_off_the_steps_as_well() -> None:
    policy = ReconnectPolicy(steps=(4.0,), jitter=0.5)
    assert policy.delay(1, lambda: 1.0) == 2.0


def test_without_jitter_no_random_number_is_asked_for() -> None:
    def forbidden() -> float:
        raise AssertionError

    assert exact().delay(1, forbidden) == 0.5


@given(
    initial=SECONDS,
    longest=SECONDS,
    multiplier=st.floats(1, 1e300),
    jitter=st.floats(0, 1),
    attempt=st.integers(0, 10**9),
    seed=st.integers(),
)
def test_a_delay_is_within_jitter_below_the_cap(
    initial: float, longest: float, multiplier: float, jitter: float, attempt: int, seed: int
) -> None:
    initial, longest = sorted((initial, longest))
    policy = ReconnectPolicy(
        initial_backoff=initial, max_backoff=longest, multiplier=multiplier, jitter=jitter
    )
    found = policy.delay(attempt, random.Random(seed).random)
    full = dataclasses.replace(policy, jitter=0.0).delay(attempt)
    assert type(found) is float
    assert full * (1 - jitter) <= found <= full <= longest


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_later_attempt_never_waits_less(one: int, other: int) -> None:
    early, late = sorted((one, other))
    assert exact().delay(early) <= exact().delay(late)


def test_steps_win_over_the_exponential_but_not_over_the_cap() -> None:
    policy = exact(steps=(3, 1, 99), max_backoff=10)
    found = [policy.delay(attempt) for attempt in (1, 2, 3, 4)]
    assert found == [3.0, 1.0, 10.0, 10.0]
    assert [type(delay) for delay in found] == [float] * 4


@pytest.mark.conformance("RT14")
def test_the_supabase_js_delays() -> None:
    policy = ReconnectPolicy.supabase_js()
    assert [policy.delay(attempt) for attempt in range(1, 7)] == [1, 2, 5, 10, 10, 10]


def test_attempts_are_unlimited_unless_said_otherwise() -> None:
    assert ReconnectPolicy().allows(10**9)


def test_max_attempts_counts_those_already_made() -> None:
    policy = ReconnectPolicy(max_attempts=2)
    assert [policy.allows(made) for made in (0, 1, 2, 3)] == [True, True, False, False]
    assert not ReconnectPolicy(max_attempts=0).allows(0)


def test_a_disabled_policy_allows_nothing() -> None:
    assert not ReconnectPolicy.disabled().allows(0)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"enabled": 1}, "enabled is True or False, not 1"),
        ({"rejoin_closed": None}, "rejoin_closed is True or False, not None"),
        ({"initial_backoff": -1}, "initial_backoff is a finite number of at least 0, not -1"),
        ({"initial_backoff": True}, "initial_backoff is a finite number"),
        ({"initial_backoff": "1"}, "initial_backoff is a finite number"),
        ({"initial_backoff": 31}, r"initial_backoff is at most max_backoff \(30.0\), not 31"),
        ({"max_backoff": math.inf}, "max_backoff is a finite number"),
        ({"max_backoff": math.nan}, "max_backoff is a finite number"),
        ({"max_backoff": 10**400}, "max_backoff is a finite number"),
        ({"multiplier": 0.5}, "multiplier is a finite number of at least 1, not 0.5"),
        ({"jitter": 1.1}, "jitter is a finite number from 0 to 1, not 1.1"),
        ({"jitter": -0.1}, "jitter is a finite number from 0 to 1"),
        ({"stable_after": -1}, "stable_after is a finite number"),
        ({"max_attempts": -1}, "max_attempts is None or a whole number from 0, not -1"),
        ({"max_attempts": 1.0}, "max_attempts is None or a whole number"),
        ({"max_attempts": True}, "max_attempts is None or a whole number"),
        ({"final_after": -1}, "final_after is a finite number of at least 0, not -1"),
        ({"final_after": math.inf}, "final_after is a finite number"),
        ({"final_after": None}, "final_after is a finite number"),
        ({"outage_share": 1.1}, "outage_share is a finite number from 0 to 1, not 1.1"),
        ({"outage_share": -0.1}, "outage_share is a finite number from 0 to 1"),
        ({"outage_share": True}, "outage_share is a finite number from 0 to 1"),
        ({"steps": [1.0]}, r"steps is a tuple of seconds, not \[1.0\]"),
        ({"steps": (1.0, -1)}, "steps is a finite number of at least 0, not -1"),
    ],
)
def test_a_bad_value_is_refused_by_name(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        ReconnectPolicy(**fields)


def test_a_pause_is_a_third_of_the_outage_but_may_always_last_the_initial_backoff() -> None:
    assert [exact().longest_pause(away) for away in (0.0, 1.0, 3.0, 30.0)] == [0.5, 0.5, 1.0, 10.0]


def test_without_a_share_of_the_outage_no_pause_is_too_long() -> None:
    assert exact(outage_share=None).longest_pause(0.0) == math.inf
    assert ReconnectPolicy.supabase_js().outage_share is None


def test_the_delay_of_an_attempt_does_not_know_of_the_outage() -> None:
    assert exact(outage_share=0.0).delay(9) == exact(outage_share=None).delay(9) == 30.0


def test_replace_validates_again() -> None:
    policy = dataclasses.replace(ReconnectPolicy(), max_attempts=3)
    assert policy.max_attempts == 3
    with pytest.raises(ValueError, match="jitter"):
        dataclasses.replace(policy, jitter=2)


def test_it_cannot_be_changed_and_can_be_a_key() -> None:
    policy = ReconnectPolicy()
    with pytest.raises(dataclasses.FrozenInstanceError):
        policy.jitter = 0.0  # type: ignore[misc]
    assert {policy: 1}[ReconnectPolicy()] == 1


@pytest.mark.parametrize(
    "policy",
    [
        ReconnectPolicy(),
        ReconnectPolicy.supabase_js(),
        ReconnectPolicy(max_attempts=3),
        ReconnectPolicy(outage_share=None, final_after=0),
        ReconnectPolicy(outage_share=0.5, final_after=60.0),
    ],
)
def test_it_survives_the_way_to_json_and_back(policy: ReconnectPolicy) -> None:
    assert ReconnectPolicy.from_dict(policy.to_dict()) == policy
    assert ReconnectPolicy.from_json(policy.to_json()) == policy


def test_reading_validates_values_as_well_as_types() -> None:
    with pytest.raises(ValueError, match="jitter is a finite number from 0 to 1"):
        ReconnectPolicy.from_dict({"jitter": 2.0})
    with pytest.raises(ValueError, match="max_backoff is a finite number"):
        ReconnectPolicy.from_json('{"max_backoff": Infinity}')
