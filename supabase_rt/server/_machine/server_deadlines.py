"""The deadlines of one session, kept as data, so that a test can move the clock."""

from __future__ import annotations

from collections.abc import Callable, Hashable

__all__ = ["ServerDeadlines"]


class ServerDeadlines:
    """Named deadlines; setting a name again replaces it."""

    def __init__(self) -> None:
        self._due: dict[Hashable, tuple[float, Callable[[], None]]] = {}
        self._next: float | None = None

    @property
    def deadline(self) -> float | None:
        """The earliest deadline, if any."""
        return self._next

    def set(self, name: Hashable, when: float, action: Callable[[], None]) -> None:
        """Call ``action`` at ``when``."""
        self._due[name] = (when, action)
        self._refresh()

    def drop(self, name: Hashable) -> None:
        """Forget a deadline; an unknown one is ignored."""
        if self._due.pop(name, None) is not None:
            self._refresh()

    def clear(self) -> None:
        """Forget all deadlines."""
        self._due.clear()
        self._next = None

    def fire(self, now: float) -> None:
        """Run all actions that are due, earliest first; an action may set and drop others."""
        while self._next is not None and self._next <= now:
            name = min(self._due, key=lambda each: self._due[each][0])
            _, action = self._due.pop(name)
            self._refresh()
            action()

    def _refresh(self) -> None:
        self._next = min((when for when, _ in self._due.values()), default=None)
