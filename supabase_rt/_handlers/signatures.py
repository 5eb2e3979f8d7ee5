"""Reads from a signature how a function of the user's can be called."""

from __future__ import annotations

import functools
import inspect
from typing import Any

__all__ = ["accepted_arguments", "check_asked", "handler_name", "is_coroutine_function"]


def handler_name(handler: Any) -> str:
    """Returns the module and qualified name of a function."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    name = getattr(handler, "__qualname__", None) or type(handler).__qualname__
    module = getattr(handler, "__module__", None)
    return f"{module}.{name}" if module else str(name)


def accepted_arguments(handler: Any, limit: int) -> int:
    """Returns the number of positional arguments to pass, at most ``limit``.

    Returns ``limit`` if the signature cannot be read. Raises ``TypeError`` for an object that is
    no function, or that needs more arguments.
    """
    if inspect.iscoroutine(handler):
        handler.close()
        name = handler.__name__
        raise TypeError(f"a handler is a function, not its result: pass {name}, not {name}(...)")
    if not callable(handler):
        raise TypeError(f"a handler is a function, not {type(handler).__name__}")
    try:
        parameters = inspect.signature(handler).parameters.values()
    except (ValueError, TypeError):
        return limit
    count = required = 0
    for parameter in parameters:
        needed = parameter.default is parameter.empty
        if parameter.kind is parameter.VAR_POSITIONAL:
            count = limit
        elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            count += 1
            required += needed
        elif parameter.kind is parameter.KEYWORD_ONLY and needed:
            raise TypeError(
                f"{handler_name(handler)} needs the keyword argument {parameter.name!r}, "
                "which no event carries"
            )
    if required > limit:
        raise TypeError(
            f"{handler_name(handler)} needs {required} arguments, an event carries {limit}"
        )
    return min(count, limit)


def is_coroutine_function(handler: Any) -> bool:
    """Returns True if a call only makes a coroutine, so it can be made later."""
    if inspect.iscoroutinefunction(handler):
        return True
    return inspect.iscoroutinefunction(getattr(type(handler), "__call__", None))  # noqa: B004


def check_asked(name: str, function: Any) -> None:
    """Raises ``TypeError`` unless ``function`` takes an event and returns its answer at once."""
    if accepted_arguments(function, 1) != 1:
        raise TypeError(f"{name} is a function of the event: {handler_name(function)} takes none")
    if is_coroutine_function(function):
        raise TypeError(f"{name} answers at once: make {handler_name(function)} a plain function")
