"""The server's side of one socket: frames in, frames out, and a deadline.

It has no socket and no clock. Time is an argument, in seconds since 1970, because tokens expire
by the calendar. Frames to be written wait in ``outbox``.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..._wire.envelope import PHOENIX, TOPIC_PREFIX, Message
from ..._wire.json_codec import plain
from ..._wire.serializer import decode_client_binary, decode_text
from ...errors import DecodeError
from ..activity import Happening
from ..tokens import Rights, Token, TokenError
from .join_request import JoinConfig, JoinRefused, choose_token, read_join
from .memory_bounds import (
    MAX_JOIN,
    MOST_CHANNELS,
    MOST_CHANNELS_OF_ONE,
    MOST_DECODED,
    encoded_size,
    size_of,
    weigh,
)
from .message_store import StoredMessage
from .outgoing import NO_CODE, Close, OutgoingFrame, Text, text_frame
from .server_channel import NO_DATABASE, OK, ServerChannel, channel_weight
from .server_deadlines import ServerDeadlines
from .server_state import Backend, logger

__all__ = ["ServerSession"]

UNMATCHED: dict[str, Any] = {"status": "error", "response": {"reason": "unmatched topic"}}
NO_REPLAY = "UnableToReplayMessages: Realtime was unable to replay messages"
SMALL_FRAME = 65_536
UNAUTHORIZED = "Unauthorized: You do not have permissions to read from this Channel topic: "


@dataclasses.dataclass
class _Decision:
    """The result of a join; the channel that it replaces is closed after the answer."""

    message: Message
    replaced: ServerChannel | None
    channel: ServerChannel | None = None
    stored: Sequence[StoredMessage] = ()
    refused: JoinRefused | None = None


class ServerSession:
    """One client of the server."""

    def __init__(
        self,
        backend: Backend,
        vsn: str,
        token: str,
        *,
        now: float,
        number: int = 0,
        headers: Mapping[str, str] | None = None,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self.backend = backend
        self.vsn = vsn
        self.number = number
        self.now: float = now
        self.timers: ServerDeadlines = ServerDeadlines()
        self.outbox: collections.deque[OutgoingFrame | Close] = collections.deque()
        self.channels: dict[str, ServerChannel] = {}
        self._token = token
        self._headers = dict(headers or {})
        self._counted = False
        self._wake = wake
        self._heard = now
        self._undecided: _Decision | None = None
        self._unread: collections.deque[str | bytes] = collections.deque()
        self._unwritten: list[OutgoingFrame | Close] = []
        self._held_back = 0
        self._reading = False
        self._watch_silence()
        if backend.settings.first_join_timeout is not None:
            self.timers.set("empty", now + backend.settings.first_join_timeout, self._cut)

    # -- in ----------------------------------------------------------------------------

    def receive(self, data: str | bytes, now: float) -> None:
        """Handle a frame of the client, or queue it while a join is undecided."""
        self.touch(now)
        self._unread.append(data)
        self._read()

    def touch(self, now: float) -> None:
        """Note a sign of life, such as a ping (docs/protocol.md#frames-and-sizes)."""
        self.now = self._heard = now

    def advance(self, now: float) -> None:
        """Run the actions that are due at ``now``."""
        self.now = now
        self.timers.fire(now)

    @property
    def deadline(self) -> float | None:
        """The time at which ``advance`` must be called."""
        return self.timers.deadline

    @property
    def held_back_bytes(self) -> int:
        """The size of the frames held back while a join is undecided."""
        return self._held_back

    @property
    def busy(self) -> bool:
        """True while a join is undecided; the caller should not read on then.

        See docs/protocol.md#one-join-at-a-time.
        """
        return self._undecided is not None

    def held_back(self) -> list[str | bytes]:
        """Returns the frames that wait until the join is decided."""
        return [frame.data for frame in self._unwritten if isinstance(frame, OutgoingFrame)]

    def end(self) -> None:
        """End the session after its socket has closed: every channel leaves."""
        self.backend.client_left(self.number)
        self.timers.clear()
        self._unread.clear()
        self._undecided = None
        self._unwritten.clear()
        self._count_held_back(0)
        for channel in list(self.channels.values()):
            self.drop(channel)
        self.timers.clear()
        if self._counted:
            self._counted = False
            self.backend.limits.users -= 1

    def _read(self) -> None:
        # While a join is undecided, no other frame of the socket is handled
        # (docs/protocol.md#one-join-at-a-time).
        if self._reading:
            return
        self._reading = True
        try:
            while self._unread and self._undecided is None:
                self._handle(self._unread.popleft())
        finally:
            self._reading = False

    def _handle(self, data: str | bytes) -> None:
        try:
            message = self._decode(data)
        except DecodeError:
            # There is no answer, and the socket stays open
            # (docs/protocol.md#frames-that-cannot-be-read).
            self.backend.malformed += 1
            return
        self.backend.note(self.number, message, encoded_size(data))
        self._route(message)

    def _decode(self, data: str | bytes) -> Message:
        if isinstance(data, bytes) and not isinstance(data, Text) and self.vsn == "2.0.0":
            return decode_client_binary(data)
        # Small frames are not weighed, because they stay small when decoded.
        lenient = len(data) < SMALL_FRAME or weigh(data) < MOST_DECODED
        return decode_text(self.vsn, data, lenient=lenient)

    def _route(self, message: Message) -> None:
        channel = self.channels.get(message.topic)
        if message.topic == PHOENIX and message.event == "heartbeat":
            if self.backend.faults.heartbeat_replies:
                self._reply(message, OK)
        elif message.event == "phx_join" and message.topic.startswith(TOPIC_PREFIX):
            self._join(message)
        elif message.event == "phx_leave" and message.topic != PHOENIX:
            self._leave(message, channel)
        elif channel is None:
            self._reply(message, UNMATCHED)
        else:
            self._push(message, channel)

    def _push(self, message: Message, channel: ServerChannel) -> None:
        try:
            channel.push(message)
        except DecodeError:
            self.backend.malformed += 1
        except Exception:
            # On the real server only the process of this channel would crash.
            logger.exception("channel %s failed on %s", channel.topic, message.event)
            channel.crash()

    def _leave(self, message: Message, channel: ServerChannel | None) -> None:
        if channel is not None and channel.join_ref not in (None, message.join_ref):
            return
        self._reply(message, OK, join_ref=message.join_ref)
        if channel is not None:
            channel.shut_down()

    # -- joins -------------------------------------------------------------------------

    def _join(self, message: Message) -> None:
        replaced = self.channels.get(message.topic)
        if replaced is not None:
            self.drop(replaced)
        # A database may decide later; until then no other frame is handled.
        decision = self._undecided = _Decision(message, replaced)
        try:
            config, token = self._check(message)
        except JoinRefused as exc:
            self._decide(decision, exc)
            return
        grant = functools.partial(self._grant, decision, config, token)
        if config.private:
            sub_topic = message.topic.removeprefix(TOPIC_PREFIX)
            self.backend.authorize(token, sub_topic, grant, self.number)
        else:
            # On the real server, a public channel also needs the database.
            grant(None if self.backend.away else Rights())

    def _check(self, message: Message) -> tuple[JoinConfig, Token]:
        """Check a join in the real server's order, up to its token; raises ``JoinRefused``.

        See docs/protocol.md#refused-joins.
        """
        backend = self.backend
        sub_topic = message.topic.removeprefix(TOPIC_PREFIX)
        forced = backend.faults.take_refusal()
        if forced is not None:
            raise JoinRefused(forced[0], close=forced[1])
        backend.limits.joins.count += 1
        if not sub_topic:
            raise JoinRefused("TopicNameRequired: You must provide a topic name")
        try:
            if weigh(message.payload) > MAX_JOIN:
                raise JoinRefused("UnknownErrorOnChannel: the payload of the join is too large")
            payload = plain(message.payload)
            config = read_join(payload, sub_topic)
            if backend.settings.private_only and not config.private:
                raise JoinRefused("PrivateOnly: This project only allows private channels")
            self._check_limits(message)
            token = backend.tokens.verify(choose_token(payload, self._token), self.now)
        except (TokenError, DecodeError) as exc:
            reason = exc.reason if isinstance(exc, TokenError) else f"UnknownErrorOnChannel: {exc}"
        else:
            return config, dataclasses.replace(token, headers=self._headers)
        raise JoinRefused(reason)

    def _check_limits(self, message: Message) -> None:
        """Raises ``JoinRefused`` if a limit is reached.

        See docs/protocol.md#10-limits.
        """
        limits, most = self.backend.limits, self.backend.settings.max_channels_per_client
        if limits.full and not self._counted:
            raise JoinRefused("ConnectionRateLimitReached: Too many connected users")
        if limits.joins.tripped:
            raise JoinRefused("ClientJoinRateLimitReached: Too many joins per second", close=1001)
        if most is not None and len(self.channels) >= most:
            raise JoinRefused("ChannelRateLimitReached: Too many channels")
        weight = channel_weight(message)
        mine = sum(channel.weight for channel in self.channels.values())
        if mine + weight > MOST_CHANNELS_OF_ONE:
            raise JoinRefused("ChannelRateLimitReached: The channels of this socket are too large")
        if self.backend.channel_bytes + weight > MOST_CHANNELS:
            raise JoinRefused("ConnectionRateLimitReached: All channels together are too large")

    def _grant(
        self, decision: _Decision, config: JoinConfig, token: Token, rights: Rights | None
    ) -> None:
        """Accept a join with these rights, or refuse it."""
        if self._undecided is not decision:
            # The session has ended meanwhile.
            return
        if rights is None:
            self._decide(decision, JoinRefused(f"UnableToConnectToProject: {NO_DATABASE}"))
            return
        message = decision.message
        sub_topic = message.topic.removeprefix(TOPIC_PREFIX)
        presence = config.presence_enabled or self.backend.settings.presence_enabled
        try:
            if not rights.broadcast_read and not (presence and rights.presence_read):
                raise JoinRefused(UNAUTHORIZED + sub_topic)
            replay = config.read_replay()
            if replay is not None and not rights.broadcast_read:
                raise JoinRefused(UNAUTHORIZED + sub_topic)
        except JoinRefused as exc:
            self._decide(decision, exc)
            return
        decision.channel = ServerChannel(self, message, config, token, rights)
        if replay is None:
            self._decide(decision)
        else:
            replayed = functools.partial(self._replay, decision)
            self.backend.replay(sub_topic, replay, replayed, self.number)

    def _replay(self, decision: _Decision, stored: Sequence[StoredMessage] | None) -> None:
        if self._undecided is not decision:
            return
        if stored is None:
            decision.channel = None
            self._decide(decision, JoinRefused(NO_REPLAY))
        else:
            decision.stored = stored
            self._decide(decision)

    def _decide(self, decision: _Decision, refused: JoinRefused | None = None) -> None:
        # The traceback is dropped, because its frames hold the decision. Such a cycle kept
        # megabytes of a frame until the next full collection.
        decision.refused = refused and refused.with_traceback(None)
        delay = self.backend.settings.join_error_delay
        if refused is not None and delay > 0:
            self.timers.set("join", self.now + delay, self._settle)
        else:
            self._settle()

    def _settle(self) -> None:
        """Answer the undecided join, and handle the frames that wait."""
        decision, self._undecided = self._undecided, None
        assert decision is not None
        self._answer(decision)
        held, self._unwritten = self._unwritten, []
        self._count_held_back(0)
        for frame in held:
            self.write(frame)
        self._read()

    def _answer(self, decision: _Decision) -> None:
        message, channel, refused = decision.message, decision.channel, decision.refused
        if channel is not None:
            self.channels[channel.topic] = channel
            self.backend.channel_bytes += channel.weight
            self.timers.drop("empty")
            self.backend.joins += 1
            if not self._counted:
                self._counted = True
                self.backend.limits.users += 1
            answer: dict[str, Any] = {"status": "ok", "response": channel.join_response()}
        else:
            answer = {"status": "error", "response": {"reason": str(refused)}}
        self._reply(message, answer, join_ref=message.join_ref)
        self._report("join" if refused is None else "join_refused", message.topic, refused)
        if decision.replaced is not None:
            # As recorded, the close of the old channel follows the answer to the new one.
            decision.replaced.close_frame()
        if channel is not None:
            channel.start(decision.stored)
        elif refused is not None and refused.close is not None:
            self.write(Close(refused.close))

    # -- out ---------------------------------------------------------------------------

    def write(self, frame: OutgoingFrame | Close) -> None:
        """Put a frame into the outbox, or hold it back while a join is undecided."""
        if self._undecided is not None:
            self._unwritten.append(frame)
            if isinstance(frame, OutgoingFrame):
                self._count_held_back(self._held_back + size_of(frame.data))
            return
        self.outbox.append(frame)
        self._wake()

    def _count_held_back(self, size: int) -> None:
        outgoing, more = self.backend.outgoing, size - self._held_back
        self._held_back = size
        if size > self.backend.settings.max_buffer_size:
            # Written directly, because the client will read none of the waiting frames.
            self.outbox.append(Close(NO_CODE))
            self._wake()
        if more > 0:
            outgoing.add(more)
        else:
            outgoing.take(-more)

    def send(
        self,
        topic: str,
        event: str,
        payload: Any,
        *,
        join_ref: str | None = None,
        ref: str | None = None,
    ) -> None:
        """Write a text frame."""
        self.write(text_frame(self.vsn, topic, event, payload, join_ref=join_ref, ref=ref))

    def _reply(self, message: Message, payload: Any, *, join_ref: str | None = None) -> None:
        self.send(message.topic, "phx_reply", payload, join_ref=join_ref, ref=message.ref)

    # -- ends --------------------------------------------------------------------------

    def drop(self, channel: ServerChannel) -> None:
        """Forget a channel that has ended."""
        if self.channels.get(channel.topic) is channel:
            del self.channels[channel.topic]
            self.backend.channel_bytes -= channel.weight
            self._report("leave", channel.topic)
            timeout = self.backend.settings.no_channel_timeout
            if not self.channels and timeout is not None:
                self.timers.set("empty", self.now + timeout, self._cut)
        channel.terminate()

    def _cut(self) -> None:
        # The real server ends such sockets without a close frame (docs/protocol.md#idle-sockets).
        self.write(Close(NO_CODE))

    def _report(self, kind: str, topic: str, about: object = None) -> None:
        activity = self.backend.activity
        if activity.watched:
            sub_topic, text = topic.removeprefix(TOPIC_PREFIX), "" if about is None else str(about)
            activity.report(Happening(kind, self.number, sub_topic, text=text))

    def _watch_silence(self) -> None:
        timeout = self.backend.settings.idle_timeout
        self.timers.set("silence", self._heard + timeout, self._check_silence)

    def _check_silence(self) -> None:
        # Setting a new deadline for every frame would cost more than checking at the old one.
        if self.now - self._heard >= self.backend.settings.idle_timeout:
            self.write(Close(1000))
        else:
            self._watch_silence()
