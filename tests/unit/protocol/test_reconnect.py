from __future__ import annotations

from typing import Any, cast

import pytest

from supabase_rt._protocol.events import ConnectDue, ErrorReported, ReconnectScheduled
from supabase_rt._protocol.reconnect import Reconnector, is_final, skip_immediate_retry
from supabase_rt._protocol.reconnect_policy import ReconnectPolicy
from supabase_rt._protocol.shared_state import SharedState
from supabase_rt.errors import ConnectionFailed, ConnectionLost, GaveUp, RealtimeError

from .support import EXACT, lost, refused_connect

UNSHARED = ReconnectPolicy(jitter=0.0, outage_share=None)
"""A policy whose pauses do not depend on the length of the outage."""
FINAL_ERRORS = [
    *(refused_connect(status) for status in (301, 308, 400, 401, 403, 404, 405, 406, 410, 426)),
    lost(1008),
    lost(3000),
    refused_connect(retryable=False),
]


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

    def fails_loudly(self, error: RealtimeError, now: float) -> None:
        """A failure of the final kind that is tried again, and told."""
        assert self.reconnector.next_attempt(error, now) is None
        *reports, event = self.context.outbox.pop_events()
        assert isinstance(event, ReconnectScheduled)
        assert event.is_final_kind
        assert error.retryable
        # The connection itself reports a failed attempt.
        own = [ErrorReported(error)] if isinstance(error, ConnectionLost) else []
        assert reports == own

    def gives_up(self, error: BaseException | None = None, now: float = 0.0) -> GaveUp:
        found = self.reconnector.next_attempt(error or lost(), now)
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
    harness = ReconnectorHarness(UNSHARED)
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
    harness = ReconnectorHarness(UNSHARED)
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
    harness = ReconnectorHarness(UNSHARED)
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


# -- final only before the first success -------------------------------------------------


def copied(error: RealtimeError) -> RealtimeError:
    """Returns a fresh copy, because the reconnector marks an error as retryable."""
    if isinstance(error, ConnectionLost):
        return lost(error.close_code)
    assert isinstance(error, ConnectionFailed)
    return refused_connect(error.status, retryable=False)


@pytest.mark.parametrize("error", FINAL_ERRORS, ids=str)
def test_before_the_first_link_a_failure_of_the_final_kind_ends_the_client(
    error: RealtimeError,
) -> None:
    ReconnectorHarness().gives_up(copied(error))


@pytest.mark.parametrize("error", FINAL_ERRORS, ids=str)
def test_after_a_link_a_failure_of_the_final_kind_is_tried_again_for_final_after(
    error: RealtimeError,
) -> None:
    harness = ReconnectorHarness()
    harness.reconnector.link_up(0.0)
    for now in (10.0, 100.0, 309.9):
        harness.fails_loudly(copied(error), now)
    harness.context.outbox.deadlines.cancel("connect")
    last = copied(error)
    assert harness.gives_up(last, 310.0).__cause__ is last


def test_another_failure_in_between_starts_final_after_anew() -> None:
    harness = ReconnectorHarness()
    harness.reconnector.link_up(0.0)
    harness.fails_loudly(refused_connect(404, retryable=False), 10.0)
    harness.fails(refused_connect(503), 300.0)
    harness.fails_loudly(refused_connect(404, retryable=False), 311.0)


def test_a_link_that_proved_itself_starts_final_after_anew() -> None:
    harness = ReconnectorHarness()
    harness.reconnector.link_up(0.0)
    harness.fails_loudly(lost(1008), 10.0)
    harness.reconnector.link_up(305.0)
    harness.fails_loudly(lost(1008), 311.0)


def test_a_server_that_opens_each_link_only_to_refuse_it_ends_the_client() -> None:
    harness = ReconnectorHarness()
    harness.reconnector.link_up(0.0)
    for now in range(10, 310, 4):
        harness.fails_loudly(lost(3000), float(now))
        harness.reconnector.link_up(now + 2.0)
    harness.context.outbox.deadlines.cancel("connect")
    harness.gives_up(lost(3000), 310.0)


def test_a_final_after_of_zero_ends_the_client_at_once() -> None:
    harness = ReconnectorHarness(ReconnectPolicy(final_after=0.0))
    harness.reconnector.link_up(0.0)
    harness.gives_up(lost(1008), 10.0)


def test_a_wish_for_a_new_link_keeps_the_first_success() -> None:
    harness = ReconnectorHarness()
    harness.reconnector.link_up(0.0)
    harness.reconnector.stop()
    harness.reconnector.start()
    harness.context.outbox.pop_events()
    harness.fails_loudly(refused_connect(404, retryable=False), 10.0)


# -- the share of the outage -------------------------------------------------------------


def outage(seconds: float, chance: float) -> tuple[float, list[float]]:
    """Seconds between the end of an outage and the next attempt, and the times of all attempts."""
    harness = ReconnectorHarness(ReconnectPolicy(), random=lambda: chance)
    harness.reconnector.link_up(-100.0)
    begun: list[float] = []
    now, error = 0.0, cast("RealtimeError", lost())
    while not begun or begun[-1] < seconds:
        now += harness.fails(error, now)[1]
        begun.append(now)
        error = refused_connect()
    return begun[-1] - seconds, begun


@pytest.mark.parametrize("chance", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("seconds", [5.0, 17.0, 30.0, 60.0])
def test_after_an_outage_the_next_attempt_comes_within_a_third_of_it(
    seconds: float, chance: float
) -> None:
    late, begun = outage(seconds, chance)
    assert late <= seconds / 3
    assert sum(when <= 60.0 for when in begun) <= 20


def test_a_long_delay_of_the_policy_is_never_lengthened() -> None:
    assert outage(3600.0, 0.0)[0] <= 30.0


def test_ten_flaps_are_followed_within_the_initial_backoff() -> None:
    harness = ReconnectorHarness()
    now, delays = 100.0, []
    for _ in range(10):
        harness.reconnector.link_up(now)
        now += 1.5
        delays.append(harness.fails(now=now)[1])
        now += delays[-1]
    assert delays == [0.0] + [0.5] * 9


@pytest.mark.parametrize("lived", [0.0, 1.0, 4.9])
def test_links_that_die_young_get_at_most_twenty_attempts_in_any_minute(lived: float) -> None:
    harness = ReconnectorHarness(ReconnectPolicy())
    now, begun = 0.0, [0.0]
    for _ in range(200):
        harness.reconnector.link_up(now)
        now += lived
        now += harness.fails(now=now)[1]
        begun.append(now)
    busiest = max(sum(start <= when < start + 60.0 for when in begun) for start in begun)
    assert busiest <= 20
    assert len(begun) / now * 60.0 > 10


def test_reconnect_after_wins_over_the_share_of_the_outage() -> None:
    harness = ReconnectorHarness(reconnect_after=lambda tries: 25.0)
    harness.reconnector.link_up(0.0)
    assert [harness.fails(now=1.0) for _ in range(30)] == [(n, 25.0) for n in range(1, 31)]


def test_a_loop_that_ended_is_no_loss_and_no_attempt() -> None:
    harness = ReconnectorHarness(ReconnectPolicy(max_attempts=1, jitter=0.0))
    for number in range(50):
        harness.reconnector.link_up(number * 0.1)
        harness.reconnector.loop_ended(number * 0.1)
        assert harness.context.outbox.pop_events() == [ConnectDue()]
        assert harness.context.outbox.deadlines.next() is None
    harness.reconnector.link_up(5.0)
    assert harness.fails(now=6.0) == (0, 0.0)
