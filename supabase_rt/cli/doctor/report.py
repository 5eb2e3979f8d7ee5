"""The results of the checks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

__all__ = ["Report", "Result"]


@dataclasses.dataclass(frozen=True)
class Result:
    """One line: name of the check, its state, the finding and the remedy."""

    name: str
    state: str
    """``ok``, ``warn``, ``fail`` or ``skip``."""
    text: str
    remedy: str = ""


class Report:
    """Collects the results in order, and shows each at once."""

    def __init__(self, show: Callable[[Result], None]) -> None:
        self._show = show
        self.results: list[Result] = []

    def _add(self, name: str, state: str, text: str, remedy: str = "") -> None:
        self.results.append(Result(name, state, text, remedy))
        self._show(self.results[-1])

    def ok(self, name: str, text: str) -> None:
        self._add(name, "ok", text)

    def warn(self, name: str, text: str, remedy: str) -> None:
        self._add(name, "warn", text, remedy)

    def fail(self, name: str, text: str, remedy: str) -> None:
        self._add(name, "fail", text, remedy)

    def skip(self, name: str, text: str) -> None:
        self._add(name, "skip", text)

    @property
    def failed(self) -> bool:
        """True if a check failed."""
        return any(result.state == "fail" for result in self.results)
