"""Decodes each frame that arrives and hands its event to a listener.

Most frames are one event for one joined channel, and change nothing else. They take the fast path:
decoded in one pass and looked up in the routes that the machine keeps. Each goes to the listener
that the sink named before.

All other frames take the general path through ``receive`` of the machine. That happens for another
event, another join, an unknown topic, or JSON that only the standard library reads. It also reads
all frames if the user gave a codec or a logger. The fast path gives up without side effects, so the
general path starts from the beginning.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Callable
from time import perf_counter
from typing import Any, Final, Protocol

from .._payloads.broadcast import Broadcast
from .._payloads.postgres_data import PostgresEnvelope
from .._payloads.presence_events import PresenceSync
from .._printable import get_logger
from .._protocol.client_machine import ClientMachine
from .._protocol.events import EventListener, EventSink
from .._protocol.fast_routes import CachedListener, FastRoute
from .._runtime.log_fields import facts
from .._runtime.slow_handler import BLOCKING_AFTER
from .._wire.envelope import Message
from .._wire.json_codec import UNREADABLE
from ..errors import DecodeError
from .codec import Codec
from .frame_decoders import BROADCAST, CHANGES, DIFF, decoder_for, is_utf8, undecoded
from .traffic import Traffic

__all__ = ["Reader", "Shell"]

log: Final = get_logger("supabase_rt.connection")

FAST_EVENTS: Final = {BROADCAST: BROADCAST, CHANGES: CHANGES, DIFF: DIFF}
USER_BROADCAST: Final = 4
"""The first byte of a binary broadcast (docs/protocol.md#version-2-binary)."""
HEADERS_KEPT: Final = 16_384
"""The number of headers of binary broadcasts that are remembered, for all channels together."""


class Shell(Protocol):
    """The reader's view of the connection."""

    session: ClientMachine
    traffic: Traffic
    in_callback: bool
    flush_requested: bool

    def flush(self) -> None: ...
    def report(self, error: BaseException) -> None: ...


class Reader:
    """Reads the frames of one link. Runs on the transport's stack, once for every frame."""

    def __init__(
        self, shell: Shell, codec: Codec, sink: EventSink, loop: AbstractEventLoop
    ) -> None:
        context = shell.session.context
        self._shell = shell
        self._traffic = shell.traffic
        self._fast_path_allowed = codec.fast_path_allowed
        self._decode_text = codec.decode_text
        self._decode_binary = codec.decode_binary
        self._receive = shell.session.receive
        self._context = context
        self._routes = context.routes
        self._headers: dict[bytes, CachedListener] = {}
        self._sink = sink
        self._stopwatch = sink.stopwatch
        self._loop = loop
        self._in_batch = False
        self._expected = BROADCAST
        self._decode = decoder_for(BROADCAST)

    # -- batches -------------------------------------------------------------------------

    # The frames that aiohttp has buffered are read without a turn of the loop in between. The
    # clock is read once at the start of such a batch and once at its end, in the next turn.

    def _begin_batch(self) -> None:
        self._in_batch = True
        self._context.last_frame_at = self._loop.time()
        self._stopwatch.start()
        self._loop.call_soon(self._end_batch)

    def _end_batch(self) -> None:
        self._in_batch = False
        # Handlers may have been slow, and a deadline of the machine may be due in this turn. The
        # machine must treat the batch as heard now, not at its start.
        self._context.last_frame_at = self._loop.time()

    # -- text ----------------------------------------------------------------------------

    def on_text(self, data: bytes) -> None:
        """Read a text frame."""
        self._traffic.frames_in += 1
        self._stopwatch.size = len(data)
        if not self._in_batch:
            self._begin_batch()
        if self._fast_path_allowed and (data.isascii() or is_utf8(data)):
            try:
                frame = self._decode(data)
                if frame.event != self._expected:
                    frame = self._expect(frame.event)(data)
            except UNREADABLE:
                self._use_general_path(self._decode_text, data)
                return
            route = self._routes.get(frame.topic)
            if route is not None and (frame.join_ref is None or frame.join_ref == route.join_ref):
                payload = frame.payload
                if self._expected is BROADCAST:
                    listener = route.listener
                    if listener is None or payload.event != route.event:
                        listener = self._find_broadcast(route, payload.event)
                    if listener is not None:
                        self._deliver(listener, payload)
                        return
                elif self._expected is CHANGES:
                    listener = self._find_change(route, payload)
                    if listener is not None:
                        self._deliver(listener, payload.data)
                        return
                elif self._expected is DIFF and self._apply_diff(route, payload, len(data)):
                    return
        self._use_general_path(self._decode_text, data)

    def _expect(self, event: str) -> Callable[[bytes], Any]:
        """Returns the decoder for ``event`` and uses it for the next frame, too."""
        # The constant itself, not an equal string: ``on_text`` compares by identity.
        self._expected = FAST_EVENTS.get(event, event)
        self._decode = decoder_for(event)
        return self._decode

    def _find_broadcast(self, route: FastRoute, event: str | None) -> Any:
        cached = route.broadcasts.get(event) or self._add_broadcast(route, event)
        if cached is None:
            return None
        route.event, route.listener = cached.event, cached.listener
        return cached.listener

    def _add_broadcast(self, route: FastRoute, event: str | None) -> CachedListener | None:
        channel = route.channel
        if channel.inbound.replays:
            return None
        ids = channel.bindings.broadcast(event)
        return route.add_broadcast(event, self._sink.listener_for(channel, ids))

    def _find_change(self, route: FastRoute, envelope: PostgresEnvelope) -> Any:
        kind = envelope.data.type
        key = (kind, *envelope.ids)
        found = route.changes.get(key)
        if found is None:
            channel = route.channel
            if channel.inbound.notes_changes:
                return None
            ids = channel.bindings.changed(envelope.ids, kind)
            found = self._sink.listener_for(channel, ids, of_changes=True)
            route.add_change(key, found)
        return found

    def _apply_diff(self, route: FastRoute, diff: Any, size: int) -> bool:
        """Apply a presence diff; returns False if the general path has to do it."""
        inbound = route.channel.inbound
        listener = route.sync
        if listener is None:
            ids = inbound.sync_only()
            if ids is None:
                return False
            listener = route.sync = self._sink.listener_for(route.channel, ids)
        try:
            is_due = inbound.apply_diff(diff, size)
        except DecodeError:
            return False
        if is_due:
            self._deliver(listener, PresenceSync())
        return True

    # -- binary --------------------------------------------------------------------------

    def on_binary(self, data: bytes) -> None:
        """Read a binary frame."""
        self._traffic.frames_in += 1
        self._stopwatch.size = len(data)
        if not self._in_batch:
            self._begin_batch()
        if self._fast_path_allowed and len(data) >= 5:
            # The header with its lengths, topic and event is the key of the cache as it is.
            body_at = 5 + data[1] + data[2]
            header = data[:body_at]
            cached = self._headers.get(header)
            if cached is None or cached.listener is None:
                cached = self._add_header(header)
            if cached is not None:
                body = data[body_at:]
                if not data[4]:
                    self._deliver(cached.listener, Broadcast(BROADCAST, cached.event, body))
                    return
                if body.isascii() or is_utf8(body):
                    try:
                        payload = Broadcast(BROADCAST, cached.event, undecoded(body))
                    except UNREADABLE:
                        pass
                    else:
                        self._deliver(cached.listener, payload)
                        return
        self._use_general_path(self._decode_binary, data)

    def _add_header(self, header: bytes) -> CachedListener | None:
        """Returns the cached listener for a broadcast without metadata, otherwise None."""
        if header[0] != USER_BROADCAST or header[3] or len(header) < 5 + header[1] + header[2]:
            return None
        topic_end = 5 + header[1]
        try:
            topic, event = header[5:topic_end].decode(), header[topic_end:].decode()
        except UnicodeDecodeError:
            return None
        route = self._routes.get(topic)
        if route is None:
            return None
        cached = route.broadcasts.get(event) or self._add_broadcast(route, event)
        if cached is not None:
            if len(self._headers) >= HEADERS_KEPT:
                self._headers.clear()
            self._headers[header] = cached
        return cached

    # -- both ----------------------------------------------------------------------------

    def _deliver(self, listener: EventListener, payload: Any) -> None:
        # A call from the handler comes back into flush(), as on the general path.
        shell = self._shell
        shell.in_callback = True
        try:
            listener.deliver(payload)
        finally:
            shell.in_callback = False
        stopwatch = self._stopwatch
        ended = perf_counter()
        if ended - stopwatch.since > BLOCKING_AFTER:
            listener.blocked(ended - stopwatch.since)
        stopwatch.since = ended
        if shell.flush_requested:
            shell.flush_requested = False
            shell.flush()

    def _use_general_path(self, decode: Callable[[bytes], Message], data: bytes) -> None:
        shell = self._shell
        try:
            delivery = self._receive(decode(data), self._loop.time())
        except DecodeError as exc:
            self._undecodable(exc, len(data))
            delivery = None
        if delivery is None:
            shell.flush()
        else:
            shell.in_callback = True
            try:
                self._sink.deliver(delivery)
            finally:
                shell.in_callback = False
            if shell.flush_requested:
                shell.flush_requested = False
                shell.flush()
        # The time that callbacks took here must not count for the next handler.
        self._stopwatch.start()

    def _undecodable(self, error: DecodeError, size: int) -> None:
        shell = self._shell
        shell.session.unreadable(error, self._loop.time())
        log.warning("skipped a frame of %d bytes: %s", size, error, extra=facts(error, size=size))
        shell.report(error)
