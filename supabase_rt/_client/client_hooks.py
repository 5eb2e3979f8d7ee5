"""What a program hangs into its client: the client's own events, and middleware."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self, TypeVar, overload

from .._handlers.middleware import Middleware
from .._handlers.pending_decorator import Decorator
from .parts import Core

__all__ = ["Hooks"]

Handler = TypeVar("Handler", bound=Callable[..., Any])
Around = TypeVar("Around", bound=Middleware)


class Hooks:
    """``on``, ``once``, ``off``, ``on_error`` and ``use`` of a client."""

    _core: Core

    @overload
    def on(self, name: str, handler: Callable[..., Any]) -> Self: ...

    @overload
    def on(self, name: str, handler: None = None) -> Callable[[Handler], Handler]: ...

    def on(self, name: str, handler: Callable[..., Any] | None = None) -> Any:
        """Call ``handler`` at each event ``name``; without a handler it is a decorator.

        ``open``; ``close`` (code, reason); ``error`` (exception, event, handler);
        ``reconnecting`` (attempt, delay, cause); ``reconnected`` (downtime); ``heartbeat``
        (status, latency); ``gap`` (topic, since, until, reason); ``resumed`` (topic, downtime);
        ``gave_up`` (exception). A handler gets as many of them as it accepts.
        Returns the client; raises ``ValueError`` for another name.
        """
        return self._listen(name, handler, once=False)

    @overload
    def once(self, name: str, handler: Callable[..., Any]) -> Self: ...

    @overload
    def once(self, name: str, handler: None = None) -> Callable[[Handler], Handler]: ...

    def once(self, name: str, handler: Callable[..., Any] | None = None) -> Any:
        """As ``on``, for the next event only."""
        return self._listen(name, handler, once=True)

    def _listen(self, name: str, handler: Callable[..., Any] | None, *, once: bool) -> Any:
        if handler is not None:
            self._core.dispatch.listen(name, handler, once=once)
            return self

        def register(function: Callable[..., Any]) -> None:
            self._core.dispatch.listen(name, function, once=once)

        return Decorator(register, "once" if once else "on")

    def off(self, name: str, handler: Callable[..., Any] | None = None) -> Self:
        """Remove ``handler`` from the event ``name``, or all handlers of it."""
        self._core.dispatch.unlisten(name, handler)
        return self

    def on_error(self, handler: Handler) -> Handler:
        """Call ``handler`` with (exception, event, handler) for everything that goes wrong.

        The last two are None where no handler of yours raised. ``on("error", handler)``, and
        a decorator as it stands: ``@client.on_error``. Returns ``handler``.
        """
        self._core.dispatch.listen("error", handler)
        return handler

    def use(self, middleware: Around) -> Around:
        """Call ``middleware(event, call_next)`` around every handler of every channel.

        Plain or ``async``; it goes on with ``call_next(event)``, which an ``async`` one awaits,
        or drops the event by not doing so. The first one given is the outermost. Handlers that
        are registered already are wrapped too, those of ``stream`` and ``wait_for`` and the
        client's own events never. What a middleware raises counts as raised by the handler.
        Around a plain handler an ``async`` one makes its events wait in a queue. A decorator as
        it stands: ``@client.use``. Returns ``middleware``; raises ``TypeError`` for what cannot
        be called with two arguments.
        """
        self._core.middleware.add(middleware)
        for machine in self._core.session.channels.values():
            machine.owner._rewrap()
        return middleware
