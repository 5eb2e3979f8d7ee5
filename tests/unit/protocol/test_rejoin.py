from __future__ import annotations

from typing import Any

import pytest

from supabase_rt._protocol.channel.rejoin import Rejoin
from supabase_rt._protocol.events import ErrorReported
from supabase_rt._protocol.reconnect_policy import ReconnectPolicy
from supabase_rt._protocol.refusals import Verdict
from supabase_rt._protocol.shared_state import SharedState
from supabase_rt.errors import Refused

from .support import EXACT, jwt

NOW = 100.0


class Refusing:
    """The recovery of a channel that joined with the token ``old``."""

    def __init__(self, token: str | None = "old", **context: Any) -> None:
        self.context = SharedState(**{"policy": EXACT, **context})
        self.context.token = token
        self.rejoin = Rejoin("channel", self.context)
        self.rejoin.token_sent(token)

    def follow(self, verdict: Verdict, now: float = NOW) -> Refused:
        error = Refused("no", retryable=False)
        self.rejoin.act_on(error, verdict, now)
        return error

    def rejoin_in(self, now: float = NOW) -> float | None:
        """Returns the seconds until the planned rejoin, None without one."""
        when = self.context.outbox.deadlines.get(("channel", "rejoin"))
        return None if when is None else when - now


# -- what follows ------------------------------------------------------------------------


def test_a_retryable_refusal_is_tried_again_by_the_policy_from_attempt_one() -> None:
    refusing = Refusing()
    delays = []
    for _ in range(8):
        refusing.follow(Verdict.RETRY)
        delays.append(refusing.rejoin_in())
    assert delays == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    assert refusing.rejoin.final_error is None


def test_a_rate_limit_waits_thirty_seconds_at_least() -> None:
    refusing = Refusing()
    refusing.follow(Verdict.RETRY_LATER)
    assert refusing.rejoin_in() == 30.0
    assert refusing.rejoin.paused_until(NOW + 29.9) == NOW + 30.0
    assert refusing.rejoin.paused_until(NOW + 30.0) is None


def test_a_longer_delay_of_the_policy_wins_over_the_pause() -> None:
    refusing = Refusing(reconnect_after=lambda tries: 90.0)
    refusing.follow(Verdict.RETRY_LATER)
    assert refusing.rejoin_in() == 90.0


def test_other_refusals_pause_nothing() -> None:
    refusing = Refusing()
    refusing.follow(Verdict.RETRY)
    assert refusing.rejoin.paused_until(NOW) is None


@pytest.mark.parametrize("verdict", [Verdict.FINAL, Verdict.FINAL_UNTIL_TOKEN])
def test_a_final_refusal_rests_and_is_reported(verdict: Verdict) -> None:
    refusing = Refusing(has_token_source=True)
    error = refusing.follow(verdict)
    assert (refusing.rejoin.final_error, refusing.rejoin_in()) == (error, None)
    assert refusing.context.outbox.pop_events() == [ErrorReported(error, "channel")]
    assert not error.retryable


def test_what_was_final_is_tried_once_more_when_the_user_asks() -> None:
    refusing = Refusing()
    refusing.follow(Verdict.FINAL)
    refusing.rejoin.allow()
    assert refusing.rejoin.final_error is None


# -- tokens ------------------------------------------------------------------------------


def test_an_expired_token_is_tried_again_where_another_can_be_had() -> None:
    refusing = Refusing(has_token_source=True)
    error = refusing.follow(Verdict.AFTER_TOKEN)
    assert refusing.rejoin_in() == 0.5
    assert error.retryable
    assert refusing.rejoin.final_error is None


def test_after_three_refusals_in_a_row_the_token_source_is_no_remedy() -> None:
    refusing = Refusing(has_token_source=True)
    refusing.follow(Verdict.AFTER_TOKEN)
    refusing.follow(Verdict.AFTER_TOKEN)
    assert refusing.rejoin.final_error is None
    error = refusing.follow(Verdict.AFTER_TOKEN)
    assert refusing.rejoin.final_error is error


def test_a_join_in_between_starts_the_count_of_refused_tokens_anew() -> None:
    refusing = Refusing(has_token_source=True)
    for _ in range(10):
        refusing.follow(Verdict.AFTER_TOKEN)
        refusing.rejoin.joined()
    assert refusing.rejoin.final_error is None


def test_an_expired_token_without_a_source_rests_until_another_comes() -> None:
    refusing = Refusing()
    error = refusing.follow(Verdict.AFTER_TOKEN)
    before = refusing.rejoin.final_error
    assert refusing.rejoin.token_changed()
    assert (before, refusing.rejoin.final_error) == (error, None)
    assert not refusing.rejoin.token_changed()


def test_a_refusal_for_another_reason_does_not_wait_for_a_token() -> None:
    refusing = Refusing()
    error = refusing.follow(Verdict.FINAL)
    assert not refusing.rejoin.token_changed()
    assert refusing.rejoin.final_error is error


@pytest.mark.parametrize("verdict", [Verdict.AFTER_TOKEN, Verdict.FINAL_UNTIL_TOKEN])
def test_a_token_that_changed_before_the_refusal_came_is_tried(verdict: Verdict) -> None:
    """The refusal was of the earlier token, and no later refusal would come."""
    refusing = Refusing()
    refusing.context.token = "new"
    error = refusing.follow(verdict)
    assert (refusing.rejoin.final_error, refusing.rejoin_in()) == (None, 0.5)
    assert error.retryable


