"""A harness for the machines: it plays the connection in virtual time, and the server.

Nothing is patched. ``World`` calls a real ``ClientMachine`` as the connection does and collects its
output after every call. It checks two rules all the time: no message is written while the link
is down, and no outcome ends twice.
"""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Callable
from typing import Any

from supabase_rt._protocol import events
from supabase_rt._protocol.channel.channel_machine import ChannelMachine
from supabase_rt._protocol.channel_options import ChannelConfig
from supabase_rt._protocol.client_machine import ClientMachine
from supabase_rt._protocol.outbox import OutgoingMessage
from supabase_rt._protocol.reconnect_policy import ReconnectPolicy
from supabase_rt._protocol.requests import Request, RequestKind
from supabase_rt._protocol.shared_state import SharedState
from supabase_rt._wire.envelope import Message
from supabase_rt.enums import ConnectionState, SubscribeStatus
from supabase_rt.errors import ConnectionFailed, ConnectionLost

EXACT = ReconnectPolicy(jitter=0.0)
"""The default policy without jitter: delays are 0.5, 1, 2, 4, 8, 16, 30, 30, ..."""
START = 1000.0
EPOCH = 1_700_000_000.0
"""Unix time at 0 of the clock of ``World``."""

CHANGES = {"event": "*", "schema": "public", "table": "todos"}
RATE_LIMITED = "ClientJoinRateLimitReached: Too many joins per second"
EXPIRED = "InvalidJWTToken: Token has expired 5 seconds ago"
MALFORMED = "MalformedJWT: The token provided is not a valid JWT"
FORBIDDEN = "Unauthorized: You do not have permissions to read from this Channel topic: room"
DATABASE_DOWN = "UnableToConnectToProject: Realtime was unable to connect to the project database"
PRIVATE_ONLY = "PrivateOnly: This project only allows private channels"

SUBSCRIBED, CHANNEL_ERROR = SubscribeStatus.SUBSCRIBED, SubscribeStatus.CHANNEL_ERROR
CLOSED, TIMED_OUT = SubscribeStatus.CLOSED, SubscribeStatus.TIMED_OUT


def config(opts: Any = None) -> ChannelConfig:
    return ChannelConfig.build(opts, "realtime:room")


