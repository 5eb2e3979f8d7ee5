"""A client and a server do anything in any order; the rules must hold after every step.

``World`` itself checks that nothing is written without a link and that no outcome ends twice.
"""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from supabase_rt._protocol.channel.channel_machine import ChannelMachine
from supabase_rt._protocol.events import ConnectDue, GaveUpForGood, StatusChanged, TokenWanted
from supabase_rt._protocol.reconnect_policy import ReconnectPolicy
from supabase_rt._protocol.requests import RequestKind
from supabase_rt._wire.envelope import Message
from supabase_rt.enums import ListenType, SubscribeStatus
from supabase_rt.errors import InvalidState

from .support import (
    CHANGES,
    DATABASE_DOWN,
    EXACT,
    EXPIRED,
    MALFORMED,
    PRIVATE_ONLY,
    RATE_LIMITED,
    World,
    lost,
    refused_connect,
)

TOPICS = ("realtime:a", "realtime:b", "realtime:c")
REASONS = (DATABASE_DOWN, EXPIRED, MALFORMED, PRIVATE_ONLY, RATE_LIMITED)
CAUSES = (None, "Token has expired 1 seconds ago", "Too many messages per second")
POLICIES = (
    EXACT,
    ReconnectPolicy(),
    ReconnectPolicy.supabase_js(),
    ReconnectPolicy.disabled(),
    ReconnectPolicy(max_attempts=2),
    ReconnectPolicy(rejoin_closed=False),
)
FAILURES = (SubscribeStatus.CHANNEL_ERROR, SubscribeStatus.TIMED_OUT)


