"""A client whose calls wait for their result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Never, Self, TypeVar

from .. import ConnectionState, Health
from .. import RealtimeChannel as AsyncChannel
from .. import RealtimeClient as AsyncClient
from .._client.signals import handle_signals
from .facade import Decorator, facade
from .loop_thread import around, ask, begin, call, on_exit, result_of, threaded
from .sync_channel import RealtimeChannel

__all__ = ["RealtimeClient", "threaded_options"]

Handler = TypeVar("Handler", bound=Callable[..., Any])

RUN_IN_THREADS = ("access_token", "heartbeat_callback")
"""Options with functions that the loop calls; in a blocking program they may block."""


@facade
class RealtimeClient:
    """A blocking client of one Realtime service.

    Takes the arguments of ``supabase_rt.RealtimeClient``; ``access_token`` and
    ``heartbeat_callback`` are called in worker threads.
    """

    def __init__(self, endpoint: str | AsyncClient, *wrong: Never, **options: Any) -> None:
        # SupabaseClient has an async client already, and hands that one over.
        if not isinstance(endpoint, AsyncClient):
            endpoint = AsyncClient(endpoint, *wrong, **threaded_options(options))
        self._inner = endpoint
        self._facades: dict[AsyncChannel, RealtimeChannel] = {}
        on_exit(self._inner)

    async def _leave(self) -> None:
        """Leave every channel and disconnect; runs in the loop."""
        await self._inner.__aexit__(None, None, None)

    # -- channels --------------------------------------------------------------------------

    def channel(
        self,
        topic: str,
        opts: Mapping[str, Any] | None = None,
        *,
        resubscribe_after: float | None = None,
        **unknown: Never,
    ) -> RealtimeChannel:
        """Returns the live channel of ``topic``, or a new one.

        Options and errors are those of ``supabase_rt.RealtimeClient.channel``.
        """
        options = {"resubscribe_after": resubscribe_after, **unknown}
        return ask(self._channel, topic, opts, **options)

    def _channel(self, topic: str, opts: Any, **options: Any) -> RealtimeChannel:
        """Returns the facade of a channel; runs in the loop, the one thread that changes them."""
        channel = self._inner.channel(topic, opts, **options)
        self._channels()
        return self._facades[channel]

    def _channels(self) -> list[RealtimeChannel]:
        """Returns the facades of the live channels, one for each; runs in the loop."""
        known = self._facades
        self._facades = {
            channel: known.get(channel) or RealtimeChannel(channel)
            for channel in self._inner.channels
        }
        return list(self._facades.values())

    @property
    def channels(self) -> list[RealtimeChannel]:
        """The live channels, in the order they were made."""
        return ask(self._channels)

    def get_channels(self) -> list[RealtimeChannel]:
        """Returns the live channels, in the order they were made."""
        return self.channels

    def remove_channel(self, channel: RealtimeChannel) -> str:
        """Leave ``channel``; returns ``"ok"``, ``"timed out"`` or ``"error"``."""
        if not isinstance(channel, RealtimeChannel):
            raise TypeError(f"remove_channel takes a channel, not {type(channel).__name__}")
        return channel.unsubscribe()

    def remove_all_channels(self) -> list[str]:
        """Leave every channel, then disconnect; returns one status for each channel."""
        return call(self._inner.remove_all_channels)

    # -- the socket ------------------------------------------------------------------------

    def connect(self) -> None:
        """Open the socket. Raises ``ConnectionFailed`` if the first attempt fails."""
        call(self._inner.connect)

    def disconnect(self, code: int = 1000, reason: str = "") -> str:
        """Close the socket; the channels stay, and rejoin after the next ``connect``."""
        return call(self._inner.disconnect, code, reason)

    def __enter__(self) -> Self:
        """Connect. Raises ``ConnectionFailed`` for a final error, or after ``timeout``."""
        call(self._inner.__aenter__)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave every channel, then disconnect."""
        call(self._leave)

    def run(self, *, drain_timeout: float | None = None) -> None:
        """Run until SIGINT, SIGTERM or ``disconnect``, then leave every channel.

        Handlers get ``drain_timeout`` seconds, by default the client's, to finish waiting
        events. Raises final errors: ``ConnectionFailed`` for a wrong key, or ``GaveUp``.
        """
        running = begin(self._inner.run_forever, drain_timeout=drain_timeout)
        with handle_signals(lambda _: begin(self._leave)):
            result_of(running)

    def wait_closed(self) -> None:
        """Wait until the client is closed for good; raises ``GaveUp`` if it gave up."""
        call(self._inner.wait_closed)

    def connection_state(self) -> ConnectionState:
        """Returns ``connecting``, ``open``, ``closing`` or ``closed``."""
        return self._inner.connection_state()

    def is_connected(self) -> bool:
        """Returns True while the socket is open."""
        return self._inner.is_connected()

    def is_connecting(self) -> bool:
        """Returns True while a socket is being opened, or the next attempt is due."""
        return self._inner.is_connecting()

    def is_disconnecting(self) -> bool:
        """Returns True while the socket is being closed."""
        return self._inner.is_disconnecting()

    def endpoint_url(self) -> str:
        """Returns the URL of the socket, with the key."""
        return self._inner.endpoint_url()

    def set_auth(self, token: str | None = None) -> None:
        """Use ``token`` from now on, or ask ``access_token`` again."""
        call(self._inner.set_auth, token)

    @property
    def access_token_value(self) -> str | None:
        """The token in use."""
        return self._inner.access_token_value

    def send_heartbeat(self) -> None:
        """Send a heartbeat now."""
        call(self._inner.send_heartbeat)

    def on_heartbeat(self, callback: Callable[..., Any]) -> None:
        """Set the one callback for heartbeats, ``(status, latency)``; called in a worker thread."""
        ask(self._inner.on_heartbeat, threaded(callback))

    def push(self, message: Mapping[str, Any]) -> None:
        """Send ``{"topic", "event", "payload", "ref", "join_ref"}`` unchanged."""
        ask(self._inner.push, message)

    def health(self) -> Health:
        """Returns counts and states of the client."""
        return ask(self._inner.health)

    # -- events ----------------------------------------------------------------------------

    def on(self, name: str, handler: Callable[..., Any] | None = None) -> Any:
        """Call ``handler`` at each event of the client, in a worker thread.

        Without ``handler`` it is a decorator. The events are those of
        ``supabase_rt.RealtimeClient.on``.
        """
        return self._listen(self._inner.on, name, handler)

    def once(self, name: str, handler: Callable[..., Any] | None = None) -> Any:
        """Call ``handler`` at the next event only. See ``on``."""
        return self._listen(self._inner.once, name, handler)

    def _listen(self, register: Any, name: str, handler: Callable[..., Any] | None) -> Any:
        if handler is not None:
            ask(register, name, threaded(handler))
            return self
        return Decorator(ask(register, name))

    def off(self, name: str, handler: Callable[..., Any] | None = None) -> Self:
        """Remove ``handler`` from the event ``name``, or all its handlers."""
        ask(self._inner.off, name, None if handler is None else threaded(handler))
        return self

    def on_error(self, handler: Handler) -> Handler:
        """Call ``handler`` in a worker thread with each error: (exception, event, handler).

        Returns ``handler``, so it may be used as a decorator.
        """
        ask(self._inner.on_error, threaded(handler))
        return handler

    def use(self, middleware: Handler) -> Handler:
        """Call ``middleware(event, call_next)`` around every handler of every channel.

        A plain middleware runs in a worker thread, where ``call_next(event)`` waits for the
        handler. An ``async`` one runs in the background loop. See
        ``supabase_rt.RealtimeClient.use``.
        """
        ask(self._inner.use, around(middleware))
        return middleware


def threaded_options(options: dict[str, Any]) -> dict[str, Any]:
    """Returns the options of a client, with their functions wrapped to run in threads."""
    return {
        name: threaded(value) if name in RUN_IN_THREADS and callable(value) else value
        for name, value in options.items()
    }
