"""The messages of one channel to the server: over the socket, or over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any, Final

import msgspec

from .._http.broadcast_api import holds_flags
from .._printable import get_logger
from .._protocol.channel.channel_machine import ChannelMachine
from .._protocol.channel_options import send_options
from .._protocol.requests import Request, RequestKind
from .._runtime.log_fields import facts
from .._runtime.outcome import Outcome, Reply
from .._wire.envelope import Message
from .._wire.json_codec import dumps, loads
from .._wire.serializer import MAX_FRAME, encode_client, is_binary, is_too_large
from ..errors import SendError, TimedOut
from ..types import PersistOptions, SendOptions
from .parts import ClientParts
from .send_limit import QueuedSend, SendLimiter

__all__ = ["ChannelSender"]

log: Final = get_logger("supabase_rt.channel")

REST_WARNING = (
    "Realtime send() is automatically falling back to REST API. This behavior will be deprecated "
    "in the future. Please use httpSend() explicitly for REST delivery."
)
SURELY_SHORT = 63
"""Characters: a name of this length has at most 255 bytes, the server's limit, in UTF-8."""
SURELY_FITS = MAX_FRAME - 2000
"""Bytes: a payload of this size fits into a frame with the longest names around it."""
LONG_REF = "9999999999"
"""A ref at least as long as any that is sent."""
SENDABLE = ("broadcast", "presence", "postgres_changes")


