"""The server's side of one joined channel."""

from __future__ import annotations

import dataclasses
import functools
import sys
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from ..._wire.envelope import TOPIC_PREFIX, Message, UserBroadcast
from ..._wire.json_codec import dumps, plain
from .._tables.change_feed import entry_id
from ..tokens import Rights, Token, TokenError, expired
from .join_request import JoinConfig
from .memory_bounds import MOST_DECODED, held, weigh
from .message_store import StoredMessage
from .outgoing import Fanout, OutgoingFrame
from .presence_book import PresenceWindow
from .server_deadlines import ServerDeadlines
from .server_state import Backend
from .topics import Member, SpaceKey

__all__ = ["NO_DATABASE", "OK", "ServerChannel", "channel_weight"]

OK: dict[str, Any] = {"status": "ok", "response": {}}
ERROR: dict[str, Any] = {"status": "error", "response": {}}
NOT_A_MAP: dict[str, Any] = {
    "status": "error",
    "response": {"reason": "Presence track payload must be a map"},
}
TOO_LARGE = {"status": "error", "response": "payload_size_exceeded"}
TRACK_TOO_LARGE = "Track message size exceeded"
NO_READ = "You do not have permissions to read from this Channel topic: "
NO_DATABASE = "Realtime was unable to connect to the project database"
SUBSCRIBED = "Subscribed to PostgreSQL"
NO_LONGER = "You no longer have permission to read from this Channel topic: "


def channel_weight(message: Message) -> int:
    """The bytes that a channel joined by this message holds: its topic is kept in two forms."""
    return held(message, weigh(message.payload)) + sys.getsizeof(message.topic)


class Host(Protocol):
    """A session, as its channels see it."""

    backend: Backend
    vsn: str
    number: int
    now: float
    timers: ServerDeadlines

    def write(self, frame: OutgoingFrame) -> None:
        """Write a frame."""

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

    def drop(self, channel: ServerChannel) -> None:
        """Forget a channel that has ended."""


