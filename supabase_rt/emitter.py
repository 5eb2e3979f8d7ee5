"""pyee underneath: one emitter for each channel, one for the client's own events.

pyee keeps the listeners, our subclass tells them. Its keys are binding ids (a wire name such as
``error`` would mean something special to pyee), its listeners are registrations (the same
function registered twice is two registrations, where pyee would keep one), and an ``error``
listener is always there, so that nothing pyee emits by itself can raise.

``deliver`` looks its listeners up once for each set of bindings and keeps the tuple: pyee's own
``emit`` takes a lock and copies the listeners for every event.
"""

from __future__ import annotations

import logging
from time import perf_counter
from typing import Any, Final

from pyee.base import EventEmitter

from .protocol.changes import PostgresChange, PostgresData
from .registration import Registration

__all__ = ["Emitter"]

log: Final = logging.getLogger("supabase_rt.handlers")

BLOCKING_AFTER = 0.1
"""Seconds on the loop after which a handler is named in a warning."""


def _ignore(*_: object) -> None:
    """The standing ``error`` listener."""


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
        listeners = self._listeners_of.get(keys)
        if listeners is None:
            listeners = self._listeners(keys)
        if type(payload) is PostgresData:
            self._deliver_change(listeners, payload)
            return
        started = perf_counter()
        for listener in listeners:
            handler = listener.direct
            if handler is None:
                listener(payload)
            else:
                # Registration.__call__, written out: one call fewer for most events there are.
                try:
                    result = handler(payload)
                except (KeyboardInterrupt, SystemExit):
                    raise
                except BaseException as exc:
                    listener.failed(exc, payload)
                else:
                    if result is not None:
                        listener.returned(result)
            ended = perf_counter()
            if ended - started > BLOCKING_AFTER:
                warn_of_blocking(listener, ended - started)
            started = ended

    def _deliver_change(self, listeners: tuple[Registration, ...], data: PostgresData) -> None:
        """A database change: one payload for each way of converting its columns."""
        payloads: dict[str, PostgresChange] = {}
        started = perf_counter()
        for listener in listeners:
            payload = payloads.get(listener.types)
            if payload is None:
                payload = payloads[listener.types] = PostgresChange(data, listener.types)
            listener(payload)
            ended = perf_counter()
            if ended - started > BLOCKING_AFTER:
                warn_of_blocking(listener, ended - started)
            started = ended

    def tell(self, key: str, *args: Any) -> None:
        """Tell the listeners of one key any number of arguments."""
        for listener in self._listeners_of.get((key,)) or self._listeners((key,)):
            listener(*args)


def warn_of_blocking(listener: Registration, seconds: float) -> None:
    """Everything in this loop stood still for that long, heartbeats included."""
    log.warning(
        "handler %s blocked the event loop for %.2f s; make it async or register it with "
        "thread=True",
        listener.name,
        seconds,
        extra={"handler": listener.name, "seconds": seconds},
    )
