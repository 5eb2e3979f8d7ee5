"""Contracts of objects with a state: any frames in any order and at any time break nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from supabase_rt._protocol.channel import presence_state
from supabase_rt._protocol.channel.channel_machine import ChannelMachine
from supabase_rt._protocol.events import ConnectDue, StatusChanged
from supabase_rt._protocol.reconnect_policy import ReconnectPolicy
from supabase_rt._wire import serializer
from supabase_rt._wire.envelope import Message
from supabase_rt.enums import ListenType, SubscribeStatus
from supabase_rt.errors import DecodeError, InvalidState
from tests.server.kit import World as ServerWorld
from tests.unit.protocol.support import CHANGES, World, lost

from .taking import Taker

__all__ = ["TARGETS"]

KEYS = ("a", "b", "")
REFS = ("1", "2", "3", "4")
TOPICS = ("realtime:a", "realtime:b", "phoenix", "realtime:c", "")
EVENTS = (
    "broadcast", "postgres_changes", "presence_state", "presence_diff", "system", "phx_reply",
    "phx_close", "phx_error", "access_token", "x",
)  # fmt: skip
SYSTEMS = (
    "Subscribed to PostgreSQL",
    "Token has expired 1 seconds ago",
    "Too many messages per second",
    "Unable to subscribe to changes",
)
MOST_STEPS = 60


# -- presence ----------------------------------------------------------------------------


def presences(data: bytes) -> None:
    """Valid and invalid states and diffs: both ways of applying them agree with the pure
    functions.
    """
    taker = Taker(data)
    told, silent = presence_state.PresenceState(), presence_state.PresenceState()
    pure: dict[str, dict[str, Any]] = {}
    told.receive_state({}, "1")
    silent.receive_state({}, "1")
    for _ in range(MOST_STEPS):
        if not taker.more:
            return
        if taker.byte() % 4 == 0:
            new = _presences(taker)
            with contextlib.suppress(DecodeError):
                told.receive_state(new, "1")
            with contextlib.suppress(DecodeError):
                silent.receive_state(new, "1")
            with contextlib.suppress(DecodeError):
                pure = presence_state.sync_state(pure, new)[0]
        else:
            diff: Any = {"joins": _presences(taker), "leaves": _presences(taker)}
            events: Any = ()
            with contextlib.suppress(DecodeError):
                events = told.receive_diff(diff, "1")
            with contextlib.suppress(DecodeError):
                silent.apply_diff(diff, "1", 100)
            with contextlib.suppress(DecodeError):
                pure = presence_state.sync_diff(pure, diff)[0]
            if events:
                assert events[-1].kind == "sync"
                assert events[-1].state.list() == told.list()
        assert told.list() == silent.list() == presence_state.transform(pure)


def _presences(taker: Taker) -> Any:
    """Mostly a presence state."""
    if taker.byte() == 255:
        return taker.value()
    return {
        taker.choice(KEYS): {
            "metas": [
                {"phx_ref": taker.choice(REFS), "n": taker.byte()} for _ in range(taker.byte() % 3)
            ]
        }
        for _ in range(taker.byte() % 3)
    }


# -- the client's session ----------------------------------------------------------------


class _Client:
    """A session in virtual time, with a server that sends arbitrary frames."""

    def __init__(self, taker: Taker) -> None:
        self.taker = taker
        policy = taker.choice((ReconnectPolicy(jitter=0.0), ReconnectPolicy(max_attempts=2)))
        self.world = World(
            policy=policy, token="t", token_source=bool(taker.byte() & 1), idle_after=20.0
        )
        self.made: list[ChannelMachine] = []
        for topic in TOPICS[:2]:
            self.subscribe(topic)
        self.world.open()
        self.world.token_arrived()
        for channel in self.made:
            if self.world.frames("phx_join", channel.topic):
                self.world.accept(channel)

    def subscribe(self, topic: str) -> None:
        channel = self.world.client_machine.channels.get(topic)
        if channel is None:
            channel = self.world.channel(topic)
            channel.bindings.add(ListenType.BROADCAST, {"event": "*"})
            channel.bindings.add(ListenType.POSTGRES_CHANGES, CHANGES)
            channel.bindings.add(ListenType.PRESENCE, {"event": "sync"})
            channel.bindings.add(ListenType.SYSTEM, {})
            self.made.append(channel)
        with contextlib.suppress(InvalidState):
            self.world.subscribe(channel)

    def step(self) -> None:
        taker, world = self.taker, self.world
        kind = taker.byte() % 16
        if kind < 6:
            self.frame()
        elif kind < 8:
            self.raw()
        elif kind == 8:
            world.advance(taker.choice((0.1, 1.0, 6.0, 31.0)))
        elif kind == 9:
            if world.context.is_open:
                world.link_lost(lost(taker.choice((1006, 1000, 1012, 1008))))
        elif kind in (10, 11):
            self.reconnect()
        elif kind == 12:
            world.set_token(taker.choice(("t", "u", None)))
        elif kind == 13:
            self.subscribe(taker.choice(TOPICS[:2]))
        elif kind == 14 and self.made:
            channel = taker.choice(self.made[-2:])
            if taker.byte() & 1:
                world.unsubscribe(channel, 1.0)
            else:
                with contextlib.suppress(InvalidState):
                    world.push(channel, timeout=1.0)
        else:
            self.answer()

    def reconnect(self) -> None:
        world = self.world
        if not world.client_machine.wanted:
            world.connect()
        for _ in range(40):
            if world.context.is_open or not world.client_machine.wanted:
                return
            if world.take_told(ConnectDue):
                world.link_up()
            else:
                world.advance(1.0)

    def answer(self) -> None:
        """The reply to a request that was really made: ok, error, or nonsense."""
        sent = self.world.written[-8:]
        if sent and self.world.context.is_open:
            message = self.taker.choice(sent)
            status = self.taker.choice(("ok", "error", "", "timeout"))
            self.receive(
                Message(
                    message.join_ref,
                    message.ref,
                    message.topic,
                    "phx_reply",
                    {"status": status, "response": self.taker.value()},
                )
            )

    def frame(self) -> None:
        taker = self.taker
        topic, event = taker.choice(TOPICS), taker.choice(EVENTS)
        refs: list[Any] = [None, *REFS, 1]
        refs += [found.join_ref for found in self.made[-2:]]
        self.receive(
            Message(taker.choice(refs), taker.choice(refs), topic, event, self.payload(event))
        )

    def payload(self, event: str) -> Any:
        taker = self.taker
        if taker.byte() % 4 == 0:
            return taker.value()
        if event == "postgres_changes":
            data = {"type": taker.choice(("INSERT", "DELETE", "x")), "record": taker.value()}
            return {"ids": [taker.choice((100, "100", 7))], "data": data}
        if event == "presence_state":
            return _presences(taker)
        if event == "presence_diff":
            return {"joins": _presences(taker), "leaves": _presences(taker)}
        if event == "system":
            extension = taker.choice(("postgres_changes", "system"))
            status = taker.choice(("ok", "error"))
            return {"extension": extension, "status": status, "message": taker.choice(SYSTEMS)}
        if event == "phx_reply":
            return {"status": taker.choice(("ok", "error")), "response": taker.value()}
        return {"type": "broadcast", "event": taker.text(), "payload": taker.value()}

    def raw(self) -> None:
        """A frame as it stands on the wire."""
        is_text, data = self.taker.byte() & 1, self.taker.chunk()
        with contextlib.suppress(DecodeError):
            if is_text:
                self.receive(serializer.decode_text("2.0.0", data))
            else:
                self.receive(serializer.decode_server_binary(data))

    def receive(self, message: Message) -> None:
        world = self.world
        if not world.context.is_open:
            return
        try:
            world.client_machine.receive(message, world.now)
        except DecodeError as error:
            world.client_machine.unreadable(error, world.now)
        world.collect()

    def check(self) -> None:
        """Nothing grows, and every request ends in any case."""
        world = self.world
        assert world.client_machine.pending_replies <= 10 * MOST_STEPS
        for channel in self.made:
            told = [
                event.status
                for event in world.told
                if isinstance(event, StatusChanged) and event.channel is channel
            ]
            assert told.count(SubscribeStatus.CLOSED) <= 1
        if world.client_machine.wanted:
            world.disconnect()
        world.advance(120.0)
        assert world.client_machine.pending_replies == 0
        assert world.is_closed


def session(data: bytes) -> None:
    """Arbitrary users, network and server; at the end the client leaves no request open."""
    client = _Client(Taker(data))
    for _ in range(MOST_STEPS):
        if not client.taker.more:
            break
        client.step()
    client.check()


# -- the local server --------------------------------------------------------------------


def server(data: bytes) -> None:
    """The server answers or ignores any frames of a client, and other clients notice nothing."""
    taker = Taker(data)
    vsn = taker.choice(serializer.SUPPORTED_VSNS)
    world = ServerWorld(presence_limit=None)
    witness, client = world.client("2.0.0"), world.client(vsn)
    witness.join()
    client.join(broadcast={"ack": True, "self": True}, presence={"enabled": True})
    for _ in range(MOST_STEPS):
        if not taker.more:
            break
        kind = taker.byte() % 8
        if kind == 7:
            world.advance(taker.choice((0.1, 1.0, 30.0)))
        elif kind == 6:
            client.push(
                taker.choice(TOPICS), taker.choice((*EVENTS, "phx_join", "presence")), taker.value()
            )
        else:
            frame = taker.chunk()
            client.raw(frame if kind & 1 else frame.decode("utf-8", "surrogateescape"))
    witness.heard()
    if "realtime:room" in witness.session.channels:
        assert len(witness.push("phoenix", "heartbeat", {})) == 1
    client.session.end()
    witness.session.end()
    assert world.backend.limits.users == 0


TARGETS: tuple[Callable[[bytes], None], ...] = (presences, session, server)
