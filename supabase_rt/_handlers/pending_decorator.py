"""What ``on`` and ``once`` return where they were given no handler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["Decorator"]

Handler = TypeVar("Handler", bound=Callable[..., Any])


class Decorator:
    """Registers the function it is put on and gives it back.

    An object and not a closure: ``on(type, filter, show(x))`` passes what ``show`` returned, which
    is mostly None, and the rest of the chain should say so instead of speaking of a function.
    """

    __slots__ = ("_call", "_register")

    def __init__(self, register: Callable[[Any], None], call: str) -> None:
        self._register = register
        self._call = call

    def __call__(self, function: Handler) -> Handler:
        self._register(function)
        return function

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"{self._call}() was called without a handler, so it is a decorator and has no "
            f"{name!r}; was the handler called, as in show(...), instead of passed, as in show?",
            name=name,
            obj=self,
        )