def jwt(expires_at: float, name: str = "") -> str:
    """Returns a token with a readable ``exp``; another ``name`` makes another token."""

    def part(value: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    return f"{part({'alg': 'HS256'})}.{part({'exp': expires_at, 'sub': name})}.signature"


def lost(code: int | None = 1006, reason: str = "") -> ConnectionLost:
    return ConnectionLost(f"socket closed: {code}", close_code=code, reason=reason)


def refused_connect(status: int | None = None, *, retryable: bool = True) -> ConnectionFailed:
    return ConnectionFailed(f"refused: {status}", status=status, retryable=retryable)


class World:
    """One client's machine, its clock, and all of its output."""

    def __init__(
        self,
        *,
        policy: ReconnectPolicy = EXACT,
        token: str | None = None,
        token_source: bool = False,
        presence_limit: tuple[int, float] | None = (5, 30.0),
        reconnect_after: Callable[[int], float] | None = None,
        **client_machine: Any,
    ) -> None:
        self.now = START
        self.epoch = EPOCH
        self.context = SharedState(
            policy=policy,
            reconnect_after=reconnect_after,
            presence_limit=presence_limit,
            has_token_source=token_source,
        )
        self.context.token = token
        self.client_machine = ClientMachine(self.context, **client_machine)
        self.written: list[Message] = []
        self.written_outcomes: list[Any] = []
        self.told: list[Any] = []
        self.ended: dict[object, str] = {}
        self._outcomes = itertools.count(1)

    # -- the connection's part, after every call -----------------------------------------

    def collect(self) -> None:
        for frame in self.client_machine.pop_frames():
            self._write(frame)
        for event in self.client_machine.pop_events():
            self.told.append(event)
            if isinstance(event, events.RequestEnded) and event.outcome is not None:
                assert event.outcome not in self.ended, f"{event.outcome} ended twice"
                self.ended[event.outcome] = event.result

    def _write(self, frame: OutgoingMessage) -> None:
        assert self.context.is_open, f"{frame.message} written without a link"
        self.written.append(frame.message)
        self.written_outcomes.append(frame.outcome)

    def advance(self, seconds: float) -> None:
        """Let time pass and serve each deadline exactly when it is due."""
        until = self.now + seconds
        while (due := self.client_machine.next_deadline()) is not None and due <= until:
            assert due >= self.now, "a deadline in the past was never served"
            self.now = due
            self.client_machine.on_deadline(self.now)
            self.collect()
        self.now = until

    def sleep(self, seconds: float) -> None:
        """Suspend the computer: Unix time passes, the machine's clock stands still."""
        self.epoch += seconds

    # -- the link ------------------------------------------------------------------------

    def connect(self) -> None:
        self.client_machine.connect()
        self.collect()

    def link_up(self) -> None:
        self.client_machine.link_up(self.now, self.epoch + self.now)
        self.collect()

    def open(self) -> None:
        """Ask for a link and get it."""
        self.connect()
        self.link_up()

    def link_lost(self, error: BaseException | None = None) -> None:
        self.client_machine.link_lost(lost() if error is None else error, self.now)
        self.collect()

    def flap(self, down: float = 0.0, error: BaseException | None = None) -> None:
        """Lose the link, and have it back ``down`` seconds later."""
        self.link_lost(error)
        self.advance(down)
        self.link_up()

    def disconnect(self, code: int = 1000, reason: str = "") -> None:
        self.client_machine.disconnect(self.now, code, reason)
        self.collect()
        self.client_machine.link_closed()

    # -- channels ------------------------------------------------------------------------

    def channel(self, topic: str = "realtime:room", opts: Any = None) -> ChannelMachine:
        return self.client_machine.open_channel(topic, ChannelConfig.build(opts, topic))

    def subscribe(self, channel: ChannelMachine, timeout: float = 10.0) -> None:
        self.client_machine.subscribe(channel, timeout, self.now)
        self.collect()

    def joining(self, topic: str = "realtime:room", opts: Any = None) -> ChannelMachine:
        """Returns a subscribed channel; its join is written if there is a link."""
        channel = self.channel(topic, opts)
        self.subscribe(channel)
        return channel

    def joined(self, topic: str = "realtime:room", opts: Any = None) -> ChannelMachine:
        channel = self.joining(topic, opts)
        self.accept(channel)
        return channel

    def unsubscribe(self, channel: ChannelMachine, timeout: float = 10.0) -> int:
        outcome = next(self._outcomes)
        self.client_machine.unsubscribe(channel, timeout, outcome, self.now)
        self.collect()
        return outcome

    def teardown(self, channel: ChannelMachine) -> None:
        self.client_machine.teardown(channel, self.now)
        self.collect()

    def push(self, channel: ChannelMachine, event: str = "custom", timeout: float = 10.0) -> int:
        return self._push(
            Request(channel, RequestKind.PUSH, event, {}, timeout, next(self._outcomes))
        )

    def track(self, channel: ChannelMachine, payload: Any, timeout: float = 10.0) -> int:
        content = {"type": "presence", "event": "track", "payload": payload}
        return self._push(
            Request(
                channel, RequestKind.PRESENCE, "presence", content, timeout, next(self._outcomes)
            )
        )

    def untrack(self, channel: ChannelMachine, timeout: float = 10.0) -> int:
        content = {"type": "presence", "event": "untrack"}
        return self._push(
            Request(
                channel, RequestKind.PRESENCE, "presence", content, timeout, next(self._outcomes)
            )
        )

    def _push(self, push: Request) -> int:
        self.client_machine.push(push, self.now)
        self.collect()
        assert isinstance(push.outcome, int)
        return push.outcome

    def set_token(self, token: str | None) -> None:
        self.client_machine.set_token(token, self.now)
        self.collect()

    def token_arrived(self) -> None:
        self.client_machine.token_arrived(self.now)
        self.collect()

    # -- the server ----------------------------------------------------------------------

    def receive(
        self,
        topic: str,
        event: str,
        payload: Any,
        *,
        join_ref: str | None = None,
        ref: str | None = None,
    ) -> None:
        delivery = self.client_machine.receive(
            Message(join_ref, ref, topic, event, payload), self.now
        )
        if delivery is not None:
            # The fast path of the connection: delivered at once, because nothing waits before it.
            assert self.context.outbox.is_quiet
            self.told.append(events.Delivered(*delivery))
        self.collect()

    def reply(self, message: Message, status: str = "ok", response: Any = None) -> None:
        content = {"status": status, "response": {} if response is None else response}
        join_ref = None if message.join_ref is None else str(message.join_ref)
        ref = None if message.ref is None else str(message.ref)
        self.receive(message.topic, "phx_reply", content, join_ref=join_ref, ref=ref)

    def accept(self, channel: ChannelMachine) -> None:
        """Answer the last join of the channel as the server does, echoing its entries."""
        join = self.last_join(channel)
        entries = [
            {**entry, "id": 100 + index}
            for index, entry in enumerate(join.payload["config"]["postgres_changes"])
        ]
        self.reply(join, "ok", {"postgres_changes": entries})

    def refuse(self, channel: ChannelMachine, reason: str) -> None:
        self.reply(self.last_join(channel), "error", {"reason": reason})

    def close(self, channel: ChannelMachine, reason: str | None = None) -> None:
        """Send ``phx_close`` for the present join, after a system error if a reason is given."""
        if reason is not None:
            self.system(channel, reason)
        ref = channel.join_ref
        self.receive(channel.topic, "phx_close", {}, join_ref=ref, ref=ref)

    def crash(self, channel: ChannelMachine) -> None:
        ref = channel.join_ref
        payload = {"reason": "channel_crash"}
        self.receive(channel.topic, "phx_error", payload, join_ref=ref, ref=ref)

    def system(
        self, channel: ChannelMachine, text: str, status: str = "error", extension: str = "system"
    ) -> None:
        payload = {"extension": extension, "status": status, "message": text, "channel": "room"}
        self.receive(channel.topic, "system", payload, join_ref=channel.join_ref)

    def broadcast(self, channel: ChannelMachine, **fields: Any) -> None:
        payload = {"type": "broadcast", "event": "shout", "payload": {}, **fields}
        self.receive(channel.topic, "broadcast", payload)

    # -- what came out -------------------------------------------------------------------

    def frames(self, event: str | None = None, topic: str | None = None) -> list[Message]:
        """Returns the frames written so far, of one event or topic if given."""
        return [
            message
            for message in self.written
            if event in (None, message.event) and topic in (None, message.topic)
        ]

    def take_written(self) -> list[str]:
        """The events of the frames written since the last call."""
        written, self.written = self.written, []
        return [message.event for message in written]

    def take_told(self, kind: type[Any] | tuple[type[Any], ...]) -> list[Any]:
        """Returns the events of these kinds that were reported since the last call."""
        told, self.told = self.told, []
        return [event for event in told if isinstance(event, kind)]

    def last_join(self, channel: ChannelMachine) -> Message:
        return self.frames("phx_join", channel.topic)[-1]

    def changes(self, channel: ChannelMachine) -> list[events.StatusChanged]:
        return [
            event
            for event in self.told
            if isinstance(event, events.StatusChanged) and event.channel is channel
        ]

    def statuses(self, channel: ChannelMachine) -> list[SubscribeStatus]:
        """Returns every status that the channel's callback has received so far."""
        return [event.status for event in self.changes(channel)]

    def last_error(self, channel: ChannelMachine) -> Any:
        return self.changes(channel)[-1].error

    def delivered(self, channel: ChannelMachine) -> list[Any]:
        return [
            event.payload
            for event in self.told
            if isinstance(event, events.Delivered | events.PresenceDelivered)
            and event.channel is channel
            and event.ids
        ]

    def deadlines(self) -> list[Any]:
        """Returns the keys of all deadlines and removes them; the ``World`` is unusable then."""
        deadlines = self.context.outbox.deadlines
        return list(iter(lambda: deadlines.pop_due(float("inf")), None))

    @property
    def is_closed(self) -> bool:
        return self.client_machine.state is ConnectionState.CLOSED


def opened(**options: Any) -> World:
    """A world with a link."""
    world = World(**options)
    world.open()
    return world


def joins(world: World) -> int:
    """Returns the number of joins that were written."""
    return len(world.frames("phx_join"))
