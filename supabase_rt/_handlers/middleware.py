"""The functions around all handlers of a client's channels: ``client.use(middleware)``.

A middleware is called with the event and a ``call_next``, which calls the next middleware and
finally the handler. With plain middleware a plain handler stays on the reader's stack. With an
``async`` middleware, the events of a plain handler wait in a queue, as those of an ``async``
handler do.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeAlias

from .handler import OneEventCall
from .signatures import accepted_arguments, handler_name, is_coroutine_function

__all__ = ["CallNext", "Chain", "Middleware"]


class CallNext:
    """The second argument of a middleware: call it with the event to go on.

    ``handler`` is the function at the end of the chain, ``topic`` the topic of its channel. An
    ``async`` middleware awaits the call. In a plain one the call returns a coroutine if the next
    function is ``async``. It is awaited later, even if the middleware does not return it.
    """

    __slots__ = ("_call", "handler", "topic")

    def __init__(self, call: OneEventCall, handler: Callable[..., Any], topic: str) -> None:
        self._call = call
        self.handler: Callable[..., Any] = handler
        self.topic: str = topic

    @property
    def name(self) -> str:
        """The module and name of the handler, as in the log."""
        return handler_name(self.handler)

    def __call__(self, event: Any) -> Any:
        """Goes on with this event or another one."""
        return self._call(event)


Middleware: TypeAlias = Callable[[Any, CallNext], Any]


class _Noting(CallNext):
    """Keeps the coroutines of its calls, so that a middleware need not return them."""

    __slots__ = ("started",)

    def __init__(self, call: OneEventCall, handler: Callable[..., Any], topic: str) -> None:
        super().__init__(call, handler, topic)
        self.started: list[Any] = []

    def __call__(self, event: Any) -> Any:
        result = self._call(event)
        if inspect.iscoroutine(result):
            self.started.append(result)
        return result


class Chain:
    """The middleware of one client, in order of registration."""

    def __init__(self) -> None:
        self._links: list[Middleware] = []

    def __bool__(self) -> bool:
        return bool(self._links)

    def add(self, middleware: Middleware) -> None:
        """Adds a middleware; raises ``TypeError`` unless it takes an event and ``call_next``."""
        if accepted_arguments(middleware, 2) != 2:
            raise TypeError(f"a middleware takes (event, call_next): {handler_name(middleware)}")
        self._links.append(middleware)

    def wrap(
        self, call: OneEventCall, handler: Callable[..., Any], topic: str
    ) -> tuple[OneEventCall, bool]:
        """Puts all middleware around ``call``, the first one outermost.

        Returns the function to call, and True if one of the middleware is ``async``.
        """
        is_async = False
        for middleware in reversed(self._links):
            if is_coroutine_function(middleware):
                is_async = True
                call = _async_step(middleware, call, handler, topic)
            else:
                call = _plain_step(middleware, call, handler, topic)
        return call, is_async


def _async_step(
    middleware: Middleware, call: OneEventCall, handler: Callable[..., Any], topic: str
) -> OneEventCall:
    async def go_on(event: Any) -> Any:
        result = call(event)
        return await result if inspect.iscoroutine(result) else result

    call_next = CallNext(go_on, handler, topic)

    def step(event: Any) -> Any:
        return middleware(event, call_next)

    return step


def _plain_step(
    middleware: Middleware, call: OneEventCall, handler: Callable[..., Any], topic: str
) -> OneEventCall:
    def step(event: Any) -> Any:
        call_next = _Noting(call, handler, topic)
        try:
            result = middleware(event, call_next)
        except BaseException:
            for coroutine in call_next.started:
                coroutine.close()
            raise
        started = call_next.started
        # A middleware that calls ``call_next`` several times returns only one of the coroutines.
        if inspect.iscoroutine(result) and (len(started) < 2 or result not in started):
            return result
        return _in_turn(started) if started else None

    return step


async def _in_turn(coroutines: list[Any]) -> None:
    try:
        while coroutines:
            await coroutines.pop(0)
    finally:
        for coroutine in coroutines:
            coroutine.close()