class SessionStateMachine(RuleBasedStateMachine):
    """A client with arbitrary calls of users, answers of a server and losses of the network."""

    world: World

    @initialize(
        policy=st.sampled_from(POLICIES),
        token_source=st.booleans(),
        token=st.sampled_from(["t", None]),
        joined=st.integers(0, 3),
    )
    def begin(
        self, policy: ReconnectPolicy, token_source: bool, token: str | None, joined: int
    ) -> None:
        self.world = World(policy=policy, token_source=token_source, token=token, idle_after=20.0)
        self.channels: list[ChannelMachine] = []
        self.outcomes: list[int] = []
        self.asked_for: dict[ChannelMachine, int] = {}
        self.live: dict[str, str] = {}
        """The joins that a server would know, by topic."""
        self.past: list[Message] = []
        """Every frame that was written so far."""
        self.history: dict[ChannelMachine, list[SubscribeStatus]] = {}
        self.is_due = False
        self.is_token_wanted = False
        for topic in TOPICS[:joined]:
            self.subscribe(topic, topic == TOPICS[0], 20.0)
        if joined:
            self.all_is_well()

    # -- what came out of a step ---------------------------------------------------------

    def step(self) -> None:
        written, self.world.written = self.world.written, []
        told, self.world.told = self.world.told, []
        for message in written:
            self.past.append(message)
            self.check_frame(message)
        for event in told:
            if isinstance(event, ConnectDue):
                assert not self.world.context.is_open
                self.is_due = True
            elif isinstance(event, TokenWanted):
                self.is_token_wanted |= event.blocking
            elif isinstance(event, StatusChanged):
                self.history.setdefault(event.channel, []).append(event.status)
            elif isinstance(event, GaveUpForGood):
                assert not self.world.client_machine.wanted

    def check_frame(self, message: Message) -> None:
        topic, join_ref = message.topic, message.join_ref
        if message.event == "heartbeat":
            return
        if message.event == "phx_join":
            assert topic not in self.live, "two live joins of one topic"
            self.live[topic] = str(join_ref)
            (owner,) = [found for found in self.channels if found.join_ref == join_ref]
            self.asked_for[owner] += 1
            return
        assert self.live.get(topic) == join_ref, f"{message.event} of a channel that is not there"
        if message.event == "phx_leave":
            del self.live[topic]

    # -- the user ------------------------------------------------------------------------

    @rule()
    def connect(self) -> None:
        self.is_due &= self.world.client_machine.wanted
        self.world.connect()
        self.step()

    @rule(sure=st.integers(0, 4))
    def disconnects(self, sure: int) -> None:
        if sure == 4:
            self.disconnect()

    def disconnect(self) -> None:
        self.live.clear()
        self.is_due = False
        self.world.disconnect()
        self.step()

    @rule(topic=st.sampled_from(TOPICS), bound=st.booleans(), timeout=st.sampled_from([2.0, 20.0]))
    def subscribe(self, topic: str, bound: bool, timeout: float) -> None:
        channel = self.world.client_machine.channels.get(topic)
        if channel is None:
            channel = self.world.channel(topic)
            channel.bindings.add(ListenType.BROADCAST, {"event": "*"})
            if bound:
                channel.bindings.add(ListenType.POSTGRES_CHANGES, CHANGES)
            self.channels.append(channel)
            self.asked_for[channel] = 0
        before = channel.state
        self.world.subscribe(channel, timeout)
        self.asked_for[channel] += before != "joining" and channel.state == "joining"
        self.step()

    @precondition(lambda self: any(found.removed for found in self.channels))
    @rule(index=st.integers(0, 50))
    def subscribe_what_is_over(self, index: int) -> None:
        over = [found for found in self.channels if found.removed or found.state == "leaving"]
        with pytest.raises(InvalidState):
            self.world.subscribe(over[index % len(over)])
        self.step()

    @precondition(lambda self: self.channels)
    @rule(index=st.integers(0, 50), timeout=st.sampled_from([1.0, 10.0]), again=st.booleans())
    def unsubscribe(self, index: int, timeout: float, again: bool) -> None:
        """Any channel, also a closed one."""
        channel = self.channels[-1 - index % min(4, len(self.channels))]
        for _ in range(1 + again):
            self.outcomes.append(self.world.unsubscribe(channel, timeout))
            self.step()

    @precondition(lambda self: self.channels)
    @rule(index=st.integers(0, 50), sure=st.integers(0, 2))
    def teardown_one(self, index: int, sure: int) -> None:
        if sure == 2:
            channel = self.channels[-1 - index % min(4, len(self.channels))]
            if channel.join_ref == self.live.get(channel.topic):
                # The server keeps it; its next join of the topic replaces it there.
                self.live.pop(channel.topic, None)
            self.world.teardown(channel)
            self.step()

    @precondition(lambda self: self.world.client_machine.channels)
    @rule(
        index=st.integers(0, 2),
        kind=st.sampled_from(["push", "track", "untrack"]),
        count=st.sampled_from([1, 1, 2, 7, 120]),
    )
    def request(self, index: int, kind: str, count: int) -> None:
        channels = list(self.world.client_machine.channels.values())
        channel = channels[index % len(channels)]
        for _ in range(count):
            if kind == "push":
                outcome = self.world.push(channel, timeout=5.0)
            elif kind == "track":
                outcome = self.world.track(channel, {"n": len(self.outcomes) % 3}, timeout=5.0)
            else:
                outcome = self.world.untrack(channel, timeout=5.0)
            self.outcomes.append(outcome)
            self.step()

    @rule(token=st.sampled_from([None, "t", "u", "v"]))
    def set_token(self, token: str | None) -> None:
        self.is_token_wanted = False
        self.world.set_token(token)
        self.step()

    @rule()
    def token_arrives(self) -> None:
        self.is_token_wanted = False
        self.world.token_arrived()
        self.step()

    # -- the network ---------------------------------------------------------------------

    @rule()
    def all_is_well(self) -> None:
        """Now there is a link and a token, and the server accepts the join."""
        self.connect()
        while not self.world.context.is_open:
            self.time_passes(0.5)
            if self.is_due:
                self.link_up()
        self.token_arrives()
        while self.waiting_joins():
            self.answer_join("ok")

    @precondition(lambda self: self.is_due)
    @rule()
    def link_up(self) -> None:
        self.is_due = self.is_token_wanted = False
        self.world.link_up()
        self.step()

    @precondition(lambda self: self.is_due)
    @rule(status=st.sampled_from([None, None, 429, 503, 401]))
    def connect_fails(self, status: int | None) -> None:
        self.is_due = False
        self.world.link_lost(refused_connect(status))
        self.step()

    @precondition(lambda self: self.world.context.is_open)
    @rule(code=st.sampled_from([1006, 1000, 1001, 1012, 1008]))
    def link_lost(self, code: int) -> None:
        self.live.clear()
        self.world.link_lost(lost(code))
        self.step()

    @rule(seconds=st.sampled_from([0.1, 0.5, 1.0, 5.0, 12.0, 30.0]))
    def time_passes(self, seconds: float) -> None:
        until = self.world.now + seconds
        while self.world.now < until:
            self.world.advance(min(0.5, until - self.world.now))
            self.step()

    # -- the server ----------------------------------------------------------------------

    def waiting_joins(self) -> list[tuple[ChannelMachine, Message]]:
        refs = {
            channel.join_ref: channel for channel in self.channels if channel.state == "joining"
        }
        return [
            (refs[message.ref], message)
            for message in self.past
            if message.event == "phx_join" and message.ref in refs
        ]

    @precondition(lambda self: self.waiting_joins())
    @rule(answer=st.sampled_from(["ok", "ok", "ok", "mismatch", *REASONS]))
    def answer_join(self, answer: str) -> None:
        channel, join = self.waiting_joins()[0]
        if answer == "ok":
            self.world.written = [join]
            self.world.accept(channel)
            self.world.written.remove(join)
        elif answer == "mismatch":
            self.world.reply(join, "ok", {"postgres_changes": []})
        else:
            del self.live[channel.topic]
            self.world.reply(join, "error", {"reason": answer})
        self.step()

    @precondition(lambda self: self.past and self.world.context.is_open)
    @rule(index=st.integers(0, 500), status=st.sampled_from(["ok", "ok", "error"]))
    def answer_anything(self, index: int, status: str) -> None:
        message = self.past[-1 - index % min(20, len(self.past))]
        if message.event != "phx_join":
            self.world.reply(message, status)
            self.step()

    @precondition(lambda self: self.live)
    @rule(index=st.integers(0, 2), crash=st.booleans(), cause=st.sampled_from(CAUSES))
    def end_join(self, index: int, crash: bool, cause: str | None) -> None:
        topic = sorted(self.live)[index % len(self.live)]
        ref = self.live.pop(topic)
        if cause is not None and not crash:
            channel = self.world.client_machine.channels[topic]
            self.world.system(channel, cause)
        self.world.receive(topic, "phx_error" if crash else "phx_close", {}, join_ref=ref, ref=ref)
        self.step()

    @precondition(lambda self: self.past)
    @rule(
        index=st.integers(0, 500),
        event=st.sampled_from(["phx_reply", "phx_close", "phx_error", "broadcast"]),
    )
    def stale_frame(self, index: int, event: str) -> None:
        joins = [message for message in self.past if message.event == "phx_join"]
        present = {channel.join_ref for channel in self.channels}
        joins = [join for join in joins if join.ref not in present]
        if not joins:
            return
        join = joins[index % len(joins)]
        ref, before = str(join.ref), [channel.state for channel in self.channels]
        payload = {"status": "ok", "response": {}, "type": "broadcast", "event": "x"}
        self.world.receive(join.topic, event, payload, join_ref=ref, ref=ref)
        assert [channel.state for channel in self.channels] == before
        assert self.world.written == self.world.told == []
        self.step()

    @rule(topic=st.sampled_from(TOPICS))
    def broadcast(self, topic: str) -> None:
        channel = self.world.client_machine.channels.get(topic)
        self.world.receive(topic, "broadcast", {"type": "broadcast", "event": "x"})
        if channel is not None:
            assert len(self.world.delivered(channel)) == (channel.state == "joined")
        self.step()

    # -- what always holds ---------------------------------------------------------------

    @invariant()
    def statuses_make_sense(self) -> None:
        for channel, statuses in self.history.items():
            told = list(statuses)
            if told[-2:] == [SubscribeStatus.CLOSED, SubscribeStatus.CHANNEL_ERROR]:
                told.pop()
            assert SubscribeStatus.CLOSED not in told[:-1], "something after CLOSED"
            assert (SubscribeStatus.SUBSCRIBED,) * 2 not in pairwise(told)
            failures = sum(status in FAILURES for status in told)
            assert failures <= self.asked_for[channel], "a loss was told twice"

    @invariant()
    def the_registry_holds_who_is_there(self) -> None:
        for topic, channel in self.world.client_machine.channels.items():
            assert channel.topic == topic
            assert not channel.removed
            assert channel.state != "leaving"
        for channel in self.channels:
            if channel.state == "closed":
                assert channel.removed
                assert channel.join_ref is None

    @invariant()
    def a_wanted_link_is_up_or_on_its_way(self) -> None:
        client_machine, deadlines = self.world.client_machine, self.world.context.outbox.deadlines
        planned = deadlines.get("connect") is not None
        if client_machine.wanted and not self.world.context.is_open:
            assert planned or self.is_due, "nobody will ever connect"
        elif not client_machine.wanted:
            assert not planned

    @invariant()
    def a_wanted_channel_is_joined_or_on_its_way(self) -> None:
        world = self.world
        if not world.context.is_open or not world.context.policy.enabled:
            return
        for channel in world.client_machine.channels.values():
            if channel.state in ("joining", "errored") and channel.final_error is None:
                assert self.is_on_its_way(channel), "nothing will ever join it"

    def is_on_its_way(self, channel: ChannelMachine) -> bool:
        world = self.world
        if world.context.outbox.deadlines.get((channel, "rejoin")) is not None:
            return True
        if any(push.kind is RequestKind.JOIN for push in world.context.requests.of(channel)):
            return True
        return channel in world.client_machine._joins and (
            self.is_token_wanted or world.context.outbox.deadlines.get("joins") is not None
        )

    def teardown(self) -> None:
        """At the end nothing is left: no request without an end, and no deadline."""
        if not hasattr(self, "world"):
            return
        self.disconnect()
        self.world.advance(100.0)
        assert self.world.client_machine.next_deadline() is None
        assert self.world.client_machine.pending_replies == 0
        assert set(self.outcomes) == set(self.world.ended)
        self.step()
        assert self.past == [] or not self.live


SessionStateMachine.TestCase.settings = settings(
    max_examples=100,
    stateful_step_count=80,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


TestWalk = SessionStateMachine.TestCase
