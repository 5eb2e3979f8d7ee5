"""What arrives on a joined channel, and whom it is for.

A payload that cannot be read raises ``DecodeError`` to the session, which counts and skips the
frame; nothing has changed by then.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

from ..._payloads.broadcast import read_broadcast, read_postgres_changes
from ..._payloads.presence_events import PresenceJoin, PresenceLeave, PresenceSync
from ..._payloads.system_message import SystemMessage, read_system
from ..._wire.json_codec import plain
from ...enums import ListenType
from ...errors import RealtimeError
from ..events import Delivery, ErrorReported, GapFound, PresenceDelivered, ReadyChanged
from ..refusals import system_error
from ..shared_state import SharedState
from .bindings import Bindings
from .presence_state import PresenceState

__all__ = ["READERS", "Inbound"]

REPLAY_OVERLAP = 30.0
"""Seconds that a replay reaches back beyond the last frame heard: clocks and queues differ."""
REPLAY_LIMIT = 25
"""Rows that the server replays at most; as many as that, and there may have been more."""
REPLAY_MEMORY = 4096
"""Ids of broadcasts remembered, to drop those that a replay brings again."""


class Inbound:
    """The inbound half of one channel."""

    def __init__(self, channel: Any, context: SharedState) -> None:
        self.bindings: Bindings = Bindings()
        self.presence: PresenceState = PresenceState()
        self.system_error: str | None = None
        self.ready: bool = False
        self.ready_error: RealtimeError | None = None
        self._channel = channel
        self._context = context
        self._emit = context.outbox.emit
        self._join_ref: str | None = None
        self._seen: OrderedDict[str, None] = OrderedDict()
        self.replays: bool = channel.config.replay is not None
        """Whether every broadcast must be looked at: a replay may bring it again."""
        self._replayed_since = 0.0
        self._replayed = 0
        self._feed_down_since: float | None = None
        self._feed_flowed = False
        self.notes_changes: bool = False
        """Whether every database change must be looked at, for the time when it came."""
        self.changed_at: float = 0.0
        """When the last database change came; kept for ``resubscribe_after`` only."""

    @property
    def listens_to_presence(self) -> bool:
        return bool(self.bindings.of_type(ListenType.PRESENCE))

    def joined(self, join_ref: str | None) -> None:
        """A new join: what the server said of the last one is history."""
        self._join_ref = join_ref
        self.system_error = None
        self.ready = False
        self.ready_error = None
        self._replayed = 0
        if self._feed_flowed and self._feed_down_since is None:
            # What was missed before is told by the channel; the feed starts later than the join.
            self._feed_down_since = self._context.last_frame_at

    def lost(self) -> None:
        """The join is over; the presence state stays to be seen, as in supabase-js."""
        self.ready = False
        self.system_error = None
        self._feed_down_since = None

    def missed(self, since: float, until: float, event: str | None = None) -> None:
        """Between two moments came what nobody could read: of this ``event``, or of any."""
        if event is not None and event not in READERS:
            return
        since, until = map(self._context.unix_time, (since, until))
        self._emit(GapFound(self._channel.topic, since, until, "unreadable"))
        if self.ready and event in (None, "postgres_changes"):
            # As when the feed begins: a backfill reads what it may have been.
            self._emit(ReadyChanged(self._channel, None))

    def replay_since(self, heard_until: float) -> int | None:
        """The replay's ``since`` for the next join, in milliseconds of Unix time.

        It moves with what was ``heard_until`` a Unix time (0 for nothing), so that a rejoin does
        not bring everything again.
        """
        replay = self._channel.config.replay
        if replay is None:
            return None
        since = int(replay["since"])
        if heard_until:
            since = max(since, int((heard_until - REPLAY_OVERLAP) * 1000))
        self._replayed_since = since / 1000
        return since

    # Each reader acts on a payload of the present join and returns the delivery it leads to. It
    # is returned, not put into the outbox, because most frames lead to one delivery and nothing
    # else: the shell can then tell it at once.

    def _broadcast(self, payload: Any) -> Delivery | None:
        found = read_broadcast(payload)
        if self.replays and self._is_known(found.meta):
            return None
        ids = self.bindings.broadcast(found.event)
        return (self._channel, ids, found) if ids else None

    def _is_known(self, meta: Any) -> bool:
        """Whether a replay (or the live feed after it) brought this broadcast before."""
        if isinstance(meta, dict) and meta.get("replayed") is True:
            self._count_replayed()
        found = meta.get("id") if isinstance(meta, dict) else None
        if not isinstance(found, str):
            return False
        if found in self._seen:
            return True
        self._seen[found] = None
        if len(self._seen) > REPLAY_MEMORY:
            self._seen.popitem(last=False)
        return False

    def _count_replayed(self) -> None:
        self._replayed += 1
        if self._replayed == self._channel.config.replay.get("limit", REPLAY_LIMIT):
            until = self._context.unix_time(self._context.last_frame_at)
            gap = GapFound(self._channel.topic, self._replayed_since, until, "replay_truncated")
            self._emit(gap)

    def _postgres_changes(self, payload: Any) -> Delivery | None:
        if self.notes_changes:
            self.changed_at = self._context.last_frame_at
        envelope = read_postgres_changes(payload)
        data = envelope.data
        ids = self.bindings.changed(envelope.ids, data.type)
        return (self._channel, ids, data) if ids else None

    def _presence_state(self, payload: Any) -> None:
        self._emit_presence(self.presence.receive_state(plain(payload), self._join_ref))

    def _presence_diff(self, payload: Any) -> None:
        self._emit_presence(self.presence.receive_diff(plain(payload), self._join_ref))

    def sync_only(self) -> tuple[int, ...] | None:
        """The bindings of ``sync``, or None where joins and leaves have to be told as well."""
        named = self.bindings.named
        if named(ListenType.PRESENCE, "join") or named(ListenType.PRESENCE, "leave"):
            return None
        return named(ListenType.PRESENCE, "sync")

    def apply_diff(self, diff: Any) -> bool:
        """Apply a presence diff; whether ``sync`` is due. For where only that is told."""
        return self.presence.apply_diff(diff, self._join_ref)

    def _emit_presence(self, events: Any) -> None:
        for event in events:
            ids = self.bindings.named(ListenType.PRESENCE, event.kind)
            if not ids:
                continue
            payload: Any
            if event.kind == "join":
                payload = PresenceJoin(event.key, event.current, event.changed)
            elif event.kind == "leave":
                payload = PresenceLeave(event.key, event.current, event.changed)
            else:
                payload = PresenceSync()
            self._emit(PresenceDelivered(self._channel, ids, payload, event.state))

    def _system(self, payload: Any) -> Delivery | None:
        found = read_system(payload)
        if found.status == "error":
            self._context.last_system_error = found.message
        if found.extension == "postgres_changes":
            self._database(found)
        elif found.status == "error":
            self.system_error = found.message
        ids = self.bindings.named(ListenType.SYSTEM, None)
        return (self._channel, ids, found) if ids else None

    def _database(self, payload: SystemMessage) -> None:
        """The change feed is up, or is not: the join itself says nothing of it.

        See docs/protocol.md#from-join-to-live.
        """
        if payload.status == "ok":
            self.ready, self.ready_error = True, None
            self._feed_flows()
        else:
            if self.ready:
                self._feed_down_since = self._context.last_frame_at
            self.ready = False
            self.ready_error = system_error(str(payload.message), self._channel.topic)
            self._emit(ErrorReported(self.ready_error, self._channel))
        self._emit(ReadyChanged(self._channel, self.ready_error))

    def _feed_flows(self) -> None:
        self._feed_flowed = True
        self.changed_at = self._context.last_frame_at
        if self._feed_down_since is not None:
            since, until = map(self._context.unix_time, (self._feed_down_since, self.changed_at))
            self._feed_down_since = None
            self._emit(GapFound(self._channel.topic, since, until, "feed"))
        self._channel.silent_feed_watch.flows()


READERS: Final[dict[str, Callable[[Inbound, Any], Delivery | None]]] = {
    "broadcast": Inbound._broadcast,
    "postgres_changes": Inbound._postgres_changes,
    "presence_diff": Inbound._presence_diff,
    "presence_state": Inbound._presence_state,
    "system": Inbound._system,
}
"""Who reads the payload of each event. One table for all channels: it would be 600 bytes each."""
