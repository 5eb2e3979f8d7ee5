"""The state machine of one channel: the messages and events of each transition.

``channel_states`` has the table of transitions; no other file changes the state of a channel.

Rules that the table does not show:

* ``joining`` means wanted and not answered yet. The join may still wait for a link, for a token
  or in the queue. ``join_ref`` is set only from the sending of a join until its end, so a frame of
  an older join never matches.
* Leaving waits for the server's reply or the timeout, unlike in supabase-js, so that CLOSED means
  closed on the server too. The topic is free at once: the client's machine removes the channel from
  its registry first.
* A loss is reported once. While a channel is errored, further failures of the link are silent.
* ``rejoin`` decides whether and when a lost or refused channel is joined again.
"""

from __future__ import annotations

from typing import Any

from ..._wire.envelope import Message, sub_topic
from ..._wire.serializer import BroadcastFrames
from ...enums import ChannelState, ListenType, SubscribeStatus
from ...errors import BindingMismatch, InvalidState, RealtimeError, SubscribeError
from ..channel_options import ChannelConfig
from ..events import ChannelRemoved, ChannelResumed, GapFound, RequestEnded, StatusChanged
from ..fast_routes import reroute
from ..refusals import close_error, join_refusal
from ..requests import Request, RequestBuffer, RequestKind
from ..shared_state import CLIENT_VERSION, SharedState
from .bindings import Bindings
from .channel_states import CLOSED, ERRORED, JOINED, JOINING, LEAVING, TRANSITIONS, Input
from .inbound import Inbound
from .join_timeout import join_deadline
from .presence_tracking import PresenceTracker
from .rejoin import Rejoin
from .silent_feed import SilentFeedWatch

__all__ = ["ChannelMachine", "crash_error", "mismatch_error", "over_error", "too_early_error"]


