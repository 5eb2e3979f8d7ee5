"""Presence callbacks with several arguments, as the PyPI package ``realtime`` calls them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._handlers.signatures import accepted_arguments, handler_name

__all__ = ["spread"]


def spread(callback: Callable[..., Any]) -> Any:
    """Returns a handler that calls ``callback`` with the key and both lists of presences.

    A callback of at most one argument is returned as it is: it gets the payload, as with ``on``.
    """
    count = accepted_arguments(callback, 3)
    return callback if count < 2 else _SpreadCallback(callback, count)


class _SpreadCallback:
    """A callback of several arguments as a handler of one; ``off`` finds it by the callback."""

    def __init__(self, callback: Callable[..., Any], count: int) -> None:
        self._callback = callback
        self._count = count
        self.__qualname__ = handler_name(callback)

    def __call__(self, payload: Any) -> Any:
        return self._callback(*list(payload.values())[1 : 1 + self._count])

    def __eq__(self, other: object) -> bool:
        return other is self or other == self._callback

    def __hash__(self) -> int:
        return hash(self._callback)
