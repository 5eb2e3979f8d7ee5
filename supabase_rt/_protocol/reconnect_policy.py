"""The options for reconnecting and rejoining: delays and the number of attempts."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from .._payloads.json_dataclass import JsonDataclass, check_names

__all__ = ["ReconnectPolicy"]


def _check_flag(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise ValueError(f"{name} is True or False, not {value!r}")


def _check_number(name: str, value: Any, low: float, high: float = math.inf) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not low <= value <= high or not _is_finite(value):
        limits = f"of at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
        raise ValueError(f"{name} is a finite number {limits}, not {value!r}")


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


@dataclass(frozen=True, slots=True)
class ReconnectPolicy(JsonDataclass):
    """The delays before a lost link or a refused channel is tried again.

    ``enabled``: False makes every loss final.
    ``initial_backoff``: seconds before attempt 1.
    ``max_backoff``: the longest delay in seconds.
    ``multiplier``: the growth from one attempt to the next.
    ``jitter``: 0 to 1; the largest share of a delay that is taken off at random. So the clients
    of a restarted server do not all come back at once.
    ``max_attempts``: attempts after which the client gives up; None for no limit.
    ``stable_after``: seconds that a link must live before the count starts anew.
    ``rejoin_closed``: True if a channel that the server closed by itself is joined again.
    ``steps``: delays in seconds of attempts 1, 2, ...; the last one repeats. They replace the
    exponential delays and are capped at ``max_backoff`` too.
    ``outage_share``: 0 to 1; a pause is at most this part of the time that the link has been
    away, but may always last ``initial_backoff``. Links that die before ``stable_after`` get at
    most 20 attempts a minute. With None, only ``max_backoff`` limits a pause.
    ``final_after``: seconds for which failures of the final kind are tried again after a first
    success. The time counts while nothing else comes.

    Raises ``ValueError`` that names the field and the allowed values.
    """

    enabled: bool = True
    initial_backoff: float = 0.5
    max_backoff: float = 30.0
    multiplier: float = 2.0
    jitter: float = 0.25
    max_attempts: int | None = None
    stable_after: float = 5.0
    rejoin_closed: bool = True
    steps: tuple[float, ...] = ()
    outage_share: float | None = 1 / 3
    final_after: float = 300.0

    def __post_init__(self) -> None:
        _check_flag("enabled", self.enabled)
        _check_flag("rejoin_closed", self.rejoin_closed)
        _check_number("max_backoff", self.max_backoff, 0)
        _check_number("initial_backoff", self.initial_backoff, 0)
        if self.initial_backoff > self.max_backoff:
            raise ValueError(
                f"initial_backoff is at most max_backoff ({self.max_backoff!r}), "
                f"not {self.initial_backoff!r}"
            )
        _check_number("multiplier", self.multiplier, 1)
        _check_number("jitter", self.jitter, 0, 1)
        _check_number("stable_after", self.stable_after, 0)
        _check_number("final_after", self.final_after, 0)
        if self.outage_share is not None:
            _check_number("outage_share", self.outage_share, 0, 1)
        self._check_max_attempts()
        self._check_steps()

    def _check_max_attempts(self) -> None:
        value: Any = self.max_attempts
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= 0
        if value is not None and not whole:
            raise ValueError(f"max_attempts is None or a whole number from 0, not {value!r}")

    def _check_steps(self) -> None:
        if not isinstance(self.steps, tuple):
            raise ValueError(f"steps is a tuple of seconds, not {self.steps!r}")
        for step in self.steps:
            _check_number("steps", step, 0)

    def delay(self, attempt: int, rng: Callable[[], float] = random.random) -> float:
        """Returns the seconds to wait before ``attempt``; attempt 0 is at once.

        ``rng`` returns numbers from 0 to 1.
        """
        if attempt <= 0:
            return 0.0
        base = self._step(attempt) if self.steps else self._exponential(attempt)
        capped = min(base, float(self.max_backoff))
        return capped * (1.0 - self.jitter * rng()) if self.jitter else capped

    def _step(self, attempt: int) -> float:
        return float(self.steps[min(attempt, len(self.steps)) - 1])

    def _exponential(self, attempt: int) -> float:
        if not self.initial_backoff:
            return 0.0
        try:
            return float(self.initial_backoff * float(self.multiplier) ** (attempt - 1))
        except OverflowError:
            # With a multiplier of 1 only the exponent itself can be too large for a float.
            return float(self.initial_backoff if self.multiplier == 1 else self.max_backoff)

    def allows(self, attempts_made: int) -> bool:
        """Returns True if another attempt may follow after ``attempts_made``."""
        if not self.enabled:
            return False
        return self.max_attempts is None or attempts_made < self.max_attempts

    def longest_pause(self, away: float) -> float:
        """Returns the longest pause before an attempt after ``away`` seconds without a link."""
        if self.outage_share is None:
            return math.inf
        return max(float(self.initial_backoff), self.outage_share * away)

    if not TYPE_CHECKING:

        def __new__(cls, *_: Any, **given: Any) -> Self:
            check_names(cls, given)
            return object.__new__(cls)

    @classmethod
    def disabled(cls) -> Self:
        """Returns a policy without retries: a lost link is final."""
        return cls(enabled=False)

    @classmethod
    def supabase_js(cls) -> Self:
        """Returns the delays of supabase-js: 1, 2, 5 and then always 10 s, without jitter."""
        return cls(
            initial_backoff=1.0,
            max_backoff=10.0,
            jitter=0.0,
            steps=(1.0, 2.0, 5.0, 10.0),
            outage_share=None,
        )
