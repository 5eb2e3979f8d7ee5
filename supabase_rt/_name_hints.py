"""Hints for unknown names: a misspelt one, or the name that another library uses."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

__all__ = ["advice", "no_attribute", "snake_case"]

_BORDER = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def snake_case(name: str) -> str:
    """Returns ``eventType`` as ``event_type`` and ``endpointURL`` as ``endpoint_url``."""
    return _BORDER.sub("_", name).lower()


def advice(name: str, known: Sequence[str], instead: str = "known:", cutoff: float = 0.6) -> str:
    """Returns the hint for an unknown name: the nearest known name, or all of them."""
    near = difflib.get_close_matches(name, known, 1, cutoff)
    return f"did you mean {near[0]!r}?" if near else f"{instead} {', '.join(known) or 'none'}"


def no_attribute(owner: object, name: str) -> AttributeError:
    """Returns the error for an attribute that ``owner`` lacks, to be raised in ``__getattr__``.

    A class may list the replacements of other libraries' names in ``_moved``.
    """
    message = f"{type(owner).__name__!r} object has no attribute {name!r}"
    moved = getattr(type(owner), "_moved", {}).get(name)
    if moved is not None:
        return AttributeError(f"{message}; here it is {moved}")
    snake = snake_case(name)
    for spelling in (snake, f"{name}_", snake.removesuffix("_ms")):
        if spelling != name and _has(owner, spelling):
            unit = " and in seconds" if name.endswith("Ms") else ""
            return AttributeError(f"{message}; in Python it is {spelling!r}{unit}")
    return AttributeError(message)


def _has(owner: object, name: str) -> bool:
    """Returns ``hasattr`` without a call of ``__getattr__``, which would recurse."""
    try:
        own = object.__getattribute__(owner, "__dict__")
    except AttributeError:
        own = {}
    return name in own or hasattr(type(owner), name)
