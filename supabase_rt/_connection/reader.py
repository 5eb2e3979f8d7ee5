"""Frames in: decoded, applied, told. Runs on the transport's stack, once for every frame.

Most frames are one event for one channel that is joined, and change nothing else. Those take a
short way through the same rooms: decoded in one pass, found in the routes that the session keeps,
told to the listener that the emitter named. Whatever does not fit (another event, another join, a
topic that is unknown, JSON that only the standard library reads, a codec or a logger of the
user's) goes the long way, which decides everything anew; nothing is decided on the short one.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Callable
from time import perf_counter
from typing import Any, Final, Protocol

from .._payloads.broadcast import Broadcast
from .._payloads.postgres_change import PostgresEnvelope
from .._payloads.presence_events import PresenceSync
from .._printable import get_logger
from .._protocol.client_machine import Session
from .._protocol.events import Delivery
from .._protocol.fast_routes import Lane, Route
from .._runtime.log_fields import facts
from .._runtime.slow_handler import BLOCKING_AFTER, Stopwatch
from .._wire.envelope import Message
from .._wire.json_codec import UNREADABLE
from ..errors import DecodeError
from .codec import Codec
from .frame_decoders import BROADCAST, CHANGES, DIFF, decoder_for, is_utf8, undecoded
from .link import Traffic

__all__ = ["Listeners", "Reader"]

log: Final = get_logger("supabase_rt.connection")

SHORT: Final = {BROADCAST: BROADCAST, CHANGES: CHANGES, DIFF: DIFF}
KIND_4: Final = 4
HEADERS_KEPT: Final = 16_384
"""Headers of binary broadcasts that are remembered, of all channels together."""


class _Shell(Protocol):
    """What the reader needs of the connection."""

    session: Session
    traffic: Traffic
    is_telling: bool
    is_dirty: bool

    def flush(self) -> None: ...
    def report(self, error: BaseException) -> None: ...


class _Listener(Protocol):
    def deliver(self, payload: Any, /) -> None: ...
    def blocked(self, seconds: float, /) -> None: ...


class Listeners(Protocol):
    """What the reader needs of those who tell the user."""

    stopwatch: Stopwatch

    def deliver(self, delivery: Delivery) -> None: ...
    def listener_for(
        self, channel: Any, ids: tuple[int, ...], *, of_changes: bool = False
    ) -> _Listener: ...


class Reader:
    """The one reader of a link."""

    def __init__(
        self, shell: _Shell, codec: Codec, listeners: Listeners, loop: AbstractEventLoop
    ) -> None:
        context = shell.session.context
        self._shell = shell
        self._traffic = shell.traffic
        self._is_plain = codec.is_plain
        self._decode_text = codec.decode_text
        self._decode_binary = codec.decode_binary
        self._receive = shell.session.receive
        self._context = context
        self._routes = context.routes
        self._headers: dict[bytes, Lane] = {}
        self._listeners = listeners
        self._stopwatch = listeners.stopwatch
        self._loop = loop
        self._in_batch = False
        self._expected = BROADCAST
        self._decode = decoder_for(BROADCAST)

    # -- batches -------------------------------------------------------------------------

    # What aiohttp has buffered is read without a turn of the loop in between. For all of it the
    # clock is read once at its begin and once at its end; the end is the loop's next turn.

    def _begin_batch(self) -> None:
        self._in_batch = True
        self._context.last_frame_at = self._loop.time()
        self._stopwatch.start()
        self._loop.call_soon(self._end_batch)

    def _end_batch(self) -> None:
        self._in_batch = False
        # Handlers may have taken their time, and a deadline may fall due in this very turn.
        self._context.last_frame_at = self._loop.time()

    # -- text ----------------------------------------------------------------------------

    def on_text(self, data: bytes) -> None:
        """A text frame arrived."""
        self._traffic.frames_in += 1
        self._stopwatch.size = len(data)
        if not self._in_batch:
            self._begin_batch()
        if self._is_plain and (data.isascii() or is_utf8(data)):
            try:
                frame = self._decode(data)
                if frame.event != self._expected:
                    frame = self._expect(frame.event)(data)
            except UNREADABLE:
                self._take_long_way(self._decode_text, data)
                return
            route = self._routes.get(frame.topic)
            if route is not None and (frame.join_ref is None or frame.join_ref == route.join_ref):
                payload = frame.payload
                if self._expected is BROADCAST:
                    listener = route.listener
                    if listener is None or payload.event != route.event:
                        listener = self._find_broadcast(route, payload.event)
                    if listener is not None:
                        self._tell(listener, payload)
                        return
                elif self._expected is CHANGES:
                    listener = self._find_change(route, payload)
                    if listener is not None:
                        self._tell(listener, payload.data)
                        return
                elif self._expected is DIFF and self._take_diff(route, payload):
                    return
        self._take_long_way(self._decode_text, data)

    def _expect(self, event: str) -> Callable[[bytes], Any]:
        """The next frame will be like this one, as a rule."""
        # The object, not only the text: it is compared by identity above.
        self._expected = SHORT.get(event, event)
        self._decode = decoder_for(event)
        return self._decode

    def _find_broadcast(self, route: Route, event: str | None) -> Any:
        lane = route.broadcasts.get(event) or self._add_broadcast(route, event)
        if lane is None:
            return None
        route.event, route.listener = lane.event, lane.listener
        return lane.listener

    def _add_broadcast(self, route: Route, event: str | None) -> Lane | None:
        channel = route.channel
        if channel.reception.replays:
            return None
        ids = channel.bindings.broadcast(event)
        return route.add_broadcast(event, self._listeners.listener_for(channel, ids))

    def _find_change(self, route: Route, envelope: PostgresEnvelope) -> Any:
        kind = envelope.data.type
        key = (kind, *envelope.ids)
        found = route.changes.get(key)
        if found is None:
            channel = route.channel
            if channel.reception.notes_changes:
                return None
            ids = channel.bindings.changed(envelope.ids, kind)
            found = self._listeners.listener_for(channel, ids, of_changes=True)
            route.add_change(key, found)
        return found

    def _take_diff(self, route: Route, diff: Any) -> bool:
        """Whether all is done; otherwise the long way finds out what is wrong, or whom to tell."""
        reception = route.channel.reception
        listener = route.sync
        if listener is None:
            ids = reception.sync_only()
            if ids is None:
                return False
            listener = route.sync = self._listeners.listener_for(route.channel, ids)
        try:
            is_due = reception.take_diff(diff)
        except DecodeError:
            return False
        if is_due:
            self._tell(listener, PresenceSync())
        return True

    # -- binary --------------------------------------------------------------------------

    def on_binary(self, data: bytes) -> None:
        """A binary frame arrived."""
        self._traffic.frames_in += 1
        self._stopwatch.size = len(data)
        if not self._in_batch:
            self._begin_batch()
        if self._is_plain and len(data) >= 5:
            # All that says whose frame it is, the lengths included, is the key as it stands.
            body_at = 5 + data[1] + data[2]
            header = data[:body_at]
            lane = self._headers.get(header)
            if lane is None or lane.listener is None:
                lane = self._add_header(header)
            if lane is not None:
                body = data[body_at:]
                if not data[4]:
                    self._tell(lane.listener, Broadcast(BROADCAST, lane.event, body))
                    return
                if body.isascii() or is_utf8(body):
                    try:
                        payload = Broadcast(BROADCAST, lane.event, undecoded(body))
                    except UNREADABLE:
                        pass
                    else:
                        self._tell(lane.listener, payload)
                        return
        self._take_long_way(self._decode_binary, data)

    def _add_header(self, header: bytes) -> Lane | None:
        """The lane of a broadcast without metadata; all other frames go the long way."""
        if header[0] != KIND_4 or header[3] or len(header) < 5 + header[1] + header[2]:
            return None
        topic_end = 5 + header[1]
        try:
            topic, event = header[5:topic_end].decode(), header[topic_end:].decode()
        except UnicodeDecodeError:
            return None
        route = self._routes.get(topic)
        if route is None:
            return None
        lane = route.broadcasts.get(event) or self._add_broadcast(route, event)
        if lane is not None:
            if len(self._headers) >= HEADERS_KEPT:
                self._headers.clear()
            self._headers[header] = lane
        return lane

    # -- both ----------------------------------------------------------------------------

    def _tell(self, listener: _Listener, payload: Any) -> None:
        # What the handler calls comes back into flush, as it does in the long way.
        shell = self._shell
        shell.is_telling = True
        try:
            listener.deliver(payload)
        finally:
            shell.is_telling = False
        stopwatch = self._stopwatch
        ended = perf_counter()
        if ended - stopwatch.since > BLOCKING_AFTER:
            listener.blocked(ended - stopwatch.since)
        stopwatch.since = ended
        if shell.is_dirty:
            shell.is_dirty = False
            shell.flush()

    def _take_long_way(self, decode: Callable[[bytes], Message], data: bytes) -> None:
        shell = self._shell
        try:
            delivery = self._receive(decode(data), self._loop.time())
        except DecodeError as exc:
            self._undecodable(exc, len(data))
            delivery = None
        if delivery is None:
            shell.flush()
        else:
            shell.is_telling = True
            try:
                self._listeners.deliver(delivery)
            finally:
                shell.is_telling = False
            if shell.is_dirty:
                shell.is_dirty = False
                shell.flush()
        # The callbacks that ran meanwhile are not the next handler's time.
        self._stopwatch.start()

    def _undecodable(self, error: DecodeError, size: int) -> None:
        shell = self._shell
        shell.session.unreadable(error, self._loop.time())
        log.warning("skipped a frame of %d bytes: %s", size, error, extra=facts(error, size=size))
        shell.report(error)
