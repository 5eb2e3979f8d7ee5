"""The messages that arrive on a joined channel, and the bindings that they are for.

An unreadable payload raises ``DecodeError`` before anything has changed. The connection counts and
skips the frame.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

import msgspec

from ..._payloads.broadcast import read_broadcast
from ..._payloads.postgres_data import read_postgres_changes
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
"""Seconds by which a replay begins before the last frame heard: clocks and queues differ."""
REPLAY_LIMIT = 25
"""The most broadcasts that the server replays. If this many broadcasts come, more may be
missing.
"""
REPLAY_MEMORY = 4096
"""Ids of broadcasts kept, to drop those that a replay sends again."""


class Inbound:
    """The receiving side of one channel."""

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
        """True if each broadcast must be checked, because a replay may send it again."""
        self._replayed_since = 0.0
        self._replayed = 0
        self._feed_down_since: float | None = None
        self._feed_flowed = False
        self.notes_changes: bool = False
        """True if the time of each database change must be noted."""
        self.changed_at: float = 0.0
        """The time of the last database change; kept for ``resubscribe_after`` only."""

    @property
    def listens_to_presence(self) -> bool:
        return bool(self.bindings.of_type(ListenType.PRESENCE))

    def joined(self, join_ref: str | None) -> None:
        """Forget the server's reports about the last join: there is a new one."""
        self._join_ref = join_ref
        self.system_error = None
        self.ready = False
        self.ready_error = None
        self._replayed = 0
        if self._feed_flowed and self._feed_down_since is None:
            # The channel reports the gap until the join; the change feed starts even later.
            self._feed_down_since = self._context.last_frame_at

    def lost(self) -> None:
        """Handle the end of the join. The presence state stays readable, as in supabase-js."""
        self.ready = False
        self.system_error = None
        self._feed_down_since = None

    def missed(self, since: float, until: float, event: str | None = None) -> None:
        """Report a gap: an unreadable frame came between two times. It had this ``event``, or an
        unknown one.
        """
        if event is not None and event not in READERS:
            return
        since, until = map(self._context.unix_time, (since, until))
        self._emit(GapFound(self._channel.topic, since, until, "unreadable"))
        if self.ready and event in (None, "postgres_changes"):
            # The same event as at the start of the feed: a backfill reads the missed rows.
            self._emit(ReadyChanged(self._channel, None))

    def replay_since(self, heard_until: float) -> int | None:
        """Returns ``since`` of the replay for the next join, in milliseconds of Unix time.

        ``heard_until`` is the Unix time of the last frame, 0 before the first. ``since`` follows
        it, so that a rejoin does not replay everything again.
        """
        replay = self._channel.config.replay
        if replay is None:
            return None
        since = int(replay["since"])
        if heard_until:
            since = max(since, int((heard_until - REPLAY_OVERLAP) * 1000))
        self._replayed_since = since / 1000
        return since

    # Each reader applies a payload of the current join and returns its delivery. Most frames lead
    # to one delivery and nothing else, which the connection can then hand over at once, without
    # the outbox.

    def _broadcast(self, payload: Any) -> Delivery | None:
        found = read_broadcast(payload)
        if self.replays and self._is_known(found.meta):
            return None
        ids = self.bindings.broadcast(found.event)
        return (self._channel, ids, found) if ids else None

    def _is_known(self, meta: Any) -> bool:
        """Returns True for a broadcast that came before, live or by a replay."""
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
        # A payload that only the standard library reads comes decoded, and its size is not known.
        size = memoryview(payload).nbytes if isinstance(payload, msgspec.Raw) else None
        self._emit_presence(self.presence.receive_diff(plain(payload), self._join_ref, size))

    def sync_only(self) -> tuple[int, ...] | None:
        """Returns the bindings of ``sync``, or None if there are bindings of joins or leaves."""
        named = self.bindings.named
        if named(ListenType.PRESENCE, "join") or named(ListenType.PRESENCE, "leave"):
            return None
        return named(ListenType.PRESENCE, "sync")

    def apply_diff(self, diff: Any, size: int) -> bool:
        """Apply a presence diff without join and leave events. Returns True if ``sync`` is due.

        ``size`` is that of its frame. Raises ``DecodeError`` if the general path has to look at it.
        """
        return self.presence.apply_diff(diff, self._join_ref, size)

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
        """Handle the report that the change feed runs or failed; the join does not tell it.

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
"""The reader of each event. One table for all channels; one for each would take 600 bytes."""
