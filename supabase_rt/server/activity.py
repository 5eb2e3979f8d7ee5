"""What happens on the server, told to whoever looks on; it costs nothing while nobody does."""

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
    ``join``, ``join_refused``, ``leave``, ``broadcast``, ``presence`` or ``change``.
    ``connection`` is the number of the socket it came from, None for HTTP and the database.
    ``text`` says in a few words what is particular about it; ``content`` is the payload or the
    row, for eyes that may see it. No key and no token is in any of them.
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
    """The onlookers of one server.

    On the way of every message: callers ask ``if activity.watched`` before they describe
    anything.
    """

    __slots__ = ("_listeners", "watched")

    def __init__(self) -> None:
        self._listeners: list[Listener] = []
        self.watched: bool = False

    def watch(self, listener: Listener) -> Callable[[], None]:
        """Tell ``listener`` of everything from now on; what comes back ends that."""
        self._listeners.append(listener)
        self.watched = True

        def end() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)
            self.watched = bool(self._listeners)

        return end

    def tell(self, happening: Happening) -> None:
        """Tell everybody; one that fails harms neither the server nor the others."""
        for listener in list(self._listeners):
            try:
                listener(happening)
            except Exception:
                logger.exception("an onlooker failed on %s", happening.kind)