class ChannelMachine:
    """One channel of one client. ``owner`` is the public object; the machine never uses it."""

    # With over thirty attributes Python gives each object a dict of its own, of 1.5 KB.
    # fmt: off
    __slots__ = (
        "__weakref__", "_buffer", "_context", "_gap_reason", "_heard_until", "_join", "_joined_at",
        "_leave", "_leave_outcomes", "_lost_at", "_missed_since", "_outbox", "_sent_entries",
        "_token_generation", "bindings", "config", "frames", "inbound", "join_payload_extra",
        "join_ref", "last_downtime", "left_ref", "owner", "rejoin", "removed",
        "silent_feed_watch", "state", "subscribed_once", "timeout", "topic", "tracker",
    )
    # fmt: on

    def __init__(self, topic: str, config: ChannelConfig, context: SharedState) -> None:
        self.topic: str = topic
        self.config: ChannelConfig = config
        self.owner: Any = None
        self.state: ChannelState = CLOSED
        self.join_ref: str | None = None
        self.left_ref: str | None = None
        """The ``join_ref`` of the join that was left; a late ``phx_close`` carries it."""
        self.subscribed_once: bool = False
        self.removed: bool = False
        self.timeout: float = context.timeout
        self.last_downtime: float | None = None
        self.inbound: Inbound = Inbound(self, context)
        self.bindings: Bindings = self.inbound.bindings
        self.tracker: PresenceTracker = PresenceTracker(self, context)
        self.rejoin: Rejoin = Rejoin(self, context)
        self.silent_feed_watch: SilentFeedWatch = SilentFeedWatch(self, context)
        self.join_payload_extra: dict[str, Any] = {}
        self._context = context
        self._outbox = context.outbox
        self._buffer = RequestBuffer(context.outbox)
        self._join: Request | None = None
        self._leave: Request | None = None
        self._leave_outcomes: list[object | None] = []
        self._sent_entries: list[dict[str, Any]] = []
        self._token_generation = context.token_generation
        self._joined_at = 0.0
        self._lost_at: float | None = None
        self._gap_reason = "lost"
        # Unix times, because our monotonic clock may stop while the computer sleeps.
        self._heard_until = self._missed_since = 0.0
        self.frames: BroadcastFrames | None = None

    # -- state ---------------------------------------------------------------------------

    def _move(self, what: Input) -> None:
        try:
            self.state = TRANSITIONS[self.state][what]
        except KeyError:
            raise InvalidState(f"{what.name} does not fit a {self.state} channel") from None
        reroute(self._context.routes, self, is_joined=self.state is JOINED)

    @property
    def sub_topic(self) -> str:
        return sub_topic(self.topic)

    @property
    def can_push(self) -> bool:
        return self.state is JOINED and self._context.is_open

    @property
    def final_error(self) -> RealtimeError | None:
        """The error after which the channel is not joined again by itself, or None."""
        return self.rejoin.final_error

    @property
    def wants_join(self) -> bool:
        """True if this channel must be joined on a new link."""
        if self.state is JOINING:
            return self._join is None
        return self.state is ERRORED and self.final_error is None and not self.removed

    def _status(self, status: SubscribeStatus, error: BaseException | None = None) -> None:
        self._outbox.emit(StatusChanged(self, status, error))

    # -- joining -------------------------------------------------------------------------

    def subscribe(self, timeout: float, now: float) -> None:
        """Ask for the channel. Does nothing if it is wanted already."""
        if self.removed or self.state is LEAVING:
            raise over_error(
                "tried to join multiple times. 'join' can only be called a single time per "
                "channel instance",
                self.sub_topic,
            )
        # Without automatic rejoining an errored channel waits for a call of ``subscribe``.
        waits = self.final_error is not None or not self._context.policy.enabled
        if self.state is not CLOSED and not (self.state is ERRORED and waits):
            return
        self._move(Input.SUBSCRIBE)
        self.subscribed_once = True
        self.rejoin.allow()
        self.timeout = timeout
        if self.bindings.of_type(ListenType.POSTGRES_CHANGES):
            self.timeout = max(timeout, self.config.join_timeout_extension)
        if self._context.is_open:
            self._context.wait_for_join(self, False)
        else:
            self._outbox.deadlines.set((self, "unsent"), now + self.timeout)

    def write_join(self, now: float) -> None:
        """Send the join: the link is open and the queue has reached this channel."""
        self._outbox.deadlines.cancel((self, "unsent"))
        self._outbox.deadlines.cancel((self, "rejoin"))
        self._move(Input.REJOIN)
        self._sent_entries = self.bindings.postgres_changes()
        payload = self._join_payload()
        self._join = Request(self, RequestKind.JOIN, "phx_join", payload, self.timeout)
        self._context.requests.write(self._join, None, self.topic, now)
        self.join_ref = self._join.ref

    def _join_payload(self) -> dict[str, Any]:
        config = self.config.join_payload(
            presence=self.inbound.listens_to_presence,
            postgres_changes=self._sent_entries,
            since=self.inbound.replay_since(self._heard_until),
        )
        payload: dict[str, Any] = {"config": config}
        self.rejoin.token_sent(self._context.token)
        if self._context.token:
            payload["access_token"] = self._context.token
        if self._context.token_generation != self._token_generation:
            payload["version"] = CLIENT_VERSION
        payload.update(self.join_payload_extra)
        return payload

    def _join_replied(self, status: str, response: Any, now: float) -> None:
        self._join = None
        if status != "ok":
            self._join_refused(response, now)
            return
        entries = response.get("postgres_changes") if isinstance(response, dict) else None
        if isinstance(entries, list):
            difference = self.bindings.reconcile(self._sent_entries, entries)
            if difference is not None:
                self._mismatched(difference)
                return
        self._joined(now)

    def _joined(self, now: float) -> None:
        self._move(Input.JOIN_OK)
        self._joined_at = now
        self.rejoin.joined()
        self.inbound.joined(self.join_ref)
        if self._context.token != self.rejoin.sent_token:
            # The token changed while the join was under way; nothing else would tell the server.
            self.token_changed(now)
        for request in self._buffer.pop_all():
            self._context.requests.write(request, self.join_ref, self.topic, now)
        self.tracker.joined(now)
        if self._lost_at is not None:
            self._emit_resumed(self._lost_at, now)
        self._status(SubscribeStatus.SUBSCRIBED)

    def _emit_resumed(self, lost_at: float, now: float) -> None:
        self._lost_at = None
        self.last_downtime = now - lost_at
        until = self._context.unix_time(now)
        self._outbox.emit(GapFound(self.topic, self._missed_since, until, self._gap_reason))
        self._gap_reason = "lost"
        self._outbox.emit(ChannelResumed(self, self.last_downtime))

    def _join_refused(self, response: Any, now: float) -> None:
        error, verdict = join_refusal(response, self.topic)
        self.join_ref = None
        self.rejoin.refusals += 1
        self._move(Input.JOIN_REFUSED)
        self.rejoin.act_on(error, verdict, now)
        self._status(SubscribeStatus.CHANNEL_ERROR, error)

    def _mismatched(self, difference: str) -> None:
        error = mismatch_error(difference, self.topic)
        self._leave_unawaited()
        self._move(Input.JOIN_MISMATCH)
        self.rejoin.final_error = error
        self._end_requests()
        self.remove()
        self._status(SubscribeStatus.CLOSED)
        self._status(SubscribeStatus.CHANNEL_ERROR, error)

    def _join_timed_out(self, now: float) -> None:
        self._join = None
        self._leave_unawaited()
        self._move(Input.JOIN_TIMEOUT)
        self.rejoin.schedule(now)
        self._status(SubscribeStatus.TIMED_OUT)

    def _leave_unawaited(self) -> None:
        """Send a leave without waiting for the reply: the server may still accept the join late."""
        if self.join_ref is not None and self._context.is_open:
            ref = self._outbox.next_ref()
            self._outbox.send(Message(self.join_ref, ref, self.topic, "phx_leave", {}))
        self.join_ref = None

    # -- losing --------------------------------------------------------------------------

    def link_lost(self, error: BaseException, now: float) -> None:
        """Handle the loss of the socket, which ends the channel on the server."""
        if self.state is LEAVING:
            self._left("ok", None)
        elif self.state in (JOINING, JOINED):
            self._lose(now)
            self._status(SubscribeStatus.CHANNEL_ERROR, error)
        self.rejoin.link_lost()
        self._outbox.deadlines.cancel((self, "rejoin"))

    def crashed(self, payload: Any, now: float) -> None:
        """Handle ``phx_error``: the process of the channel on the server died.

        See docs/protocol.md#closes-and-crashes.
        """
        if self.state not in (JOINING, JOINED):
            return
        error = crash_error(payload, self.topic)
        self._lose(now)
        self.rejoin.schedule(now)
        self._status(SubscribeStatus.CHANNEL_ERROR, error)

    def closed_by_server(self, now: float) -> None:
        """Handle ``phx_close``: the answer to our leave, or a close by the server itself."""
        if self.state is LEAVING:
            self._left("ok", None)
            return
        message = self.inbound.system_error
        error, verdict = close_error(message, self.topic)
        if message is not None and message.startswith("Track message size"):
            self.tracker.forget()
        if not self._context.policy.rejoin_closed:
            self._move(Input.CLOSE)
            self._end(error)
            return
        self._lose(now)
        self.rejoin.act_on(error, verdict, now)
        self._status(SubscribeStatus.CHANNEL_ERROR, error)

    def rejoin_silent(self, now: float) -> None:
        """Join again because no database change came for a long time."""
        # A new token makes the server subscribe again too, but it ignores a token that it knows
        # (docs/protocol.md#a-new-token). A join always works.
        self._leave_unawaited()
        self._lose(now)
        # Other frames may have come all the time: the gap begins at the last change.
        self._missed_since = self._context.unix_time(self.inbound.changed_at)
        self._gap_reason = "resubscribed"
        self._context.wait_for_join(self, False)

    def _lose(self, now: float) -> None:
        self.silent_feed_watch.stop()
        if self.state is JOINED:
            self._lost_at = now
            self._heard_until = self._context.unix_time(self._context.last_frame_at)
            self._missed_since = self._heard_until
            self.rejoin.lost(lived=now - self._joined_at)
        self._move(Input.LOST)
        self._join = None
        self.join_ref = None
        self._outbox.deadlines.cancel((self, "unsent"))
        self._end_pending()
        self.tracker.lost(now)
        self.inbound.lost()

    def _end_pending(self) -> None:
        for request in self._context.requests.of(self):
            self._context.requests.pop(request.ref)
            self._finish(request, "error", None)

    def link_up(self, now: float) -> None:
        """Join on a new link, if the channel is wanted and no rate limit delays it."""
        self._outbox.deadlines.cancel((self, "unsent"))
        if not self.wants_join:
            return
        paused_until = self.rejoin.paused_until(now)
        if paused_until is None:
            self._context.wait_for_join(self, False)
        else:
            self._outbox.deadlines.set((self, "rejoin"), paused_until)

    def token_changed(self, now: float) -> None:
        """Send a new token to the server, or join again if the old token was refused."""
        if self.can_push:
            payload = {"access_token": self._context.token}
            ref = self._outbox.next_ref()
            self._outbox.send(Message(self.join_ref, ref, self.topic, "access_token", payload))
            self.rejoin.token_sent(self._context.token, pushed_at=now)
        elif self.state is ERRORED and self.rejoin.token_changed() and self._context.is_open:
            self._context.wait_for_join(self, False)

    # -- leaving -------------------------------------------------------------------------

    def unsubscribe(self, timeout: float, outcome: object | None, now: float) -> None:
        """Leave by the user's wish. The topic is free already."""
        if self.state is LEAVING:
            self._leave_outcomes.append(outcome)
            return
        if self.state is CLOSED and self.removed:
            self._outbox.emit(RequestEnded(outcome, "ok"))
            return
        told = self.join_ref is not None and self._context.is_open
        self._drop_join()
        if not told:
            self._move(Input.LEAVE_NOW)
            self._end(None)
            self._outbox.emit(RequestEnded(outcome, "ok"))
            return
        self._move(Input.LEAVE)
        self.left_ref = self.join_ref
        self._leave = Request(self, RequestKind.LEAVE, "phx_leave", {}, timeout)
        self._leave_outcomes.append(outcome)
        self._context.requests.write(self._leave, self.join_ref, self.topic, now)

    def _drop_join(self) -> None:
        if self._join is not None:
            self._context.requests.pop(self._join.ref)
            self._join = None
        for name in ("unsent", "rejoin"):
            self._outbox.deadlines.cancel((self, name))

    def _left(self, result: str, response: Any) -> None:
        assert self._leave is not None
        self._context.requests.pop(self._leave.ref)
        self._leave = None
        self._move(Input.LEFT)
        self._end(None)
        outcomes, self._leave_outcomes = self._leave_outcomes, []
        for outcome in outcomes:
            self._outbox.emit(RequestEnded(outcome, result, response))

    def teardown(self) -> None:
        """End the channel here without telling the server."""
        if self.state is LEAVING:
            self._left("ok", None)
        elif not (self.state is CLOSED and self.removed):
            self._drop_join()
            self._move(Input.LEAVE_NOW)
            self._end(None)

    def give_up(self, error: BaseException) -> None:
        """End the channel because the client stops for good."""
        self._drop_join()
        self._move(Input.GIVE_UP)
        self._end(error)

    def _end(self, error: BaseException | None) -> None:
        """End every request and report CLOSED once; common to all ways to ``closed``."""
        told_already = self.removed
        self.join_ref = None
        self.rejoin.allow()
        self._end_requests()
        self.remove()
        if self.subscribed_once and not told_already:
            self._status(SubscribeStatus.CLOSED, error)

    def remove(self) -> None:
        """Report once that the channel left the registry."""
        if not self.removed:
            self.removed = True
            self._outbox.emit(ChannelRemoved(self))

    def end_waiting(self) -> None:
        """End the requests that wait for a join, for no join follows."""
        for request in self._buffer.pop_all():
            self._finish(request, "error", None)
        self.tracker.end_waiting("error")

    def _end_requests(self) -> None:
        self.end_waiting()
        self._end_pending()
        self.tracker.forget()
        self.silent_feed_watch.stop()
        for name in ("unsent", "rejoin", "track"):
            self._outbox.deadlines.cancel((self, name))

    # -- requests ------------------------------------------------------------------------

    def require_subscribed(self, event: str) -> None:
        """Raise ``InvalidState`` before ``subscribe`` and after the channel is closed."""
        if not self.subscribed_once:
            raise too_early_error(event, self.topic)
        if self.state is CLOSED:
            text = f"tried to push '{event}' to '{self.topic}' after it was closed"
            raise over_error(text, self.sub_topic)

    def push(self, request: Request, now: float) -> Request | None:
        """Send a request, or hold it until the channel is joined.

        Returns the request that was dropped because too many are held, if any.
        """
        self.require_subscribed(request.event)
        dropped: Request | None = None
        if request.kind is RequestKind.PRESENCE:
            self.tracker.call(request, now)
        elif self.can_push:
            self._context.requests.write(request, self.join_ref, self.topic, now)
        else:
            dropped = self._buffer.add(request, now)
            if dropped is not None:
                self._finish(dropped, "error", None)
        return dropped

    def cast(self, event: str, payload: Any, outcome: object | None) -> None:
        """Send a message without a reply; ``outcome`` settles when it is written."""
        ref = self._outbox.next_ref()
        self._outbox.send(Message(self.join_ref, ref, self.topic, event, payload), outcome)

    def replied(self, request: Request, status: str, response: Any, now: float) -> None:
        """Handle the reply to a request of this channel."""
        if request is self._join:
            self._join_replied(status, response, now)
        elif request is self._leave:
            self._left("ok" if status == "ok" else "error", response)
        else:
            if request.kind is RequestKind.PRESENCE and status != "ok":
                self.tracker.refused(request)
            self._finish(request, "ok" if status == "ok" else "error", response)

    def timed_out(self, request: Request, now: float) -> None:
        """Handle the passed deadline of a request of this channel."""
        if request is self._join:
            deadline = join_deadline(request, self._context)
            if deadline > now:
                self._outbox.deadlines.set(request, deadline)
                return
            self._context.requests.pop(request.ref)
            self._join_timed_out(now)
            return
        self._context.requests.pop(request.ref)
        if request is self._leave:
            self._left("timed out", None)
            return
        self._buffer.remove(request)
        self._finish(request, "timed out", None)

    def dropped(self, request: Request) -> None:
        """End a request whose link is gone. ``link_lost`` reports a join."""
        self._finish(request, "error", None)

    def _finish(self, request: Request, result: str, response: Any) -> None:
        if request.kind is RequestKind.PRESENCE:
            self.tracker.ended(request, result, response)
        elif request.kind is not RequestKind.JOIN:
            self._outbox.emit(RequestEnded(request.outcome, result, response))

    def woken(self, name: str, now: float) -> None:
        """Handle a deadline of this channel by its name."""
        if name == "track":
            self.tracker.woken(now)
        elif name == "unsent":
            self._join_timed_out(now)
        elif name == "feed":
            self.silent_feed_watch.woken(now)
        elif self._context.is_open:
            self._context.wait_for_join(self, self._context.has_token_source)


