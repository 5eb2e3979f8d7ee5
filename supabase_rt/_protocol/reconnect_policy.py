"""How long to wait before the next attempt, and whether there is one."""

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
    """When a lost link or a refused channel is tried again.

    ``enabled``: False makes every loss final.
    ``initial_backoff``, ``max_backoff``: seconds before attempt 1, and at most.
    ``multiplier``: the growth from one attempt to the next.
    ``jitter``: 0 to 1; the share of a delay that chance may take off, so that the clients of a
    restarted server do not come back all at once.
    ``max_attempts``: attempts after which the client gives up; None is never.
    ``stable_after``: seconds a link must live before the count starts again.
    ``rejoin_closed``: whether a channel that the server closed unasked is joined again.
    ``steps``: delays in seconds of attempts 1, 2, ...; the last one repeats. Where given they
    are used instead of the exponential, still capped at ``max_backoff``.

    Raises ``ValueError`` that names the field and what is allowed.
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
        """Seconds to wait before ``attempt``; attempt 0 is at once.

        ``rng`` gives numbers from 0 to 1.
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
            # Growth of 1 overflows only where the exponent itself is beyond a float.
            return float(self.initial_backoff if self.multiplier == 1 else self.max_backoff)

    def allows(self, attempts_made: int) -> bool:
        """Whether another attempt may follow ``attempts_made`` of them."""
        if not self.enabled:
            return False
        return self.max_attempts is None or attempts_made < self.max_attempts

    if not TYPE_CHECKING:

        def __new__(cls, *_: Any, **given: Any) -> Self:
            check_names(cls, given)
            return object.__new__(cls)

    @classmethod
    def disabled(cls) -> Self:
        """Never try again: a lost link is final."""
        return cls(enabled=False)

    @classmethod
    def supabase_js(cls) -> Self:
        """The delays of supabase-js: 1, 2, 5 and then always 10 s, without jitter."""
        return cls(initial_backoff=1.0, max_backoff=10.0, jitter=0.0, steps=(1.0, 2.0, 5.0, 10.0))
