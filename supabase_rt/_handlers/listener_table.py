"""The handlers of one channel, or of the client's own events, in a pyee emitter.

pyee keeps the handlers and this subclass calls them. Three things differ from a bare emitter:

* Keys are binding ids: a wire name such as ``error`` would have a special meaning for pyee.
* Listeners are ``Handler`` objects: pyee would keep a function once that was registered twice.
* An ``error`` listener always exists, so nothing that pyee emits by itself can raise.

The handlers of each set of bindings are looked up once and then kept. ``emit`` of pyee takes a
lock and copies its listeners for every event.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pyee.base import EventEmitter

from .._payloads.postgres_change import PostgresChange
from .._payloads.postgres_data import PostgresData
from .._protocol.events import EventListener
from .._runtime.slow_handler import BLOCKING_AFTER, Stopwatch
from .handler import Handler

__all__ = ["ListenerTable"]

FOUND_LIMIT = 1024
"""The number of sets of bindings whose handlers are kept."""


def _ignore(*_: object) -> None:
    """The ``error`` listener that always exists."""


@dataclass(slots=True)
class _ListenerOf:
    """An ``EventListener`` made of two functions."""

    deliver: Callable[[Any], None]
    blocked: Callable[[float], None]


def _deliver_timed(listener: EventListener, payload: Any, stopwatch: Stopwatch) -> None:
    listener.deliver(payload)
    seconds = stopwatch.lap()
    if seconds > BLOCKING_AFTER:
        listener.blocked(seconds)


def _blocked_already_reported(seconds: float) -> None:
    """The ``blocked`` of several handlers: each of them was timed by itself."""


def _listener_of(handlers: tuple[Handler, ...], *, of_changes: bool) -> EventListener:
    """Returns any number of handlers as one listener, which calls them in their order.

    A listener ``of_changes`` takes ``PostgresData``. It makes one payload for each way in which
    its handlers want rows converted.
    """
    if len(handlers) == 1:
        (only,) = handlers
        if not of_changes:
            return only

        def deliver_change(data: PostgresData) -> None:
            only.deliver(PostgresChange(data, only.conversion))

        return _ListenerOf(deliver_change, only.blocked)

    def deliver_to_all(payload: Any) -> None:
        for handler in handlers:
            _deliver_timed(handler, payload, handler.stopwatch)

    def deliver_change_to_all(data: PostgresData) -> None:
        changes: dict[Any, PostgresChange] = {}
        for handler in handlers:
            change = changes.get(handler.conversion)
            if change is None:
                change = PostgresChange(data, handler.conversion)
                changes[handler.conversion] = change
            _deliver_timed(handler, change, handler.stopwatch)

    deliver = deliver_change_to_all if of_changes else deliver_to_all
    return _ListenerOf(deliver, _blocked_already_reported)


class ListenerTable(EventEmitter):
    """The listener table: handlers by key."""

    def __init__(self) -> None:
        super().__init__()
        self._handlers_of: dict[tuple[int | str, ...], tuple[Handler, ...]] = {}
        self.add_listener("error", _ignore)

    def attach(self, key: int | str, handler: Handler) -> None:
        """Adds a handler behind the others of ``key``."""
        self.add_listener(str(key), handler)
        self._handlers_of.clear()

    def detach(self, key: int | str, handler: Handler) -> None:
        """Removes a handler; one that is not there is ignored."""
        if handler in self.listeners(str(key)):
            self.remove_listener(str(key), handler)
            self._handlers_of.clear()

    def handlers(self) -> list[Handler]:
        """Returns the handlers of all keys."""
        return [
            listener
            for key in sorted(self.event_names())
            for listener in self.listeners(key)
            if isinstance(listener, Handler)
        ]

    def listener_for(
        self, keys: tuple[int | str, ...], *, of_changes: bool = False
    ) -> EventListener:
        """Returns the handlers of ``keys`` as one listener, valid until a handler comes or goes.

        A listener ``of_changes`` takes database changes as ``PostgresData``.
        """
        return _listener_of(self._find(keys), of_changes=of_changes)

    def deliver(self, keys: tuple[int | str, ...], payload: Any) -> None:
        """Gives one payload to the handlers of ``keys``, in the order of the keys."""
        found = self._find(keys)
        if found:
            listener = _listener_of(found, of_changes=type(payload) is PostgresData)
            found[0].stopwatch.start()
            _deliver_timed(listener, payload, found[0].stopwatch)

    def call(self, key: str, *args: Any) -> None:
        """Calls the handlers of one key with any number of arguments."""
        for handler in self._find((key,)):
            handler(*args)

    def _find(self, keys: tuple[int | str, ...]) -> tuple[Handler, ...]:
        found = self._handlers_of.get(keys)
        return self._look_up(keys) if found is None else found

    def _look_up(self, keys: tuple[int | str, ...]) -> tuple[Handler, ...]:
        found = tuple(
            listener
            for key in keys
            for listener in self.listeners(str(key))
            if isinstance(listener, Handler)
        )
        if len(self._handlers_of) > FOUND_LIMIT:
            self._handlers_of.clear()
        self._handlers_of[keys] = found
        return found
