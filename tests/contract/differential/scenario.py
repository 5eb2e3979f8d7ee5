"""The parts of a scenario. The steps are data, carried out by python_side.py and by runner.mjs.

Steps, in both languages:

    ("channel", name, topic, opts)        client.channel(topic, opts)
    ("direct", name, topic, opts)         RealtimeChannel(topic, opts, client)
    ("on", name, type, filter, handler, {"throws", "reads", "counts"})
    ("subscribe", name, {"timeout", "label", "react": {status: steps}})
    ("call", result, thing, method, ...)  starts a method, keeps what becomes of it
    ("await", result)                     waits until a call has ended
    ("read", result, thing, property)     keeps a property, or what a method returns
    ("same", result, thing, thing)        keeps whether two are one object
    ("options", result, name)             keeps the caller's options object of a channel
    ("hooks", result)                     keeps how many listeners for ``open`` the client has
                                          that it had not at the last such step
    ("ask", result, op, ...)              keeps what the server returns: ``do_*`` as below
    ("construct", result, options)        makes another client, keeps the error
    ("status", label, status, count)      waits for the count-th status of this name
    ("calls", handler, count)             waits for so many calls of a handler
    ("heartbeats", status, count)         waits for so many heartbeats of this status
    ("sleep", seconds)                    lets time pass, to show what does not happen
    ("throw",)                            raises, inside a reaction
    ("server", op, ...)                   the server acts or waits: ``do_*`` of scripted.py

Methods and properties have Python names; seconds are those of supabase-js, and a second lasts
``SCALE`` real ones on both sides. Values that JSON lacks: ``{"$seconds": n}``, ``{"$bytes":
hex}``, ``{"$thing": name}``, ``{"$tokens": [...], "after": s}``, ``{"$delays": [...]}``,
``{"$heartbeats": True}``, ``{"$logger": word}``, ``{"$filter": [[method, ...], ...]}``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["SCALE", "STAGGER", "TIMEOUT", "Differs", "Scenario"]

SCALE = 0.2
STAGGER = 0.05
"""Real seconds between the starts of two scenarios, so that they do not slow each other down."""


TIMEOUT = 40.0
"""The ``timeout`` of scenarios that give none, large enough for slow machines."""


@dataclass(frozen=True)
class Differs:
    """One value that differs between the languages, and the reason.

    ``at`` is the path in the record, such as ``results.r1`` or ``statuses.a``.
    """

    at: str
    js: Any
    ours: Any
    why: str


@dataclass(frozen=True)
class Scenario:
    """One story. ``covers``: ids of statements.py; ``rules``: names of explained.py."""

    id: str
    covers: tuple[str, ...]
    steps: list[Any]
    client: dict[str, Any] = field(default_factory=dict)
    rules: tuple[str, ...] = ()
    differs: tuple[Differs, ...] = ()

    def for_javascript(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "client": {"timeout": {"$seconds": TIMEOUT}, **self.client},
            "steps": self.steps,
        }
