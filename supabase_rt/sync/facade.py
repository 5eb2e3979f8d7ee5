"""What every blocking object is: it stands in front of an async one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .loop_thread import ask, threaded

__all__ = ["Decorator", "Facade"]

Inner = TypeVar("Inner")
Handler = TypeVar("Handler", bound=Callable[..., Any])


class Facade(Generic[Inner]):
    """In front of ``_inner``, which explains the names that are not offered here."""

    _inner: Inner

    def __repr__(self) -> str:
        return f"<sync {self._inner!r}>"

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name == "_inner":
                # copy and pickle ask an object for its names before it has any.
                raise AttributeError(name)
            # Its error names the Python spelling of a JavaScript name.
            getattr(self._inner, name)
            raise AttributeError(f"{name!r} is not offered by the blocking {type(self).__name__}")


class Decorator(Facade[Callable[[Any], Any]]):
    """What ``on`` returns where it was given no handler, in front of what that of ours returned."""

    def __init__(self, register: Callable[[Any], Any]) -> None:
        self._inner = register

    def __call__(self, function: Handler) -> Handler:
        ask(self._inner, threaded(function))
        return function
