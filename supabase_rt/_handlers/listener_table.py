"""pyee underneath: one emitter for each channel, one for the client's own events.

pyee keeps the listeners, our subclass tells them. Its keys are binding ids (a wire name such as
``error`` would mean something special to pyee), its listeners are registrations (the same
function registered twice is two registrations, where pyee would keep one), and an ``error``
listener is always there, so that nothing pyee emits by itself can raise.

``deliver`` looks its listeners up once for each set of bindings and keeps the tuple: pyee's own
``emit`` takes a lock and copies the listeners for every event.
"""

from __future__ import annotations

from typing import Any, Protocol

from pyee.base import EventEmitter

from .._payloads.postgres_change import PostgresChange
from .._payloads.postgres_data import PostgresData
from .._runtime.slow_handler import BLOCKING_AFTER, Stopwatch
from .handler import Registration

__all__ = ["Emitter", "Taker"]


def _ignore(*_: object) -> None:
    """The standing ``error`` listener."""


class Taker(Protocol):
    """Who takes the payloads of one kind of event; raises nothing that a handler raised."""

    def deliver(self, payload: Any, /) -> None:
        """Tell one payload. The stopwatch runs already; the caller ends the lap."""

    def blocked(self, seconds: float, /) -> None:
        """That lap was too long."""


def _take_timed(taker: Taker, payload: Any, stopwatch: Stopwatch) -> None:
    taker.deliver(payload)
    seconds = stopwatch.lap()
    if seconds > BLOCKING_AFTER:
        taker.blocked(seconds)


class _Several:
    """Any number of registrations as one, in their order."""

    __slots__ = ("_registrations",)

    def __init__(self, registrations: tuple[Registration, ...]) -> None:
        self._registrations = registrations

    def deliver(self, payload: Any) -> None:
        for registration in self._registrations:
            _take_timed(registration, payload, registration.stopwatch)

    def blocked(self, seconds: float) -> None:
        """Each of them was timed by itself."""


class _OneOfChanges:
    """A registration for changes, which come as ``PostgresData``."""

    __slots__ = ("_registration",)

    def __init__(self, registration: Registration) -> None:
        self._registration = registration

    def deliver(self, data: PostgresData) -> None:
        registration = self._registration
        registration.deliver(PostgresChange(data, registration.types))

    def blocked(self, seconds: float) -> None:
        self._registration.blocked(seconds)


class _SeveralOfChanges(_Several):
    """Several for changes: one payload for each way of converting the columns."""

    __slots__ = ()

    def deliver(self, data: PostgresData) -> None:
        payloads: dict[str, PostgresChange] = {}
        for registration in self._registrations:
            payload = payloads.get(registration.types)
            if payload is None:
                payload = payloads[registration.types] = PostgresChange(data, registration.types)
            _take_timed(registration, payload, registration.stopwatch)


class Emitter(EventEmitter):
    """A registry of registrations by key, with a remembered way to tell them."""

    def __init__(self) -> None:
        super().__init__()
        self._listeners_of: dict[tuple[int | str, ...], tuple[Registration, ...]] = {}
        self.add_listener("error", _ignore)

    def attach(self, key: int | str, registration: Registration) -> None:
        self.add_listener(str(key), registration)
        self._listeners_of.clear()

    def detach(self, key: int | str, registration: Registration) -> None:
        if registration in self.listeners(str(key)):
            self.remove_listener(str(key), registration)
            self._listeners_of.clear()

    def registrations(self) -> list[Registration]:
        """Every registration, of whatever key."""
        return [
            listener
            for key in sorted(self.event_names())
            for listener in self.listeners(key)
            if isinstance(listener, Registration)
        ]

    def _listeners(self, keys: tuple[int | str, ...]) -> tuple[Registration, ...]:
        found = tuple(
            listener
            for key in keys
            for listener in self.listeners(str(key))
            if isinstance(listener, Registration)
        )
        if len(self._listeners_of) > 1024:
            self._listeners_of.clear()
        self._listeners_of[keys] = found
        return found

    def deliver(self, keys: tuple[int | str, ...], payload: Any) -> None:
        """Tell every listener of ``keys`` one payload, in order of registration."""
        found = self._find(keys)
        if found:
            of_changes = type(payload) is PostgresData
            taker = self.change_listener(keys) if of_changes else self.listener(keys)
            found[0].stopwatch.start()
            _take_timed(taker, payload, found[0].stopwatch)

    def listener(self, keys: tuple[int | str, ...]) -> Taker:
        """All listeners of ``keys`` as one, until one comes or goes."""
        found = self._find(keys)
        return found[0] if len(found) == 1 else _Several(found)

    def change_listener(self, keys: tuple[int | str, ...]) -> Taker:
        """The same for changes of the database."""
        found = self._find(keys)
        return _OneOfChanges(found[0]) if len(found) == 1 else _SeveralOfChanges(found)

    def _find(self, keys: tuple[int | str, ...]) -> tuple[Registration, ...]:
        found = self._listeners_of.get(keys)
        return self._listeners(keys) if found is None else found

    def tell(self, key: str, *args: Any) -> None:
        """Tell the listeners of one key any number of arguments."""
        for listener in self._find((key,)):
            listener(*args)