class ChannelSender:
    """The sends of one channel."""

    __slots__ = ("_machine", "_parts")

    def __init__(self, parts: ClientParts, machine: ChannelMachine) -> None:
        self._parts = parts
        self._machine = machine

    def send_fast(self, args: Any) -> Outcome[str] | None:
        """The fast path of ``send``; returns None if one of its preconditions fails.

        It takes a plain dict with an event and a JSON payload. The channel is joined,
        ``fast_path_allowed`` is True for the client, and no frame waits to be written. The
        message is checked and encoded by the same modules as on the general path.
        """
        parts, machine = self._parts, self._machine
        connection = parts.connection
        connection.enter_loop(required="send")
        link = connection.idle_link()
        if link is None or not parts.fast_path_allowed or not machine.can_push:
            return None
        if type(args) is not dict or len(args) != 3 or args.get("type") != "broadcast":
            return None
        event, payload = args.get("event"), args.get("payload", b"")
        if type(event) is not str or len(event) > SURELY_SHORT or is_binary(payload):
            return None
        body = dumps(payload)
        if len(body) > SURELY_FITS:
            return None
        if not machine.config.ack:
            return link.cast(parts.client_machine.cast_now(machine, event, body))
        reply = Reply()
        push = Request(machine, RequestKind.PUSH, "broadcast", None, parts.timeout, reply)
        link.put(parts.client_machine.push_now(push, event, body, connection.now()), None)
        connection.arm_timer()
        return reply

    def send(
        self,
        args: Any,
        opts: SendOptions | None,
        timeout: float | None,
        persist: bool | PersistOptions | None,
    ) -> Outcome[str]:
        """The general path of ``send``, for every message."""
        seconds, keep = send_options(opts, timeout, persist)
        self._parts.connection.enter_loop(required="send")
        message = self._checked_message(args)
        if keep is None:
            keep = message.pop("persist", None)
        if keep is not None and message["type"] == "broadcast":
            message["persist"] = keep
        seconds = seconds or self._parts.timeout
        if message["type"] != "broadcast":
            return self._request(message, seconds)
        return self._broadcast(message, seconds, bool(keep))

    def _checked_message(self, args: Any) -> dict[str, Any]:
        """Returns a checked copy of the message, which the caller cannot change any more."""
        if not isinstance(args, Mapping):
            raise TypeError(f"send() takes a dict, not {type(args).__name__}")
        message = dict(args)
        kind = message.get("type")
        if kind not in SENDABLE:
            known = ", ".join(repr(name) for name in SENDABLE)
            raise ValueError(f"'type' is one of {known}, not {kind!r}")
        message["type"] = str(kind)
        if kind == "broadcast" and not isinstance(message.get("event"), str):
            raise ValueError("a broadcast needs an 'event', as in {'type': 'broadcast', ...}")
        event = message.get("event")
        if isinstance(event, str) and len(event.encode()) > 255:
            raise ValueError(f"'event' is at most 255 bytes, not {len(event.encode())}")
        payload: Any = message.get("payload")
        if is_binary(payload):
            self._check_binary(kind)
            message["payload"] = bytes(payload)
        else:
            if "payload" in message:
                message["payload"] = self._snapshot(payload)
            if len(message) > 3:
                dumps(message)
        self._check_size(message)
        return message

    def _check_size(self, message: dict[str, Any]) -> None:
        """Raises ``ValueError`` for a message that would make the server close the socket."""
        payload = message.get("payload", b"")
        known = isinstance(payload, bytes | msgspec.Raw) and isinstance(message.get("event"), str)
        if known and len(message) <= 3 and len(memoryview(payload)) <= SURELY_FITS:
            return
        if not self._parts.snapshots:
            # The size is known only once the user's ``encode`` has made the frame.
            return
        machine = self._machine
        join_ref = machine.join_ref or LONG_REF
        frame = encode_client(
            self._parts.vsn, Message(join_ref, LONG_REF, machine.topic, message["type"], message)
        )
        if is_too_large(frame):
            raise ValueError(
                f"a message is at most {MAX_FRAME:,} bytes with its names: at more the server "
                "closes the socket, and every channel with it"
            )

    def _check_binary(self, kind: Any) -> None:
        if kind != "broadcast":
            raise TypeError("bytes can be sent in a broadcast only")
        if self._parts.vsn == "1.0.0":
            raise ValueError("protocol 1.0.0 cannot carry a binary payload; use vsn='2.0.0'")

    def _snapshot(self, payload: Any) -> Any:
        encoded = dumps(payload)
        return msgspec.Raw(encoded) if self._parts.snapshots else loads(encoded)

    def _broadcast(self, message: dict[str, Any], timeout: float, persist: bool) -> Outcome[str]:
        if persist and not self._can_persist():
            return Outcome.of("error")
        if self._parts.send_limiter is not None and self._machine.can_push:
            return self._broadcast_limited(self._parts.send_limiter, message, timeout, persist)
        return self._broadcast_or_post(message, timeout, persist)

    def _broadcast_limited(
        self, limiter: SendLimiter, message: dict[str, Any], timeout: float, persist: bool
    ) -> Outcome[str]:
        now = self._parts.connection.now()
        if limiter.refuses(now):
            self._parts.connection.traffic.frames_refused += 1
            return Outcome.of("error")
        delay = limiter.reserve(now)
        if not delay:
            limiter.start_up_to()
            return self._broadcast_now(message, timeout, persist)
        queued = limiter.enqueue(lambda: self._broadcast_or_post(message, timeout, persist))
        work = self._broadcast_later(delay, limiter, queued)
        queued.result = self._begin(work, "paced send", otherwise="error")
        return queued.result

    async def _broadcast_later(self, delay: float, limiter: SendLimiter, queued: QueuedSend) -> str:
        await asyncio.sleep(delay)
        limiter.start_up_to(queued)
        return "error" if queued.sent is None else await queued.sent

    def _broadcast_or_post(
        self, message: dict[str, Any], timeout: float, persist: bool
    ) -> Outcome[str]:
        if not self._machine.can_push:
            return self._post_batch(message, timeout, persist)
        return self._broadcast_now(message, timeout, persist)

    def _broadcast_now(
        self, message: dict[str, Any], timeout: float, persist: bool
    ) -> Outcome[str]:
        if self._parts.connection.refuses():
            return Outcome.of("error")
        if self._machine.config.ack:
            return self._request(message, timeout, persist)
        outcome: Outcome[str] = Outcome()
        self._machine.cast("broadcast", message, outcome)
        self._parts.connection.flush()
        return outcome

    def _can_persist(self) -> bool:
        if not self._machine.config.private:
            problem = "Realtime send() cannot store a message on a public channel."
        elif self._parts.vsn == "1.0.0":
            problem = (
                "Realtime send() cannot store a message with protocol 1.0.0. Use httpSend() or "
                "connect with vsn 2.0.0."
            )
        else:
            return True
        log.error("%s", problem, extra=facts(topic=self._machine.topic))
        self._parts.log("channel", problem)
        return False

    def _post_batch(self, message: dict[str, Any], timeout: float, persist: bool) -> Outcome[str]:
        known = facts(topic=self._machine.topic, event=message.get("event"))
        if persist:
            problem = "the batch endpoint cannot store a message; join first or use http_send()"
            log.error("%s", problem, extra=known)
            self._parts.log("channel", problem)
            return Outcome.of("error")
        log.warning("%s (in Python: http_send())", REST_WARNING, extra=known)
        self._parts.log("channel", REST_WARNING)
        machine, broadcast_api = self._machine, self._parts.broadcast_api
        payload, private = message.get("payload"), machine.config.private
        if isinstance(payload, bytes):
            work = self._post_bytes(message["event"], payload, timeout)
        else:
            work = broadcast_api.post_batch(machine.sub_topic, message, private, timeout)
        return self._begin(work, "send")

    async def _post_bytes(self, event: str, payload: bytes, timeout: float) -> str:
        """Posts bytes to the endpoint of the event, as the batch endpoint takes JSON only."""
        machine = self._machine
        try:
            await self._parts.broadcast_api.post_event(
                machine.sub_topic,
                event,
                payload,
                private=machine.config.private,
                persist=None,
                timeout=timeout,
            )
        except TimedOut:
            return "timed out"
        except SendError as exc:
            known = facts(exc, topic=machine.topic, event=event)
            log.warning("broadcast over HTTP failed: %s", exc, extra=known)
            return "error"
        return "ok"

    def _request(
        self, message: dict[str, Any], timeout: float, persist: bool = False
    ) -> Outcome[str]:
        """Sends a message that the server answers."""
        if self._parts.connection.refuses():
            return Outcome.of("error")
        outcome = Reply(persist)
        event = message["type"]
        tracking = event == "presence" and message.get("event") in ("track", "untrack")
        push = Request(
            self._machine,
            RequestKind.PRESENCE if tracking else RequestKind.PUSH,
            event,
            message,
            timeout,
            outcome,
        )
        connection = self._parts.connection
        dropped = self._parts.client_machine.push(push, connection.now())
        if dropped is not None:
            problem = f"discarded push due to buffer overflow: {dropped.event}"
            known = facts(topic=self._machine.topic, event=dropped.event)
            log.warning("%s (%s)", problem, self._machine.topic, extra=known)
            self._parts.log("channel", problem)
        connection.flush()
        return outcome

    def _begin(
        self, work: Coroutine[Any, Any, Any], name: str, otherwise: str | None = None
    ) -> Outcome[Any]:
        """Starts ``work`` now; its result or failure settles the outcome.

        With ``otherwise`` the client does not wait for the work when it closes. The outcome is
        then settled with ``otherwise``.
        """
        outcome: Outcome[Any] = Outcome(self._parts.dispatcher.on_unawaited_failure)

        async def run() -> None:
            try:
                outcome.succeed(await work)
            except Exception as exc:
                outcome.fail(exc)

        def ended(_: object) -> None:
            # A task cancelled before its first step has never awaited the work.
            work.close()
            if otherwise is not None:
                outcome.succeed(otherwise)
            outcome.fail(SendError("the client was closed before the message was sent"))

        task = self._parts.connection.background.start(run(), name, patient=otherwise is None)
        task.add_done_callback(ended)
        return outcome

    def http_send(
        self,
        event: str,
        payload: Any,
        opts: SendOptions | None,
        timeout: float | None,
        persist: bool | PersistOptions | None,
    ) -> Outcome[dict[str, bool]]:
        """Starts to post one event."""
        seconds, keep = send_options(opts, timeout, persist)
        if not isinstance(event, str) or not event:
            raise ValueError(f"event is a name, not {event!r}")
        if payload is None:
            raise ValueError("Payload is required for httpSend()")
        if keep and not self._machine.config.private:
            raise ValueError("Realtime httpSend() cannot store a message on a public channel.")
        body: Any
        if is_binary(payload):
            body = bytes(payload)
        else:
            body = msgspec.Raw(dumps(payload))
            if keep and holds_flags(bytes(body)):
                raise ValueError(
                    "a payload with a top-level key 'private' or 'persist' cannot be stored over "
                    "HTTP, where the server takes them for its own: use send() on a joined channel"
                )
        self._parts.connection.enter_loop(required="http_send")
        machine = self._machine
        work = self._parts.broadcast_api.post_event(
            machine.sub_topic,
            event,
            body,
            private=machine.config.private,
            persist=keep,
            timeout=seconds or self._parts.timeout,
        )
        return self._begin(work, "http_send")

    def track(self, payload: Any, opts: SendOptions | None, timeout: float | None) -> Outcome[str]:
        """Sends the presence of this client."""
        if not isinstance(payload, Mapping):
            raise TypeError(f"the payload of track() is a dict, not {type(payload).__name__}")
        self._parts.connection.enter_loop(required="track")
        message = {"type": "presence", "event": "track", "payload": dict(payload)}
        return self.send(message, opts, timeout, None)

    def untrack(self, opts: SendOptions | None, timeout: float | None) -> Outcome[str]:
        """Takes the presence of this client back."""
        self._parts.connection.enter_loop(required="untrack")
        return self.send({"type": "presence", "event": "untrack"}, opts, timeout, None)
