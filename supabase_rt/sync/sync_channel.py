"""A channel whose calls wait for their result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, Self, TypeVar

from .. import ChannelState
from .. import RealtimeChannel as AsyncChannel
from .facade import Decorator, facade
from .loop_thread import ask, call, threaded

__all__ = ["RealtimeChannel", "Stream"]

P = TypeVar("P")


class Stream(Generic[P]):
    """The events of a filter as a blocking iterator; also a context manager.

    It ends when the channel is closed, and raises the error that closed it, if any.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> P:
        try:
            found: P = call(self._stream.__anext__)
        except StopAsyncIteration:
            raise StopIteration from None
        return found

    def close(self) -> None:
        """Stop listening; waiting events are dropped."""
        call(self._stream.aclose)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@facade
class RealtimeChannel:
    """One topic of one client, made by ``client.channel(topic, opts)``.

    The methods are those of ``supabase_rt.RealtimeChannel``; each waits for its result.
    """

    def __init__(self, channel: AsyncChannel) -> None:
        self._inner = channel

    @property
    def topic(self) -> str:
        """The topic on the wire: ``realtime:room``."""
        return self._inner.topic

    @property
    def sub_topic(self) -> str:
        """The topic as given to ``client.channel``: ``room``."""
        return self._inner.sub_topic

    @property
    def state(self) -> ChannelState:
        """The state of the channel."""
        return self._inner.state

    @property
    def params(self) -> dict[str, Any]:
        """The merged options, ``{"config": {...}}``."""
        return self._inner.params

    @property
    def joined_once(self) -> bool:
        """True once ``subscribe`` was called."""
        return self._inner.joined_once

    @property
    def private(self) -> bool:
        """True if the policies on ``realtime.messages`` decide who may read and write."""
        return self._inner.private

    @property
    def last_downtime(self) -> float | None:
        """Seconds between the last loss and the rejoin after it; None before the first."""
        return self._inner.last_downtime

    # -- listening -------------------------------------------------------------------------

    def on(
        self, type: str, filter: Any, handler: Callable[..., Any] | None = None, **options: Any
    ) -> Any:
        """Call ``handler`` for every event that fits, in a worker thread; returns the channel.

        Without ``handler`` it is a decorator. Options and errors are those of
        ``supabase_rt.RealtimeChannel.on``. An ``async`` handler runs in the background loop,
        and must not call blocking methods.
        """
        return self._listen(self._inner.on, type, filter, handler, options)

    def once(
        self, type: str, filter: Any, handler: Callable[..., Any] | None = None, **options: Any
    ) -> Any:
        """Call ``handler`` for the first event that fits, then never again. See ``on``."""
        return self._listen(self._inner.once, type, filter, handler, options)

    def _listen(
        self, register: Any, type: str, filter: Any, handler: Any, options: dict[str, Any]
    ) -> Any:
        if handler is None:
            return Decorator(ask(register, type, filter, **options))
        ask(register, type, filter, threaded(handler), **options)
        return self

    def off(self, type: str, filter: Any = None, handler: Callable[..., Any] | None = None) -> Self:
        """Remove handlers: of a type, of one filter of it, or one function. See ``on``."""
        wrapped = None if handler is None else threaded(handler)
        ask(self._inner.off, type, filter, wrapped)
        return self

    def stream(self, type: str, filter: Any, maxsize: int = 1000, **options: Any) -> Stream[Any]:
        """Returns the events from this call on as a blocking iterator. See ``on``."""
        return Stream(ask(self._inner.stream, type, filter, maxsize, **options))

    def wait_for(
        self,
        type: str,
        filter: Any,
        check: Callable[[Any], Any] | None = None,
        timeout: float | None = None,
        **options: Any,
    ) -> Any:
        """Wait for the next event that fits and passes ``check`` (a quick, plain function).

        ``timeout`` is in seconds, None waits for ever; raises ``TimedOut`` after it.
        """
        return call(self._inner.wait_for, type, filter, check, timeout, **options)

    # -- joining and leaving ---------------------------------------------------------------

    def subscribe(
        self, callback: Callable[..., Any] | None = None, timeout: float | None = None
    ) -> Self:
        """Connect if necessary, join the channel, and wait until it is joined.

        ``callback(status, error)`` is called in a worker thread with every status, until the
        channel is closed. Raises ``Refused``, ``BindingMismatch``, ``SubscribeError`` or
        ``TimedOut``; after an error the channel stays subscribed.
        """
        wrapped = None if callback is None else threaded(callback)
        call(self._inner.subscribe, wrapped, timeout)
        return self

    def ready(self, timeout: float | None = None) -> None:
        """Wait until database changes arrive. Raises ``TimedOut`` or ``SubscribeError``."""
        call(self._inner.ready, timeout)

    def unsubscribe(self, timeout: float | None = None) -> str:
        """Leave and close the channel; returns ``"ok"``, ``"timed out"`` or ``"error"``."""
        return call(self._inner.unsubscribe, timeout)

    def teardown(self) -> None:
        """Remove the channel without telling the server."""
        ask(self._inner.teardown)

    # -- sending ---------------------------------------------------------------------------

    def send(
        self, args: Mapping[str, Any], opts: Mapping[str, Any] | None = None, **options: Any
    ) -> str:
        """Send ``{"type": "broadcast", "event": ..., "payload": ...}``.

        Returns ``"ok"``, ``"error"`` or ``"timed out"``. Raises ``ValueError`` or ``TypeError``
        for a message that cannot be sent.
        """
        return call(self._inner.send, args, opts, **options)

    def http_send(
        self, event: str, payload: Any, opts: Mapping[str, Any] | None = None, **options: Any
    ) -> dict[str, Any]:
        """Send a broadcast over HTTP; returns ``{"success": True}`` or raises ``SendError``."""
        return call(self._inner.http_send, event, payload, opts, **options)

    # -- presence --------------------------------------------------------------------------

    def track(
        self, payload: Mapping[str, Any], opts: Mapping[str, Any] | None = None, **options: Any
    ) -> str:
        """Be present with ``payload``; returns ``"ok"``, ``"error"`` or ``"timed out"``."""
        return call(self._inner.track, payload, opts, **options)

    def untrack(self, opts: Mapping[str, Any] | None = None, **options: Any) -> str:
        """End being present; returns ``"ok"``, ``"error"`` or ``"timed out"``."""
        return call(self._inner.untrack, opts, **options)

    def presence_state(self) -> dict[str, list[dict[str, Any]]]:
        """Returns a copy of the presence state: ``{key: [{"presence_ref": ..., ...}]}``."""
        return ask(self._inner.presence_state)
