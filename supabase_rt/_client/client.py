"""The public client: one socket, many channels."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final, Never, Self, TypeVar, overload

import aiohttp

from .._connection.codec import build_codec, tell_logger
from .._connection.connection import Connection
from .._handlers.dispatcher import Dispatcher
from .._handlers.middleware import Middleware
from .._handlers.pending_decorator import Decorator
from .._http.broadcast_api import BroadcastApi
from .._http.http_client import HttpClient
from .._name_hints import no_attribute
from .._printable import get_logger
from .._protocol.channel_options import ChannelConfig, check_seconds
from .._protocol.client_machine import ClientMachine
from .._protocol.reconnect_policy import ReconnectPolicy
from .._protocol.shared_state import SharedState
from .._runtime.http_session import TransportOptions
from .._runtime.outcome import Outcome
from .._wire.envelope import TOPIC_PREFIX
from .._wire.json_codec import dumps
from .._wire.serializer import MAX_FRAME, encode_client, is_too_large, message_from_object
from .._wire.urls import Endpoint, redact
from ..enums import ConnectionState, HeartbeatStatus
from ..errors import ConnectionFailed, RealtimeError
from ..types import ChannelOptions
from .channel import RealtimeChannel
from .client_options import (
    check_channel_keywords,
    check_drain_timeout,
    check_key,
    check_options,
    check_topic,
    check_unknown,
    codec_function,
    warn_of_seconds,
)
from .health import Health, look
from .parts import ClientParts
from .run import is_in_loop, run_until_stopped
from .send_limit import SendLimiter

__all__ = ["RealtimeClient"]

log: Final = get_logger("supabase_rt")

LEAVE_TIMEOUT = 3.0
"""Seconds that the server gets to answer the leaves at the end of a program."""


Handler = TypeVar("Handler", bound=Callable[..., Any])
Around = TypeVar("Around", bound=Middleware)


class RealtimeClient:
    """A client of one Realtime service. Creating it does no I/O and needs no event loop.

    Args:
        endpoint: ``wss://<ref>.supabase.co/realtime/v1``; ``ws``, ``http`` and ``https`` too.
        params: the query of the socket URL; ``apikey`` is required.
        timeout: seconds for a connection attempt, a join, a request.
        heartbeat_interval: seconds between heartbeats.
        heartbeat_timeout: seconds without an answer after which the link counts as dead; None for
            ``heartbeat_interval``, but at most 10 s.
        heartbeat_callback: called with ``(status, latency)``.
        reconnect: when to try again.
        reconnect_after: ``lambda tries: seconds``, as in supabase-js; wins over ``reconnect``.
        vsn: ``"2.0.0"`` or ``"1.0.0"``, the serializer.
        access_token: a function, plain or ``async``, that returns the user's token; called before
            every connection and every rejoin.
        headers: for the handshake and for HTTP requests.
        session: an ``aiohttp.ClientSession`` of your own, left open at the end.
        ssl: an ``ssl.SSLContext``, as for aiohttp.
        proxy: URL of an HTTP proxy.
        api_key_in: ``"url"``, or ``"header"`` to keep the key out of URLs (``x-api-key``).
        encode: message (a dict) to frame, instead of the serializer.
        decode: frame to message, instead of the serializer.
        logger: called with ``(kind, message, data)``, as in supabase-js.
        log_level: how much the *server* logs of this socket.
        types: how database columns are converted: ``"js"``, ``"python"`` or ``"raw"``.
        max_message_size: bytes; a larger message ends the connection.
        max_outbound: how many frames may wait to be written.
        presence_limit: ``(calls, seconds)`` of the server's limit for track and untrack, or None.
        send_limit: ``(calls, seconds)`` for broadcasts over the socket; those beyond it wait.
        disconnect_on_empty_channels_after: seconds without a channel after which the socket is
            closed; None for twice the heartbeat interval.
        drain_timeout: seconds that handlers get at the end to finish the events in their queues.

    Raises:
        ValueError, TypeError: an option that is unknown or cannot work.
    """

    def __init__(
        self,
        endpoint: str,
        *wrong: Never,
        params: Mapping[str, Any] | None = None,
        timeout: float = 10.0,
        heartbeat_interval: float = 25.0,
        heartbeat_timeout: float | None = None,
        heartbeat_callback: Callable[..., Any] | None = None,
        reconnect: ReconnectPolicy | None = None,
        reconnect_after: Callable[[int], float] | None = None,
        vsn: str = "2.0.0",
        access_token: Callable[[], str | Awaitable[str | None] | None] | None = None,
        headers: Mapping[str, str] | None = None,
        session: aiohttp.ClientSession | None = None,
        ssl: Any = None,
        proxy: str | None = None,
        api_key_in: str = "url",
        encode: Callable[..., Any] | None = None,
        decode: Callable[..., Any] | None = None,
        logger: Callable[[str, str, Any], Any] | None = None,
        log_level: str | None = None,
        types: str = "js",
        max_message_size: int = 16 * 2**20,
        max_outbound: int = 10_000,
        presence_limit: tuple[int, float] | None = (5, 30.0),
        send_limit: tuple[int, float] | None = None,
        disconnect_on_empty_channels_after: float | None = None,
        drain_timeout: float = 5.0,
        **unknown: Any,
    ) -> None:
        options = {key: value for key, value in locals().items() if key not in _NOT_OPTIONS}
        options["reconnect"] = reconnect = reconnect if reconnect is not None else ReconnectPolicy()
        check_unknown(unknown, list(options), "RealtimeClient", wrong)
        check_options(options)
        self._key = check_key(params)
        query = dict(params or {})
        if api_key_in == "header":
            del query["apikey"]
            headers = {**(headers or {}), "x-api-key": self._key}
        self._endpoint = Endpoint(endpoint)
        self._query, self._vsn, self._log_level = query, vsn, log_level
        self.endpoint_url()  # raises for a parameter that fits into no URL
        self._logger = logger
        self.timeout: float = float(timeout)
        self.heartbeat_interval: float = float(heartbeat_interval)
        transport = TransportOptions(self.timeout, headers, ssl, proxy, max_message_size)
        self._parts = self._build(
            context=SharedState(
                policy=reconnect,
                reconnect_after=reconnect_after,
                timeout=self.timeout,
                presence_limit=presence_limit,
                has_token_source=access_token is not None,
            ),
            transport=transport,
            options=options,
        )
        self._parts.dispatcher.set_heartbeat(heartbeat_callback)
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def __client_parts__(self) -> ClientParts:
        """The parts that channels and ``SupabaseClient`` share with this client."""
        return self._parts

    def _build(
        self, context: SharedState, transport: TransportOptions, options: dict[str, Any]
    ) -> ClientParts:
        """Builds the parts and gives each the ones it needs."""
        encode, decode = codec_function(options["encode"]), codec_function(options["decode"])
        machine = ClientMachine(
            context,
            heartbeat_interval=options["heartbeat_interval"],
            heartbeat_timeout=options["heartbeat_timeout"],
            idle_after=options["disconnect_on_empty_channels_after"],
        )
        host = redact(self._endpoint.base)
        logger = self.log if self._logger is not None else None
        dispatch = Dispatcher(logger, host, options["drain_timeout"])
        limit = options["send_limit"]
        connection = Connection(
            machine,
            build_codec(self._vsn, encode, decode, self._logger),
            self.endpoint_url,
            host,
            transport,
            dispatch,
            access_token=options["access_token"],
            http=options["session"],
            max_outbound=options["max_outbound"],
        )
        http_client = HttpClient(
            self._endpoint,
            self._key,
            transport,
            lambda: context.token,
            lambda: connection.http,
        )
        return ClientParts(
            machine,
            connection,
            dispatch,
            http_client,
            BroadcastApi(http_client, self._query, self._vsn),
            timeout=self.timeout,
            types=options["types"],
            vsn=self._vsn,
            snapshots=encode is None,
            logger=logger,
            send_limiter=limit and SendLimiter(limit, options["max_outbound"]),
        )

    _moved: ClassVar[dict[str, str]] = {
        "close": "disconnect()",
        "listen": "run_forever()",
        "endPoint": "endpoint_url()",
        "accessToken": "access_token_value, and set_auth() to change it",
        "reconnectAfterMs": "the option reconnect_after, in seconds",
    }

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            raise no_attribute(self, name)

    def __repr__(self) -> str:
        return f"<RealtimeClient {redact(self._endpoint.base)} {self.connection_state()}>"

    # -- channels ------------------------------------------------------------------------

    def channel(
        self,
        topic: str,
        opts: ChannelOptions | None = None,
        *,
        resubscribe_after: float | None = None,
        **unknown: Never,
    ) -> RealtimeChannel:
        """Returns the channel of ``topic``: the live one, or a new one.

        ``opts`` is ``{"config": {"broadcast": {...}, "presence": {...}, "private": True, ...}}``.
        With ``resubscribe_after`` the channel rejoins when no database change came for so many
        seconds. The reason is that a server can lose a subscription silently. Raises ``ValueError``
        for an unknown key, and for replay on a public channel. Also raises it if the live channel
        of the topic was made with other options.
        """
        check_topic(topic)
        check_channel_keywords(topic, unknown)
        full = TOPIC_PREFIX + topic
        config = ChannelConfig.build(opts, full)
        warn_of_seconds(full, config)
        seconds = resubscribe_after
        if seconds is not None:
            seconds = check_seconds("resubscribe_after", seconds)
        live = self._parts.client_machine.channels.get(full)
        if live is not None:
            difference = live.config.difference(config)
            if difference is None and seconds not in (None, live.silent_feed_watch.after):
                difference = (
                    f"resubscribe_after is {live.silent_feed_watch.after}, asked for {seconds}"
                )
            if difference is not None:
                raise ValueError(
                    f"channel {topic!r} is open with other options: {difference}; "
                    "remove_channel() it first, or leave the options out"
                )
            channel: RealtimeChannel = live.owner.channel
            return channel
        machine = self._parts.client_machine.open_channel(full, config)
        if seconds is not None:
            machine.silent_feed_watch.begin(seconds)
        return RealtimeChannel(full, client=self, _machine=machine)

    @property
    def channels(self) -> list[RealtimeChannel]:
        """The live channels, in the order they were made."""
        return [machine.owner.channel for machine in self._parts.client_machine.channels.values()]

    def get_channels(self) -> list[RealtimeChannel]:
        """The live channels, in the order they were made."""
        return self.channels

    def remove_channel(self, channel: RealtimeChannel) -> Outcome[str]:
        """Leaves ``channel``; see ``RealtimeChannel.unsubscribe``. The topic is free at once."""
        if not isinstance(channel, RealtimeChannel):
            raise TypeError(f"remove_channel takes a channel, not {type(channel).__name__}")
        return channel.unsubscribe()

    def remove_all_channels(self) -> Outcome[list[str]]:
        """Leaves every channel, then disconnects; the result is one status for each channel.

        The socket stays open for a channel that is subscribed while the others leave.
        """
        self._parts.connection.enter_loop(required="remove_all_channels")
        stays = self._parts.dispatcher.exempt_caller()
        leaving = [channel.unsubscribe() for channel in self.channels]
        outcome: Outcome[list[str]] = Outcome()

        async def finish() -> None:
            try:
                statuses = [await left for left in leaving]
                if not any(channel.joined_once for channel in self.channels):
                    await self.disconnect()
                outcome.succeed(statuses)
            except Exception as exc:
                if not outcome.is_awaited:
                    self._parts.dispatcher.on_unawaited_failure(exc)
                outcome.fail(exc)
            finally:
                stays()

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if task.cancelled():
                # Not reported if nobody awaits it: perhaps the loop is ending.
                text = "remove_all_channels was cancelled by somebody else"
                hint = "the channels are left; call disconnect() to close the socket"
                outcome.fail(RealtimeError(text, code="Cancelled", hint=hint))

        # Not a background task of the connection: disconnect() waits for those, and this task
        # waits for disconnect().
        task = asyncio.get_running_loop().create_task(finish(), name="supabase_rt:remove_all")
        self._tasks.add(task)
        task.add_done_callback(ended)
        return outcome

    # -- the socket ----------------------------------------------------------------------

    def connect(self) -> Outcome[None]:
        """Opens the socket; starts at the call, and does nothing while it is open or opening.

        Awaited, it raises ``ConnectionFailed`` if the first attempt fails, and nothing keeps
        running. If it is not awaited, or a channel is subscribed, a failure goes to the log and to
        ``error`` listeners. The client then keeps trying by its policy.
        """
        return self._parts.connection.connect()

    def disconnect(self, code: int = 1000, reason: str = "") -> Outcome[str]:
        """Closes the socket; once awaited, nothing is left running.

        Channels stay, ``errored``, and rejoin on the next ``connect``. ``code`` and ``reason``
        go into the close frame. The result is ``"ok"``.

        Each step has a time limit, so no peer can hold it up. The socket gets 2 s to write the
        accepted frames and close, then it is cut. HTTP requests under way get 3 s, handlers
        ``drain_timeout``, HTTP requests of those handlers 3 s, and idle HTTP connections 1 s.
        """
        whole = isinstance(code, int) and not isinstance(code, bool)
        if not whole or not (code == 1000 or 3000 <= code <= 4999):
            raise ValueError(f"a close code is 1000 or 3000 to 4999, not {code!r}")
        return self._parts.connection.disconnect(code, str(reason or ""))

    async def __aenter__(self) -> Self:
        """Connects. Raises ``ConnectionFailed`` for a final error, or after ``timeout``."""
        connection = self._parts.connection
        outcome = connection.connect(patient=True)
        limit = asyncio.timeout(self.timeout)
        try:
            async with limit:
                await outcome
        except BaseException as exc:
            cause = connection.last_error
            await self.disconnect()
            if isinstance(exc, TimeoutError) and limit.expired():
                raise self._no_connection(cause) from None
            raise
        return self

    def _no_connection(self, cause: BaseException | None) -> BaseException:
        if isinstance(cause, ConnectionFailed):
            return cause
        return ConnectionFailed(
            f"no connection to {redact(self._endpoint.base)} within {self.timeout:g} s",
            code="ConnectTimeout",
            hint="check the URL and the network, or raise timeout=",
        )

    async def __aexit__(self, *_: object) -> None:
        await self._leave()

    async def _leave(self) -> None:
        """Leaves every channel, then disconnects."""
        timeout = min(self.timeout, LEAVE_TIMEOUT)
        leaving = [channel.unsubscribe(timeout) for channel in self.channels]
        try:
            for left in leaving:
                await left
        finally:
            # Even if this task was cancelled: nobody would close the socket later.
            await self.disconnect()

    def run(self, *, drain_timeout: float | None = None) -> None:
        """Connects and runs until SIGINT, SIGTERM or ``disconnect``: the main line of a bot.

        At the end every channel is left cleanly. Handlers get ``drain_timeout`` seconds (the
        client's by default) to finish the events in their queues. Events that are not handled by
        then are counted, logged and reported by ``gap``. Raises final errors (``ConnectionFailed``
        for a wrong key, ``GaveUp``); tries again after all others.

        A signal that the program handles itself does not end the client, see ``run_forever``.
        """
        if is_in_loop():
            raise RuntimeError("run() starts an event loop; inside one: await run_forever()")
        asyncio.run(self.run_forever(drain_timeout=drain_timeout))

    async def run_forever(
        self, *, drain_timeout: float | None = None, handle_signals: bool | None = None
    ) -> None:
        """Does the same as ``run`` inside an event loop that is running already.

        With ``handle_signals=None`` SIGINT and SIGTERM end the client only if the program has no
        handler for them. The handler that ``asyncio.run`` sets for SIGINT does not count as a
        handler of the program. A handler of the program (of uvicorn, for example) is called as
        ever; the program then cancels this call. True takes both signals, False takes none. The
        program's own handlers are put back at the first signal, or at the end. True raises
        ``RuntimeError`` outside the main thread.
        """
        if drain_timeout is not None:
            self._parts.dispatcher.tasks.drain_timeout = check_drain_timeout(drain_timeout)
        await run_until_stopped(self._parts.connection, self._leave, handle_signals)

    async def wait_closed(self) -> None:
        """Returns when the client is closed for good; raises ``GaveUp`` if it gave up."""
        await self._parts.connection.wait_closed()

    def connection_state(self) -> ConnectionState:
        """Returns ``connecting``, ``open``, ``closing`` or ``closed``."""
        return self._parts.client_machine.state

    def is_connected(self) -> bool:
        """Returns True while the socket is open."""
        return self.connection_state() is ConnectionState.OPEN

    def is_connecting(self) -> bool:
        """Returns True while a socket is being opened, and between two attempts."""
        return self.connection_state() is ConnectionState.CONNECTING

    def is_disconnecting(self) -> bool:
        """Returns True while this side closes the socket."""
        return self.connection_state() is ConnectionState.CLOSING

    def endpoint_url(self) -> str:
        """Returns the URL of the socket, key included: do not log it."""
        return self._endpoint.socket_url(self._query, self._vsn, self._log_level)

    # -- tokens and heartbeats -----------------------------------------------------------

    @property
    def access_token_value(self) -> str | None:
        """The token that joins carry."""
        return self._parts.client_machine.context.token

    def set_auth(self, token: str | None = None) -> Outcome[None]:
        """Uses ``token`` at once for every joined channel and all joins to come.

        With None the ``access_token`` callback is asked; without a callback the present token
        stays. Raises ``TypeError`` or ``ValueError`` for a value that is no token. See
        docs/protocol.md#a-new-token.
        """
        return self._parts.connection.set_auth(token)

    def send_heartbeat(self) -> Outcome[None]:
        """Sends a heartbeat now; without a socket the callback is told ``disconnected``."""
        connection = self._parts.connection
        connection.enter_loop(required="send_heartbeat")
        if not self._parts.client_machine.send_heartbeat(connection.now()):
            self._parts.dispatcher.heartbeat(HeartbeatStatus.DISCONNECTED, None)
        connection.flush()
        return Outcome.of(None)

    def on_heartbeat(self, callback: Callable[..., Any] | None) -> None:
        """Calls ``callback(status, latency)`` for every heartbeat; replaces the callback before."""
        self._parts.dispatcher.set_heartbeat(callback)

    # -- the rest ------------------------------------------------------------------------

    def push(self, message: Mapping[str, Any]) -> None:
        """Sends ``{"topic", "event", "payload", "ref", "join_ref"}`` as it is.

        Held until the socket is open. Raises ``ValueError`` for a dict that is no message,
        ``TypeError`` for a payload that JSON cannot carry.
        """
        try:
            found = message_from_object({"payload": {}, **message})
        except RealtimeError as exc:
            raise ValueError(str(exc)) from None
        if not self._parts.snapshots:
            dumps(found.payload)
        elif is_too_large(encode_client(self._vsn, found)):
            raise ValueError(f"a message is at most {MAX_FRAME:,} bytes with its names")
        connection = self._parts.connection
        connection.enter_loop(required="push")
        self._parts.client_machine.push_raw(found)
        connection.flush()

    def log(self, kind: str, message: str, data: Any = None) -> None:
        """Calls the ``logger`` of the options, if there is one."""
        if self._logger is not None:
            tell_logger(self._logger, kind, message, data)

    def has_logger(self) -> bool:
        """Returns True if the options had a ``logger``."""
        return self._logger is not None

    def health(self) -> Health:
        """Returns the client's counters and states; cheap enough to call every second."""
        return look(self._parts)

    @overload
    def on(self, name: str, handler: Callable[..., Any]) -> Self: ...

    @overload
    def on(self, name: str, handler: None = None) -> Callable[[Handler], Handler]: ...

    def on(self, name: str, handler: Callable[..., Any] | None = None) -> Any:
        """Calls ``handler`` at each event ``name``; without a handler it is a decorator.

        The events and their arguments:

        - ``open``
        - ``close`` (code, reason)
        - ``error`` (exception, event, handler)
        - ``reconnecting`` (attempt, delay, cause)
        - ``reconnected`` (downtime)
        - ``heartbeat`` (status, latency)
        - ``gap`` (topic, since, until, reason)
        - ``resumed`` (topic, downtime)
        - ``gave_up`` (exception)

        A handler gets as many of the arguments as it accepts. Returns the client; raises
        ``ValueError`` for another name.
        """
        return self._listen(name, handler, once=False)

    @overload
    def once(self, name: str, handler: Callable[..., Any]) -> Self: ...

    @overload
    def once(self, name: str, handler: None = None) -> Callable[[Handler], Handler]: ...

    def once(self, name: str, handler: Callable[..., Any] | None = None) -> Any:
        """Calls ``handler`` at the next event ``name`` only; see ``on``."""
        return self._listen(name, handler, once=True)

    def _listen(self, name: str, handler: Callable[..., Any] | None, *, once: bool) -> Any:
        if handler is not None:
            self._parts.dispatcher.listen(name, handler, once=once)
            return self

        def register(function: Callable[..., Any]) -> None:
            self._parts.dispatcher.listen(name, function, once=once)

        return Decorator(register, "once" if once else "on")

    def off(self, name: str, handler: Callable[..., Any] | None = None) -> Self:
        """Removes ``handler`` from the event ``name``, or all handlers of it."""
        self._parts.dispatcher.unlisten(name, handler)
        return self

    def on_error(self, handler: Handler) -> Handler:
        """Calls ``handler`` with (exception, event, handler) for everything that goes wrong.

        The last two are None unless a handler of yours raised. The same as
        ``on("error", handler)``, but usable as a decorator: ``@client.on_error``. Returns
        ``handler``.
        """
        self._parts.dispatcher.listen("error", handler)
        return handler

    def use(self, middleware: Around) -> Around:
        """Calls ``middleware(event, call_next)`` around every handler of every channel.

        A middleware is plain or ``async``. It passes the event on with ``call_next(event)``, which
        an ``async`` one awaits; without that call the event is dropped. The first one added is
        the outermost. Handlers that are registered already are wrapped too. ``stream``,
        ``wait_for`` and the client's own events are never wrapped. An exception of a middleware
        counts as one of the handler. An ``async`` middleware gives a plain handler a queue.

        Usable as a decorator: ``@client.use``. Returns ``middleware``; raises ``TypeError`` for a
        value that cannot be called with two arguments.
        """
        self._parts.middleware.add(middleware)
        for machine in self._parts.client_machine.channels.values():
            machine.owner.handlers.rewrap()
        return middleware


_NOT_OPTIONS = ("self", "endpoint", "wrong", "unknown", "__class__")
"""The local names in ``RealtimeClient.__init__`` that are no keyword options."""
