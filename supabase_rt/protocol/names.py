"""Names that a line of supabase-js brought along: the error says what they are in Python."""

from __future__ import annotations

import re

__all__ = ["no_attribute", "snake_case"]

_BORDER = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def snake_case(name: str) -> str:
    """``eventType`` as ``event_type``, ``endpointURL`` as ``endpoint_url``."""
    return _BORDER.sub("_", name).lower()


def no_attribute(owner: object, name: str) -> AttributeError:
    """The error for an attribute that ``owner`` lacks, to be raised in ``__getattr__``."""
    message = f"{type(owner).__name__!r} object has no attribute {name!r}"
    for spelling in (snake_case(name), f"{name}_"):
        if spelling != name and hasattr(type(owner), spelling):
            message = f"{message}; in Python it is {spelling!r}"
            break
    return AttributeError(message)