def test_a_good_token_that_crossed_the_close_of_the_old_one_is_tried() -> None:
    refusing = Refusing()
    refusing.rejoin.token_sent(refusing.context.token, pushed_at=NOW - 0.1)
    refusing.context.token = jwt(NOW + 3600.0)
    refusing.rejoin.token_sent(refusing.context.token, pushed_at=NOW - 0.1)
    refusing.follow(Verdict.AFTER_TOKEN)
    assert (refusing.rejoin.final_error, refusing.rejoin_in()) == (None, 0.5)


@pytest.mark.parametrize(
    ("token", "pushed_at"),
    [
        (jwt(NOW + 3600.0), None),
        (jwt(NOW + 3600.0), NOW - 11.0),
        (jwt(NOW - 1.0), NOW - 0.1),
        ("not a jwt", NOW - 0.1),
    ],
    ids=["joined with it", "pushed long ago", "expired itself", "cannot be read"],
)
def test_a_token_that_cannot_have_crossed_rests(token: str, pushed_at: float | None) -> None:
    refusing = Refusing(token)
    refusing.rejoin.token_sent(token, pushed_at)
    error = refusing.follow(Verdict.AFTER_TOKEN)
    assert refusing.rejoin.final_error is error


# -- counting ----------------------------------------------------------------------------


@pytest.mark.conformance("PC24")
@pytest.mark.parametrize(("lived", "delay"), [(4.9, 2.0), (5.0, 0.5)])
def test_only_a_join_that_lived_for_stable_after_resets_the_count(
    lived: float, delay: float
) -> None:
    refusing = Refusing()
    for _ in range(2):
        refusing.rejoin.schedule(NOW)
    refusing.rejoin.joined()
    refusing.rejoin.lost(lived)
    refusing.rejoin.schedule(NOW)
    assert refusing.rejoin_in() == delay


def test_a_join_makes_a_refused_channel_healthy_again() -> None:
    refusing = Refusing()
    refusing.rejoin.refusals = 5
    refusing.rejoin.joined()
    assert refusing.rejoin.refusals == 0


# -- without a policy --------------------------------------------------------------------


@pytest.mark.parametrize("verdict", [Verdict.RETRY, Verdict.RETRY_LATER])
def test_with_the_policy_disabled_nothing_is_tried_again(verdict: Verdict) -> None:
    refusing = Refusing(policy=ReconnectPolicy.disabled())
    refusing.follow(verdict)
    assert refusing.rejoin_in() is None


def test_with_the_policy_disabled_an_expired_token_rests_until_another_comes() -> None:
    refusing = Refusing(policy=ReconnectPolicy.disabled(), has_token_source=True)
    error = refusing.follow(Verdict.AFTER_TOKEN)
    assert refusing.rejoin.final_error is error
    assert refusing.rejoin.token_changed()


# -- final only before the first join ----------------------------------------------------


@pytest.mark.parametrize("verdict", [Verdict.FINAL, Verdict.FINAL_UNTIL_TOKEN])
def test_a_channel_that_was_joined_asks_again_for_final_after_and_tells_it(
    verdict: Verdict,
) -> None:
    refusing = Refusing()
    refusing.rejoin.joined()
    for now, delay in ((NOW, 0.5), (NOW + 100.0, 1.0), (NOW + 299.9, 2.0)):
        error = refusing.follow(verdict, now)
        assert refusing.rejoin_in(now) == delay
        assert refusing.context.outbox.pop_events() == [ErrorReported(error, "channel")]
        assert error.retryable
        assert refusing.rejoin.retries_final
    last = refusing.follow(verdict, NOW + 300.0)
    assert refusing.rejoin.final_error is last
    assert not last.retryable
    assert not refusing.rejoin.retries_final


def test_an_expired_token_waits_for_another_even_after_a_join() -> None:
    refusing = Refusing()
    refusing.rejoin.joined()
    error = refusing.follow(Verdict.AFTER_TOKEN)
    assert (refusing.rejoin.final_error, refusing.rejoin_in()) == (error, None)


def test_a_new_token_joins_before_the_pause_is_over() -> None:
    refusing = Refusing()
    refusing.rejoin.joined()
    refusing.follow(Verdict.FINAL_UNTIL_TOKEN)
    assert refusing.rejoin.token_changed()
    refusing.follow(Verdict.FINAL)
    assert not refusing.rejoin.token_changed()


@pytest.mark.parametrize("between", ["another refusal", "a lost link", "a long join"])
def test_whatever_else_comes_starts_final_after_anew(between: str) -> None:
    refusing = Refusing()
    refusing.rejoin.joined()
    refusing.follow(Verdict.FINAL)
    if between == "another refusal":
        refusing.follow(Verdict.RETRY, NOW + 200.0)
    elif between == "a lost link":
        refusing.rejoin.link_lost()
    else:
        refusing.rejoin.joined()
        refusing.rejoin.lost(5.0)
    refusing.follow(Verdict.FINAL, NOW + 301.0)
    assert refusing.rejoin.final_error is None


def test_a_join_that_is_closed_at_once_does_not_start_final_after_anew() -> None:
    refusing = Refusing()
    refusing.rejoin.joined()
    refusing.follow(Verdict.FINAL)
    refusing.rejoin.joined()
    refusing.rejoin.lost(4.9)
    error = refusing.follow(Verdict.FINAL, NOW + 300.0)
    assert refusing.rejoin.final_error is error


def test_with_the_policy_disabled_a_final_refusal_ends_a_joined_channel_too() -> None:
    refusing = Refusing(policy=ReconnectPolicy.disabled())
    refusing.rejoin.joined()
    error = refusing.follow(Verdict.FINAL)
    assert refusing.rejoin.final_error is error
