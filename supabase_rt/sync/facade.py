"""The parts that every blocking object has in common: its repr, its errors, its decorators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from .loop_thread import ask, threaded

__all__ = ["Decorator", "facade"]

Class = TypeVar("Class", bound=type[Any])
Handler = TypeVar("Handler", bound=Callable[..., Any])


def facade(cls: Class) -> Class:
    """Mark a class whose objects stand in front of an async one, which they keep as ``_inner``.

    Adds a repr, and an error for each name of the async object that is not offered here.
    """
    # By setattr, so that a type checker sees neither of them, and reports an unknown name.
    for name, method in (("__repr__", _describe), ("__getattr__", _refuse)):
        setattr(cls, name, method)
    return cls


def _describe(self: Any) -> str:
    return f"<sync {self._inner!r}>"


def _refuse(self: Any, name: str) -> Any:
    if name == "_inner":
        # copy and pickle look for names before the object has any of its own.
        raise AttributeError(name)
    # The error of the async object gives the Python spelling of a JavaScript name.
    getattr(self._inner, name)
    raise AttributeError(f"{name!r} is not offered by the blocking {type(self).__name__}")


@facade
class Decorator:
    """The decorator that ``on`` returns when it is called without a handler."""

    def __init__(self, register: Callable[[Any], Any]) -> None:
        self._inner = register

    def __call__(self, function: Handler) -> Handler:
        ask(self._inner, threaded(function))
        return function
