"""The parts that every blocking object has in common: its repr, its errors, its decorators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from .loop_thread import ask, threaded

__all__ = ["Decorator", "facade"]

Class = TypeVar("Class", bound=type[Any])
Handler = TypeVar("Handler", bound=Callable[..., Any])


def facade(cls: Class) -> Class:
    """Mark a class as the facade of an async one; each object keeps its async object as ``_inner``.

    Adds a repr, and an error for each name of the async object that is not offered here.
    """
    # The methods are set by setattr, so that type checkers do not see them and report unknown
    # names.
    for name, method in (("__repr__", _describe), ("__getattr__", _refuse)):
        setattr(cls, name, method)
    return cls


def _describe(self: Any) -> str:
    return f"<sync {self._inner!r}>"


def _refuse(self: Any, name: str) -> Any:
    if name == "_inner":
        # copy and pickle look names up before the object has any attributes.
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
