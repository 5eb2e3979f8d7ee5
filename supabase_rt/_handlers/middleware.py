"""What runs around the handlers of a client's channels: ``client.use(middleware)``.

A middleware is called with the event and with what comes next, the handler at last. A plain one
leaves a plain handler on the reader's stack; an ``async`` one makes it wait in a queue like a
handler that is ``async`` itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeAlias

from .handler import Handling
from .signatures import accepted_arguments, handler_name, is_coroutine_function

__all__ = ["CallNext", "Chain", "Middleware"]


class CallNext:
    """The second argument of a middleware: call it with the event to go on.

    ``handler`` is the function at the end of the chain, ``topic`` that of its channel. An
    ``async`` middleware awaits the call. A plain one gets a coroutine from it where what comes
    next is ``async``; whether it returns that or ignores it, it is awaited.
    """

    __slots__ = ("_call", "handler", "topic")

    def __init__(self, call: Handling, handler: Callable[..., Any], topic: str) -> None:
        self._call = call
        self.handler: Callable[..., Any] = handler
        self.topic: str = topic

    @property
    def name(self) -> str:
        """Module and name of the handler, as in the log."""
        return handler_name(self.handler)

    def __call__(self, event: Any) -> Any:
        """Go on with ``event``, as it came or another one."""
        return self._call(event)


Middleware: TypeAlias = Callable[[Any, CallNext], Any]


class _Noting(CallNext):
    """Remembers what was begun, so that a middleware need not hand it back."""

    __slots__ = ("begun",)

    def __init__(self, call: Handling, handler: Callable[..., Any], topic: str) -> None:
        super().__init__(call, handler, topic)
        self.begun: list[Any] = []

    def __call__(self, event: Any) -> Any:
        result = self._call(event)
        if inspect.iscoroutine(result):
            self.begun.append(result)
        return result


class Chain:
    """The middleware of one client, in order of registration."""

    def __init__(self) -> None:
        self._links: list[Middleware] = []

    def __bool__(self) -> bool:
        return bool(self._links)

    def add(self, middleware: Middleware) -> None:
        """Raises ``TypeError`` for what cannot be called with an event and what comes next."""
        if accepted_arguments(middleware, 2) != 2:
            raise TypeError(f"a middleware takes (event, call_next): {handler_name(middleware)}")
        self._links.append(middleware)

    def wrap(
        self, call: Handling, handler: Callable[..., Any], topic: str
    ) -> tuple[Handling, bool]:
        """``call`` inside all of them, the first one outermost; and whether one is ``async``."""
        is_async = False
        for middleware in reversed(self._links):
            if is_coroutine_function(middleware):
                is_async = True
                call = _async_step(middleware, call, handler, topic)
            else:
                call = _plain_step(middleware, call, handler, topic)
        return call, is_async


def _async_step(
    middleware: Middleware, call: Handling, handler: Callable[..., Any], topic: str
) -> Handling:
    async def go_on(event: Any) -> Any:
        result = call(event)
        return await result if inspect.iscoroutine(result) else result

    call_next = CallNext(go_on, handler, topic)

    def step(event: Any) -> Any:
        return middleware(event, call_next)

    return step


def _plain_step(
    middleware: Middleware, call: Handling, handler: Callable[..., Any], topic: str
) -> Handling:
    def step(event: Any) -> Any:
        call_next = _Noting(call, handler, topic)
        try:
            result = middleware(event, call_next)
        except BaseException:
            for coroutine in call_next.begun:
                coroutine.close()
            raise
        begun = call_next.begun
        # One of several is handed back by a middleware that goes on more than once.
        if inspect.iscoroutine(result) and (len(begun) < 2 or result not in begun):
            return result
        return _in_turn(begun) if begun else None

    return step


async def _in_turn(coroutines: list[Any]) -> None:
    try:
        while coroutines:
            await coroutines.pop(0)
    finally:
        for coroutine in coroutines:
            coroutine.close()