class ServerChannel:
    """One channel of one socket, from its accepted join to its end."""

    def __init__(
        self, session: Host, message: Message, config: JoinConfig, token: Token, rights: Rights
    ) -> None:
        self.session = session
        self.backend: Backend = session.backend
        self.topic: str = message.topic
        self.sub_topic: str = message.topic.removeprefix(TOPIC_PREFIX)
        self.join_ref: str | None = message.join_ref
        self.config = config
        self.weight: int = channel_weight(message)
        """The memory of its join, in bytes."""
        self.alive: bool = True
        self._reply_ref = message.ref if message.join_ref is None else message.join_ref
        self._token = token
        self._rights = rights
        self._key = config.presence_key or str(uuid.uuid1())
        self._presence = config.presence_enabled or self.backend.settings.presence_enabled
        self._window = PresenceWindow(self.backend.settings.presence_limit)
        # If presence was not enabled by the join, the channel itself pushes the diffs.
        self._late_presence = config.private and not self._presence
        self._started = False
        self._replayed: set[str] = set()
        self._asking = False
        self._newest: Token | None = None

    # -- as a member of the hub and a subscriber of the feed ---------------------------

    @property
    def space(self) -> SpaceKey:
        """The space of this channel."""
        return self.sub_topic, self.config.private

    @property
    def connection(self) -> int:
        """The number of the socket."""
        return self.session.number

    def describe(self) -> dict[str, Any]:
        """Returns the data for the status page; of the token, only the role."""
        names = ("event", "schema", "table", "filter")
        return {
            "topic": self.sub_topic,
            "private": self.config.private,
            "role": self._token.role,
            "changes": [
                " ".join(str(entry[name]) for name in names if name in entry)
                for entry in self.config.postgres_changes
            ],
        }

    def hears_broadcasts(self, sender: Member | None) -> bool:
        """Returns True for broadcasts of others, and for its own if ``self`` is on."""
        return self._rights.broadcast_read and (sender is not self or self.config.self_broadcast)

    def hears_presence(self) -> bool:
        """Returns True on public channels, even with presence off.

        See docs/protocol.md#presence-switched-on.
        """
        return not self.config.private or (self._presence and self._rights.presence_read)

    def deliver(self, message: Fanout) -> bool:
        """Write a message of the hub, with the join_ref null."""
        if message.message_id is not None and message.message_id in self._replayed:
            return False
        if self._late_presence and message.event == "presence_diff":
            self._push(message.event, message.payload)
            return True
        frame = message.frame(self.session.vsn)
        if frame is None:
            return False
        self.session.write(frame)
        return True

    def change_claims(self) -> Mapping[str, Any]:
        """Returns the claims for row level security."""
        return self._token.claims

    def deliver_change(self, kind: str, ids: Sequence[int], data: msgspec.Raw) -> None:
        """Write a database change; the legacy form is named after its type.

        See docs/protocol.md#the-legacy-form.
        """
        rate = self.backend.limits.changes
        if rate.tripped:
            # Skipped silently, as on the real server (docs/protocol.md#timing).
            return
        rate.count += len(ids)
        if self.config.legacy:
            self.session.send(self.topic, kind, data)
        else:
            self.session.send(self.topic, "postgres_changes", {"data": data, "ids": ids})

    def changes_missed(self, problem: str) -> None:
        """Write that database changes were missed, then that the subscription goes on."""
        self.system(problem, "error", "postgres_changes")
        self.system(SUBSCRIBED, "ok", "postgres_changes")

    # -- from the join to the first live message ---------------------------------------

    def join_response(self) -> dict[str, Any]:
        """Returns the response of the accepted join: the client's entries with ids."""
        entries = self.config.postgres_changes
        return {"postgres_changes": [{"id": entry_id(entry), **entry} for entry in entries]}

    def start(self, stored: Sequence[StoredMessage] = ()) -> None:
        """Write the messages after the join's reply, in the real server's order.

        See docs/protocol.md#from-join-to-live.
        """
        self.backend.hub.enter(self)
        self._watch_expiry()
        for message in stored:
            self._replayed.add(message.id)
            self._push_replayed(message.replayed())
        if self.config.postgres_changes:
            self._subscribe_after(self.backend.settings.postgres_ready_delay)
        else:
            self._finish_start()

    def _push_replayed(self, payload: Any) -> None:
        if isinstance(payload, UserBroadcast):
            self.deliver(Fanout(self.topic, "broadcast", payload))
        else:
            self._push("broadcast", payload)

    def _finish_start(self) -> None:
        if self._started or not self.alive:
            return
        self._started = True
        if self.config.replication_ready:
            self.system("Replication connection established", "ok")
        if self._presence and self._rights.presence_read and self._presence_admitted():
            self._push("presence_state", self.backend.hub.presence_state(self.space))

    # -- database changes --------------------------------------------------------------

    def _subscribe_after(self, delay: float) -> None:
        if delay > 0:
            when = self.session.now + delay
            self.session.timers.set((self, "postgres"), when, self._subscribe)
        else:
            self._subscribe()

    def _subscribe(self) -> None:
        forced = self.backend.faults.postgres_error
        if forced is not None:
            self._subscribed(forced)
        else:
            self.backend.feed.subscribe(self, self.config.postgres_changes, self._subscribed)

    def _subscribed(self, error: str | None) -> None:
        if not self.alive:
            return
        text = SUBSCRIBED if error is None else error
        self.system(text, "ok" if error is None else "error", "postgres_changes")
        self._finish_start()

    # -- pushes of the client ----------------------------------------------------------

    def push(self, message: Message) -> None:
        """Handle a push; an unknown event is ignored (docs/protocol.md#pushes-nobody-expects)."""
        if message.event == "broadcast":
            self._broadcast(message)
        elif message.event == "presence":
            self._presence_push(message)
        elif message.event == "access_token":
            too_large = weigh(message.payload) > MOST_DECODED
            self._access_token({"access_token": ""} if too_large else plain(message.payload))
        else:
            self.backend.limits.events.count += 1

    def _reply(self, message: Message, payload: Any) -> None:
        self.session.send(
            self.topic, "phx_reply", payload, join_ref=self._reply_ref, ref=message.ref
        )

    def _broadcast(self, message: Message) -> None:
        payload = message.payload
        if isinstance(payload, UserBroadcast):
            size = len(payload.body)
            # The client's metadata is not passed on (docs/protocol.md#version-2-binary).
            content: Any = UserBroadcast(payload.event, payload.is_json, b"", payload.body)
        elif isinstance(payload, bytes):
            # Kind 0: its data is passed on unchanged.
            content, size = payload, len(payload)
        else:
            text = bytes(payload) if isinstance(payload, msgspec.Raw) else dumps(payload)
            if not text.lstrip().startswith(b"{"):
                return
            content, size = payload, len(text)
        if not self._rights.broadcast_write:
            # No answer, even with ack (docs/protocol.md#rights-on-a-private-channel).
            return
        if size > self.backend.settings.max_payload_size:
            answer: Any = TOO_LARGE
        else:
            self._fan_out(content)
            answer = OK
        if self.config.ack:
            self._reply(message, answer)
        if self.backend.limits.events.tripped and answer is OK:
            self.backend.hub.overrun(self.space, self)

    def _fan_out(self, content: Any) -> None:
        if not self.backend.limits.events.tripped:
            fanout = Fanout(self.topic, "broadcast", content)
            self.backend.hub.broadcast(self.space, fanout, self)

    def _presence_push(self, message: Message) -> None:
        if weigh(message.payload) > MOST_DECODED:
            self.shut_down(TRACK_TOO_LARGE)
            return
        payload = plain(message.payload)
        event = payload.get("event") if isinstance(payload, dict) else None
        if event is None:
            self._reply(message, OK)
        elif not isinstance(event, str):
            self.crash()
        elif event.lower() == "track":
            self._track(message, payload.get("payload", {}))
        elif event.lower() == "untrack":
            self._untrack(message)
        else:
            self._reply(message, ERROR)

    def _admit(self) -> bool:
        """Count a presence call; returns False, and ends the channel, beyond the limit.

        As recorded, calls with an invalid shape are not counted.
        """
        if self._window.admit(self.session.now):
            return True
        self.shut_down("Client presence rate limit exceeded")
        return False

    def _presence_admitted(self) -> bool:
        """Count a track or a state; returns False, and ends the channel, beyond the rate limit."""
        rate = self.backend.limits.presence
        rate.count += 1
        if rate.tripped:
            self.shut_down("Too many presence messages per second")
        return not rate.tripped

    def _track(self, message: Message, payload: Any) -> None:
        if not isinstance(payload, dict):
            self._reply(message, NOT_A_MAP)
        elif not self._admit():
            return
        elif not self._rights.presence_write:
            self._reply(message, ERROR)
        elif not self._has_room(len(dumps(payload)), weigh(message.payload)):
            self.shut_down(TRACK_TOO_LARGE)
        elif self._presence_admitted():
            self._presence = True
            self._reply(message, OK)
            self.backend.hub.track(self, self._key, payload, weigh(message.payload))

    def _has_room(self, size: int, weight: int) -> bool:
        fits = size <= self.backend.settings.max_payload_size
        return fits and self.backend.hub.has_room(self, weight)

    def _untrack(self, message: Message) -> None:
        if self._admit():
            self._reply(message, OK)
            self.backend.hub.untrack(self)

    # -- the token ---------------------------------------------------------------------

    def _watch_expiry(self) -> None:
        self.session.timers.set((self, "token"), self._token.exp, self._expire)

    def _expire(self) -> None:
        self.shut_down(expired(self._token.exp, self.session.now).system)

    def _access_token(self, payload: Any) -> None:
        text = payload.get("access_token") if isinstance(payload, dict) else None
        if not isinstance(text, str) or text.startswith("sb_"):
            return
        if "".join(text.split()) == self._token.text:
            return
        try:
            token = self.backend.tokens.verify(text, self.session.now)
        except TokenError as exc:
            self.shut_down(exc.system)
            return
        token = dataclasses.replace(token, headers=self._token.headers)
        if not self.config.private:
            self._take_over(token)
        elif self._asking:
            # One query at a time: a flood of tokens must not become a flood of queries.
            self._newest = token
        else:
            self._ask(token)

    def _ask(self, token: Token) -> None:
        self._asking = True
        regrant = functools.partial(self._regrant, token)
        self.backend.authorize(token, self.sub_topic, regrant, self.connection)

    def _take_over(self, token: Token) -> None:
        self._token = token
        self._watch_expiry()
        if self.config.postgres_changes:
            self._subscribe_after(self.backend.settings.resubscribe_delay)

    def _regrant(self, token: Token, after: Rights | None) -> None:
        """Use a new token with its rights, unless they end the channel."""
        self._asking = False
        if not self.alive:
            return
        self._judge(token, after)
        newest, self._newest = self._newest, None
        if newest is not None and self.alive:
            self._ask(newest)

    def _judge(self, token: Token, after: Rights | None) -> None:
        if after is None:
            self.shut_down(NO_DATABASE)
            return
        before, self._rights = self._rights, after
        if not after.broadcast_read and not (after.presence_read and self._presence):
            self.shut_down(NO_READ + self.sub_topic)
        elif before.broadcast_read > after.broadcast_read or (
            self._presence and before.presence_read > after.presence_read
        ):
            self.shut_down(NO_LONGER + self.sub_topic)
        else:
            self._take_over(token)

    # -- the end -----------------------------------------------------------------------

    def _push(self, event: str, payload: Any) -> None:
        """Write a message of the channel itself: join_ref set, ref null.

        See docs/protocol.md#version-2-text.
        """
        self.session.send(self.topic, event, payload, join_ref=self._reply_ref)

    def emit(self, event: str, payload: Any) -> None:
        """Write any event as a message of the channel itself."""
        self._push(event, payload)

    def system(self, message: str, status: str = "error", extension: str = "system") -> None:
        """Write a ``system`` message (docs/protocol.md#4-system-messages)."""
        payload = {"message": message, "status": status, "extension": extension}
        self._push("system", payload | {"channel": self.sub_topic})

    def announce_disconnect(self) -> None:
        """Announce a forced disconnect; it is the only ``system`` message without ``channel``."""
        text = "Server requested disconnect"
        payload = {"message": text, "status": "ok", "extension": "system"}
        self.session.send(self.topic, "system", payload)

    def shut_down(self, message: str | None = None) -> None:
        """End the channel from the server's side; a message is sent as ``system`` error first."""
        if message is not None:
            self.system(message)
        self._end("phx_close", {})

    def crash(self) -> None:
        """End the channel as if its process had crashed (docs/protocol.md#closes-and-crashes)."""
        self._end("phx_error", {"reason": "channel_crash"})

    def _end(self, event: str, payload: Any) -> None:
        self.close_frame(event, payload)
        self.session.drop(self)

    def close_frame(self, event: str = "phx_close", payload: Any = None) -> None:
        """Write the frame that ends the channel; its ref equals the join_ref.

        See docs/protocol.md#version-2-text.
        """
        ref = self.join_ref
        self.session.send(self.topic, event, payload or {}, join_ref=ref, ref=ref)

    def terminate(self) -> None:
        """Leave the hub and the feed, without writing a frame."""
        self.alive = False
        self.session.timers.drop((self, "token"))
        self.session.timers.drop((self, "postgres"))
        self.backend.feed.unsubscribe(self)
        self.backend.hub.leave(self)
