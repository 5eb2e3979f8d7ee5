"""The result of ``on`` and ``once`` if they are called without a handler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["Decorator"]

Handler = TypeVar("Handler", bound=Callable[..., Any])


class Decorator:
    """Registers the function that it decorates, and returns it.

    It is an object and no closure because of a common mistake: ``on(type, filter, show(x))``
    passes the result of ``show``, mostly None. The next call of the chain then raises an error
    that names the mistake.
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
