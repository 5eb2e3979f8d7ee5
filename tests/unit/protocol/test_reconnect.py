from __future__ import annotations

from typing import Any

import pytest

from supabase_rt._protocol.events import ConnectDue, ReconnectScheduled
from supabase_rt._protocol.reconnect import Reconnector, is_final, skip_immediate_retry
from supabase_rt._protocol.reconnect_policy import ReconnectPolicy
from supabase_rt._protocol.shared_state import SharedState
from supabase_rt.errors import ConnectionFailed, ConnectionLost, GaveUp, RealtimeError

from .support import EXACT, lost, refused_connect


class ReconnectorHarness:
    """A reconnector that the user has started."""

    def __init__(self, policy: ReconnectPolicy = EXACT, **context: Any) -> None:
        self.context = SharedState(policy=policy, **context)
        self.reconnector = Reconnector(self.context)
        self.reconnector.start()
        assert self.context.outbox.pop_events() == [ConnectDue()]

    def fails(self, error: BaseException | None = None, now: float = 0.0) -> tuple[int, float]:
        """The number of the attempt that follows a failure, and its delay."""
        assert self.reconnector.next_attempt(error or lost(), now) is None
        (event,) = self.context.outbox.pop_events()
        assert isinstance(event, ReconnectScheduled)
        assert self.context.outbox.deadlines.pop_due(9e9) == "connect"
        return event.attempt, event.delay

    def gives_up(self, error: BaseException | None = None) -> GaveUp:
        found = self.reconnector.next_attempt(error or lost(), 0.0)
        assert found is not None
        assert self.context.outbox.pop_events() == []
        assert self.context.outbox.deadlines.next() is None
        return found


# -- the errors --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "slow", "final"),
    [
        (lost(None), False, False),
        (lost(1000), False, False),
        (lost(1001), False, False),
        (lost(1006), False, False),
        (lost(1012), True, False),
        (lost(1013), True, False),
        (lost(1008), False, True),
        (lost(1010), False, True),
        (lost(3000), False, True),
        (lost(3003), False, True),
        (refused_connect(), False, False),
        (refused_connect(retryable=False), False, True),
        (refused_connect(401), False, True),
        (refused_connect(403), False, True),
        (refused_connect(404), False, True),
        (refused_connect(429), True, False),
        (refused_connect(500), True, False),
        (refused_connect(503), True, False),
        (RealtimeError("final"), False, True),
        (RealtimeError("retryable", retryable=True), False, False),
        (OSError("the network is down"), False, False),
    ],
    ids=lambda value: str(value),
)
def test_codes_and_statuses_choose_the_pace_and_the_end(
    error: BaseException, slow: bool, final: bool
) -> None:
    assert (skip_immediate_retry(error), is_final(error)) == (slow, final)


# -- counting ----------------------------------------------------------------------------


def test_a_link_that_is_lost_is_tried_again_at_once() -> None:
    harness = ReconnectorHarness()
    harness.reconnector.link_up(0.0)
    assert harness.fails() == (0, 0.0)


def test_refused_attempts_start_at_one_and_grow_by_the_policy() -> None:
    harness = ReconnectorHarness()
    assert [harness.fails(refused_connect()) for _ in range(8)] == [
        (1, 0.5),
        (2, 1.0),
        (3, 2.0),
        (4, 4.0),
        (5, 8.0),
        (6, 16.0),
        (7, 30.0),
        (8, 30.0),
    ]


def test_after_a_lost_link_the_refused_attempts_go_on_with_one() -> None:
    harness = ReconnectorHarness()
    harness.reconnector.link_up(0.0)
    assert [harness.fails(), harness.fails(), harness.fails()] == [(0, 0.0), (1, 0.5), (2, 1.0)]


@pytest.mark.parametrize(
    "error",
    [lost(1012), lost(1013), refused_connect(429), refused_connect(503)],
    ids=["1012", "1013", "429", "503"],
)
def test_a_server_that_asks_for_distance_is_not_tried_at_once(error: BaseException) -> None:
    harness = ReconnectorHarness()
    harness.reconnector.link_up(0.0)
    assert harness.fails(error) == (1, 0.5)


def test_a_link_that_dies_young_does_not_reset_the_count() -> None:
    harness = ReconnectorHarness()
    found = []
    for _ in range(4):
        harness.reconnector.link_up(0.0)
        found.append(harness.fails(now=4.999))
    assert found == [(0, 0.0), (1, 0.5), (2, 1.0), (3, 2.0)]


