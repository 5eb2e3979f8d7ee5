"""Events of the server for watchers such as the status page; free of cost without a watcher."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Final

from .._printable import get_logger

__all__ = ["Activity", "Happening", "Listener"]

logger: Final = get_logger("supabase_rt.server")


@dataclasses.dataclass(frozen=True, slots=True)
class Happening:
    """One thing that happened.

    ``kind`` is ``connect``, ``disconnect``, ``refuse`` (a handshake), ``request`` (over HTTP),
    ``join``, ``join_refused``, ``leave``, ``broadcast``, ``presence`` or ``change``. ``connection``
    is the number of the socket it came from; None for HTTP and the database. ``text`` has a few
    words of detail. ``content`` is the payload or the row, which only some may see. ``reached`` is
    the number of channels that got it. No field has a key or a token.
    """

    kind: str
    connection: int | None = None
    topic: str = ""
    event: str = ""
    text: str = ""
    content: Any = dataclasses.field(default=None, repr=False)
    reached: int | None = None


Listener = Callable[[Happening], None]


class Activity:
    """The watchers of one server.

    Every message passes here, so callers test ``activity.watched`` before they build a
    ``Happening``.
    """

    __slots__ = ("_listeners", "watched")

    def __init__(self) -> None:
        self._listeners: list[Listener] = []
        self.watched: bool = False

    def watch(self, listener: Listener) -> Callable[[], None]:
        """Call ``listener`` with everything from now on; returns a function to end it."""
        self._listeners.append(listener)
        self.watched = True

        def end() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)
            self.watched = bool(self._listeners)

        return end

    def report(self, happening: Happening) -> None:
        """Call all listeners; a failing one affects neither the server nor the others."""
        for listener in list(self._listeners):
            try:
                listener(happening)
            except Exception:
                logger.exception("an onlooker failed on %s", happening.kind)