def crash_error(payload: Any, topic: str) -> SubscribeError:
    """Returns the error for a ``phx_error`` (docs/protocol.md#closes-and-crashes)."""
    return SubscribeError(
        _crash_text(payload),
        topic=topic,
        code="channel_crash",
        retryable=True,
        hint="the server dropped the channel; it is joined again by itself",
    )


def _crash_text(payload: Any) -> str:
    """Returns the text of supabase-js, with the server's reason if it gave one."""
    if not isinstance(payload, dict):
        return str(payload) if isinstance(payload, str) else "channel error: connection lost"
    code, reason = payload.get("code"), payload.get("reason")
    if isinstance(code, int) and not isinstance(code, bool):
        return f"socket closed: {code} ({reason})" if reason else f"socket closed: {code}"
    return f"channel error: {reason or 'transport failure'}"


def mismatch_error(difference: str, topic: str) -> BindingMismatch:
    """Returns the error for a join whose reply lists other postgres_changes than requested."""
    return BindingMismatch(
        "mismatch between server and client bindings for postgres changes",
        topic=topic,
        hint=f"the server joined something else than was asked for: {difference}",
    )


def too_early_error(event: str, topic: str) -> InvalidState:
    """Returns the error for a request before ``subscribe``, with the text of supabase-js."""
    return InvalidState(
        f"tried to push '{event}' to '{topic}' before joining. "
        "Use channel.subscribe() before pushing events",
        hint="call channel.subscribe() first; what is pushed then waits for the join",
    )


def over_error(text: str, sub_topic: str) -> InvalidState:
    """Returns the error for a channel object that cannot be joined any more."""
    return InvalidState(text, hint=f"make a new one: client.channel({sub_topic!r})")
