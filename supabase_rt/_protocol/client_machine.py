"""The state machine of one client: no socket, no clock.

The connection calls ``link_up``, ``receive``, ``on_deadline`` and others, and passes the time where
it matters. After each call it collects messages and events, and sets one timer for
``next_deadline``.

``receive`` decides which frames are stale:

* Pending requests are dropped with their link, and no ref is used twice. So a reply of an older
  connection matches no request.
* A frame with another ``join_ref`` belongs to an older join. So does a ``phx_close`` or
  ``phx_error`` with another ``ref``.
* A frame with neither belongs to the channel that is joined on its topic, if there is one.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from .._wire.envelope import Message
from .._wire.json_codec import plain
from .._wire.serializer import BroadcastFrames
from ..enums import ConnectionState
from ..errors import ConnectionLost, DecodeError
from .channel.channel_machine import ChannelMachine
from .channel.channel_states import JOINED
from .channel.inbound import READERS
from .channel.join_probe import JoinProbe, is_unmatched
from .channel_options import ChannelConfig
from .events import (
    ConnectDue,
    Delivered,
    Delivery,
    GaveUpForGood,
    IdleReached,
    LinkClosed,
    LinkOpened,
    Reconnected,
    TokenWanted,
)
from .heartbeat import Heartbeat
from .join_queue import JoinQueue
from .outbox import OutgoingMessage
from .reconnect import Reconnector
from .requests import Request, RequestKind
from .shared_state import SharedState
from .token_refresh import TokenRefresh

__all__ = ["ClientMachine"]

RAW_BUFFER_LIMIT = 1000
LONGEST_DEFAULT_HEARTBEAT_TIMEOUT = 10.0


class ClientMachine:
    """Routes messages to channels and owns heartbeat, token, joins and reconnection."""

    def __init__(
        self,
        context: SharedState,
        *,
        heartbeat_interval: float = 25.0,
        heartbeat_timeout: float | None = None,
        idle_after: float | None = None,
    ) -> None:
        self.context = context
        self.channels: dict[str, ChannelMachine] = {}
        self.state: ConnectionState = ConnectionState.CLOSED
        self.wanted: bool = False
        """True if the user wants a link. Only this decides about reconnecting."""
        self.heartbeat: Heartbeat = Heartbeat(
            context,
            heartbeat_interval,
            heartbeat_timeout or min(heartbeat_interval, LONGEST_DEFAULT_HEARTBEAT_TIMEOUT),
        )
        self._idle_after = 2 * heartbeat_interval if idle_after is None else idle_after
        self._outbox = context.outbox
        self._requests = context.requests
        self._joins = JoinQueue(context)
        self._probes = JoinProbe(context)
        self._reconnector = Reconnector(context)
        self._token_refresh = TokenRefresh(context)
        self._leaving: dict[str, ChannelMachine] = {}
        # The phx_close after the reply to a leave is expected, so it does not count as stale.
        self._left: deque[str] = deque(maxlen=256)
        self._raw: list[Message] = []
        self._lost_at: float | None = None
        self._token_asked = False
        context.wait_for_join = self._joins.add

    # -- collecting ----------------------------------------------------------------------

    def pop_frames(self) -> list[OutgoingMessage]:
        """Remove and return the messages to write, in order."""
        return self._outbox.pop_frames()

    def pop_events(self) -> list[Any]:
        """Remove and return the events, in order."""
        return self._outbox.pop_events()

    def next_deadline(self) -> float | None:
        """Returns the time of the next ``on_deadline`` call, or None."""
        return self._outbox.deadlines.next()

    # -- the link ------------------------------------------------------------------------

    def connect(self) -> None:
        """Ask for a link. Does nothing if one is wanted already."""
        if self.wanted:
            return
        self.wanted = True
        self.state = ConnectionState.CONNECTING
        self._outbox.deadlines.cancel("idle")
        self._reconnector.start()

    def link_up(self, now: float, unix_time: float) -> None:
        """Start on an open socket; ``unix_time`` is by the server's clock if it told its time."""
        context = self.context
        self.state = ConnectionState.OPEN
        context.is_open = True
        context.last_frame_at = now
        context.unix_time_offset = unix_time - now
        self._token_asked = False
        self._reconnector.link_up(now)
        self.heartbeat.start(now)
        self._token_refresh.plan(now)
        self._outbox.emit(LinkOpened())
        if self._lost_at is not None:
            self._outbox.emit(Reconnected(now - self._lost_at))
            self._lost_at = None
        for channel in list(self.channels.values()):
            channel.link_up(now)
        self._pump(now)
        raw, self._raw = self._raw, []
        for message in raw:
            self._outbox.send(message)

    def link_lost(self, error: BaseException, now: float) -> None:
        """Handle a lost socket, or one that could not be opened."""
        was_open = self.context.is_open
        self._link_gone(error, now)
        if not self.wanted:
            return
        if was_open:
            self._lost_at = now
        gave_up = self._reconnector.next_attempt(error, now)
        if gave_up is None:
            self.state = ConnectionState.CONNECTING
        else:
            self.give_up(gave_up)

    def loop_ended(self, error: BaseException, now: float) -> None:
        """Drop the link, whose event loop ended, and connect at once in the next loop.

        That is neither a loss nor an attempt: nothing failed, and nobody is to wait.
        """
        was_open = self.context.is_open
        self._link_gone(error, now)
        if not self.wanted:
            return
        if was_open:
            self._lost_at = now
        self.state = ConnectionState.CONNECTING
        self._reconnector.loop_ended(now)

    def _link_gone(self, error: BaseException, now: float) -> None:
        if self.context.is_open and isinstance(error, ConnectionLost):
            self._outbox.emit(LinkClosed(error.close_code or 1006, error.reason))
        self.context.is_open = False
        self.state = ConnectionState.CLOSED
        self.heartbeat.stop()
        self._token_refresh.stop()
        self._joins.clear()
        self._probes.clear(self.channels.values(), now)
        self._outbox.deadlines.cancel("joins")
        # All requests at once: a search by each channel would be quadratic.
        for request in self._requests:
            if request.kind is not RequestKind.LEAVE:
                self._requests.pop(request.ref)
                request.channel.dropped(request)
        for channel in list(self._leaving.values()):
            channel.link_lost(error, now)
        self._leaving.clear()
        for channel in list(self.channels.values()):
            channel.link_lost(error, now)

    def disconnect(self, now: float, code: int = 1000, reason: str = "") -> None:
        """Give up the link by the user's wish. Channels stay errored, for the next ``connect``."""
        if self.wanted:
            self._close_by_user(now, code, reason)
        for channel in self.channels.values():
            channel.end_waiting()

    def _close_by_user(self, now: float, code: int, reason: str) -> None:
        self._stop_wanting_link()
        text = f"socket closed: {code}" + (f" ({reason})" if reason else "")
        error = ConnectionLost(text, close_code=code, reason=reason, retryable=False)
        self._link_gone(error, now)
        self.state = ConnectionState.CLOSING

    def link_closed(self) -> None:
        """Note that the socket which ``disconnect`` gave up is closed."""
        if not self.wanted:
            self.state = ConnectionState.CLOSED

    def give_up(self, error: Any) -> None:
        """Stop for good and close every channel with the reason."""
        self._stop_wanting_link()
        self.state = ConnectionState.CLOSED
        for channel in list(self.channels.values()):
            if channel.subscribed_once:
                channel.give_up(error)
                self._forget(channel)
        self._outbox.emit(GaveUpForGood(error))

    def cancel_first_attempt(self) -> None:
        """Stop after a failed first attempt, whose error was raised to the caller."""
        self._stop_wanting_link()
        self.state = ConnectionState.CLOSED

    def _stop_wanting_link(self) -> None:
        self.wanted = False
        self._reconnector.stop()
        self._outbox.deadlines.cancel("idle")
        self._lost_at = None

    # -- receiving -----------------------------------------------------------------------

    def receive(self, message: Message, now: float) -> Delivery | None:
        """Apply one message.

        Returns the delivery that it leads to. If other output must come before it, the delivery
        becomes an event instead. Raises ``DecodeError`` for an unreadable payload, which changes
        nothing.
        """
        self.context.last_frame_at = now
        channel = self.channels.get(message.topic)
        try:
            if channel is not None and channel.state is JOINED:
                join_ref = message.join_ref
                reader = READERS.get(message.event)
                if reader is not None and (join_ref is None or join_ref == channel.join_ref):
                    delivery: Delivery | None = reader(channel.inbound, message.payload)
                    if delivery is None or self._outbox.is_quiet:
                        return delivery
                    self._outbox.emit(Delivered(*delivery))
                    return None
            self._receive_other(message, channel, now)
        except DecodeError as error:
            error.topic, error.event = message.topic, message.event
            raise
        return None

    def _receive_other(self, message: Message, channel: ChannelMachine | None, now: float) -> None:
        """Apply a reply, an end of a channel, or a message that no joined channel expects."""
        event = message.event
        if event == "phx_reply":
            self._reply(message, now)
        elif event in ("phx_close", "phx_error"):
            self._ended_by_server(message, now)
        elif channel is None or (channel.state is JOINED and event not in READERS):
            self.context.counters.unknown += 1
        else:
            self.context.counters.stale += 1
        self._pump(now)

    def _reply(self, message: Message, now: float) -> None:
        payload = plain(message.payload)
        if not isinstance(payload, dict) or not isinstance(payload.get("status"), str):
            raise DecodeError("a reply without a status")
        status, response = payload["status"], payload.get("response")
        if self.heartbeat.replied(message.ref, status, now):
            return
        request = self._requests.pop(message.ref)
        channel = request.channel if request is not None else self._probes.answered(message.ref)
        if channel is None:
            self.context.counters.stale += 1
            return
        if request is not None:
            channel.replied(request, status, response, now)
        if channel.state is JOINED and is_unmatched(status, response):
            # The server does not know the channel: its close got lost in an unreadable frame.
            channel.crashed(response, now)
        self._settle(channel, now)

    def unreadable(self, error: DecodeError, now: float) -> None:
        """Count an unreadable frame. If it has no topic, all channels may have missed something."""
        self.context.counters.decode_errors += 1
        channel = self.channels.get(error.topic)
        if not error.topic and self.context.is_open:
            self._probes.soon(now)
        elif channel is not None and channel.state is JOINED:
            channel.inbound.missed(now, now, error.event)

    def _ended_by_server(self, message: Message, now: float) -> None:
        channel = self._addressee(message)
        if channel is None:
            if str(message.ref) not in self._left:
                self.context.counters.stale += 1
            return
        if message.event == "phx_error":
            channel.crashed(plain(message.payload), now)
        else:
            channel.closed_by_server(now)
        self._settle(channel, now)

    def _addressee(self, message: Message) -> ChannelMachine | None:
        """Returns the channel of a ``phx_close`` or ``phx_error``.

        Both carry the ref of the join twice, as ``join_ref`` and as ``ref``.
        """
        given = {ref for ref in (message.join_ref, message.ref) if ref is not None}
        channel = self.channels.get(message.topic)
        if not given:
            return channel if channel is not None and channel.state is JOINED else None
        ref = str(given.pop())
        if given:
            return None
        leaving = self._leaving.get(ref)
        if leaving is not None and leaving.topic == message.topic:
            return leaving
        return channel if channel is not None and channel.join_ref == ref else None

    def _settle(self, channel: ChannelMachine, now: float) -> None:
        """Remove the channel from the registry if it is closed for good."""
        if channel.removed:
            self._forget(channel)
            self.watch_idle(now)

    def _forget(self, channel: ChannelMachine) -> None:
        ref = channel.left_ref
        if ref is not None and self._leaving.pop(ref, None) is not None:
            self._left.append(ref)
        if self.channels.get(channel.topic) is channel:
            del self.channels[channel.topic]

    # -- time ----------------------------------------------------------------------------

    def on_deadline(self, now: float) -> None:
        """Run every deadline that is due at ``now``."""
        deadlines = self._outbox.deadlines
        while (key := deadlines.pop_due(now)) is not None:
            if isinstance(key, Request):
                key.channel.timed_out(key, now)
                self._settle(key.channel, now)
            elif isinstance(key, tuple):
                channel, name = key
                channel.woken(name, now)
                self._settle(channel, now)
            else:
                self._due(str(key), now)
        self._pump(now)

    def _due(self, name: str, now: float) -> None:
        if name == "beat":
            self.send_heartbeat(now)
        elif name == "beat-ack":
            self.heartbeat.overdue(now, self._is_joining)
        elif name == "connect":
            self._outbox.emit(ConnectDue())
        elif name == "probe":
            self._probes.ask(self.channels.values(), now)
        elif name == "token":
            self._token_refresh.due(now)
        elif name == "idle":
            self._outbox.emit(IdleReached())

    def _is_joining(self) -> bool:
        return any(request.kind is RequestKind.JOIN for request in self._requests)

    def send_heartbeat(self, now: float) -> bool:
        """Send a heartbeat and ask for a new token. Returns False without a link."""
        if not self.context.is_open:
            return False
        self.heartbeat.beat(now)
        if self.context.has_token_source:
            self._outbox.emit(TokenWanted(blocking=False))
        return True

    def _pump(self, now: float) -> None:
        """Write the joins that are allowed now, and ask for a token if one needs it."""
        if not self.context.is_open or not self._joins:
            return
        if self._joins.wants_token and not self._token_asked:
            self._token_asked = True
            self._outbox.emit(TokenWanted(blocking=True))
        self._joins.pump(now)

    # -- tokens --------------------------------------------------------------------------

    def set_token(self, token: str | None, now: float) -> bool:
        """Use ``token`` from now on and send it to every joined channel.

        Returns True if it differs from the last one.
        """
        changed = token != self.context.token
        if changed:
            self.context.token = token
            self.context.token_generation += 1
            self._token_refresh.plan(now)
            for channel in list(self.channels.values()):
                channel.token_changed(now)
        self.token_arrived(now)
        return changed

    def token_arrived(self, now: float) -> None:
        """The token source has answered or failed: write the joins that waited for it."""
        self._token_asked = False
        self._joins.token_arrived()
        self._pump(now)

    # -- channels ------------------------------------------------------------------------

    def open_channel(self, topic: str, config: ChannelConfig) -> ChannelMachine:
        """Add a new channel to the registry. The caller made sure that its topic is free."""
        channel = ChannelMachine(topic, config, self.context)
        self.channels[topic] = channel
        self._outbox.deadlines.cancel("idle")
        return channel

    def subscribe(self, channel: ChannelMachine, timeout: float, now: float) -> None:
        """Join the channel as soon as there is a link, a token and a free place in the queue.

        A channel that the user built enters the registry here. The server has one channel for
        each topic of a socket, so another channel with this topic leaves first.
        """
        channel.subscribe(timeout, now)
        other = self.channels.get(channel.topic)
        if other is not channel:
            if other is not None:
                self.unsubscribe(other, timeout, None, now)
            self.channels[channel.topic] = channel
            self._outbox.deadlines.cancel("idle")
        stale = self.context.token is None or self.context.token_lifetime(now) <= 0
        if stale and self.context.has_token_source and channel in self._joins:
            self._joins.add(channel, True)
        self._pump(now)

    def joins_waiting(self, channel: ChannelMachine) -> int:
        """Returns the length of the join queue if this channel is in it, else 0."""
        return len(self._joins) if channel in self._joins else 0

    def unsubscribe(
        self, channel: ChannelMachine, timeout: float, outcome: object | None, now: float
    ) -> None:
        """Leave the channel. Its topic is free when this returns."""
        if self.channels.get(channel.topic) is channel:
            del self.channels[channel.topic]
        self._joins.discard(channel)
        channel.unsubscribe(timeout, outcome, now)
        if channel.left_ref is not None:
            self._leaving[channel.left_ref] = channel
        self._settle(channel, now)
        self.watch_idle(now)

    def teardown(self, channel: ChannelMachine, now: float) -> None:
        """Remove the channel here without telling the server."""
        if self.channels.get(channel.topic) is channel:
            del self.channels[channel.topic]
        self._joins.discard(channel)
        channel.teardown()
        self._forget(channel)
        self.watch_idle(now)

    def watch_idle(self, now: float) -> None:
        """If no channel is left, set the deadline after which the socket may be closed."""
        if not self.channels and self.wanted:
            self._outbox.deadlines.set("idle", now + self._idle_after)

    def push(self, request: Request, now: float) -> Request | None:
        """Send a request of a channel, or hold it for the join.

        Returns the held request that was dropped for it, if any.
        """
        dropped: Request | None = request.channel.push(request, now)
        return dropped

    def cast_now(self, channel: ChannelMachine, event: str, body: bytes) -> bytes:
        """Returns the frame of a broadcast without ack: the fast path past the outbox.

        Allowed if the channel ``can_push``, the protocol is 2.0.0 and the outbox has no messages.
        """
        return self._frame(channel, self._outbox.next_ref(), event, body)

    def push_now(self, request: Request, event: str, body: bytes, now: float) -> bytes:
        """Returns the frame of a broadcast with ack, under the conditions of ``cast_now``."""
        return self._frame(request.channel, self._requests.expect(request, now), event, body)

    def _frame(self, channel: ChannelMachine, ref: str, event: str, body: bytes) -> bytes:
        frames = channel.frames
        if frames is None or frames.join_ref != channel.join_ref:
            frames = channel.frames = BroadcastFrames(str(channel.join_ref), channel.topic)
        return frames.encode(ref, event, body)

    def push_raw(self, message: Message) -> None:
        """Send any message. It is held until there is a link; the oldest held one is dropped."""
        if self.context.is_open:
            self._outbox.send(message)
            return
        self._raw.append(message)
        del self._raw[:-RAW_BUFFER_LIMIT]

    @property
    def pending_replies(self) -> int:
        return len(self._requests)