@pytest.mark.conformance("PS45")
def test_a_link_that_lived_for_stable_after_resets_the_count() -> None:
    harness = ReconnectorHarness()
    for _ in range(5):
        harness.fails(refused_connect())
    harness.reconnector.link_up(100.0)
    assert harness.fails(now=105.0) == (0, 0.0)


def test_starting_again_counts_from_the_beginning() -> None:
    harness = ReconnectorHarness()
    for _ in range(5):
        harness.fails(refused_connect())
    harness.reconnector.start()
    harness.context.outbox.pop_events()
    assert harness.fails(refused_connect()) == (1, 0.5)


def test_chance_takes_off_its_share() -> None:
    harness = ReconnectorHarness(ReconnectPolicy(), random=lambda: 1.0)
    assert harness.fails(refused_connect()) == (1, 0.375)


def test_the_event_names_the_cause() -> None:
    harness = ReconnectorHarness()
    error = lost(1001, "bye")
    harness.reconnector.next_attempt(error, 0.0)
    assert harness.context.outbox.pop_events() == [ReconnectScheduled(1, 0.5, error)]


def test_stopping_forgets_the_planned_attempt_and_the_link() -> None:
    harness = ReconnectorHarness()
    harness.reconnector.next_attempt(lost(), 0.0)
    harness.reconnector.stop()
    assert harness.context.outbox.deadlines.next() is None


# -- other schedules ---------------------------------------------------------------------


@pytest.mark.conformance("realtime.configuration.reconnect_backoff")
def test_the_table_of_supabase_js_has_no_attempt_at_once() -> None:
    harness = ReconnectorHarness(ReconnectPolicy.supabase_js())
    harness.reconnector.link_up(0.0)
    assert [harness.fails() for _ in range(6)] == [
        (1, 1.0),
        (2, 2.0),
        (3, 5.0),
        (4, 10.0),
        (5, 10.0),
        (6, 10.0),
    ]


def test_reconnect_after_is_asked_from_one_on_and_wins_over_the_policy() -> None:
    harness = ReconnectorHarness(reconnect_after=lambda tries: tries * 7.0)
    harness.reconnector.link_up(0.0)
    assert [harness.fails() for _ in range(3)] == [(1, 7.0), (2, 14.0), (3, 21.0)]


# -- the end -----------------------------------------------------------------------------


def test_with_the_policy_disabled_the_first_loss_is_final() -> None:
    harness = ReconnectorHarness(ReconnectPolicy.disabled())
    error = lost(1006)
    found = harness.gives_up(error)
    assert (found.attempts, found.__cause__) == (0, error)
    assert "switched off" in str(found)


def test_max_attempts_is_the_number_of_attempts_that_follow_a_loss() -> None:
    harness = ReconnectorHarness(ReconnectPolicy(max_attempts=3, jitter=0.0))
    harness.reconnector.link_up(0.0)
    assert [harness.fails()[0] for _ in range(3)] == [0, 1, 2]
    found = harness.gives_up()
    assert found.attempts == 3
    assert "after 3 attempts" in str(found)


def test_max_attempts_counts_anew_after_a_stable_link() -> None:
    harness = ReconnectorHarness(ReconnectPolicy(max_attempts=1))
    for start in (0.0, 10.0, 20.0):
        harness.reconnector.link_up(start)
        harness.fails(now=start + 6.0)
    harness.gives_up()


def test_links_that_die_young_use_up_the_attempts() -> None:
    harness = ReconnectorHarness(ReconnectPolicy(max_attempts=2))
    for _ in range(2):
        harness.reconnector.link_up(0.0)
        harness.fails(now=1.0)
    harness.reconnector.link_up(0.0)
    harness.gives_up()


@pytest.mark.parametrize(
    "error",
    [
        ConnectionFailed("the key was not accepted", status=401, hint="check the key"),
        ConnectionLost("closed: 1008", close_code=1008, hint="check the key"),
    ],
    ids=["401", "1008"],
)
def test_a_final_error_ends_the_attempts_and_its_hint_survives(error: RealtimeError) -> None:
    found = ReconnectorHarness().gives_up(error)
    assert str(found) == f"gave up: {error}"
    assert (found.hint, found.__cause__) == ("check the key", error)


def test_a_foreign_exception_as_cause_has_no_hint() -> None:
    found = ReconnectorHarness(ReconnectPolicy.disabled()).gives_up(OSError("down"))
    assert found.hint == ""
