"""The sending half of a channel: ``send``, ``http_send``, ``track``, ``untrack``."""

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
from ..types import BroadcastMessage, PersistOptions, SendOptions
from .parts import Core
from .send_limit import Pacer, Turn

__all__ = ["Sending"]

log: Final = get_logger("supabase_rt.channel")

REST_WARNING = (
    "Realtime send() is automatically falling back to REST API. This behavior will be deprecated "
    "in the future. Please use httpSend() explicitly for REST delivery."
)
SURELY_SHORT = 63
"""Characters that no encoding makes more than the 255 bytes an event's name may have."""
SURELY_FITS = MAX_FRAME - 2000
"""Bytes of a payload that fit into a frame whatever the names around it."""
LONG_REF = "9999999999"
"""As long as any ref will be."""
SENDABLE = ("broadcast", "presence", "postgres_changes")


class Sending:
    """Messages of one channel to the server."""

    _core: Core
    _machine: ChannelMachine

    def send(
        self,
        args: BroadcastMessage | Mapping[str, Any],
        opts: SendOptions | None = None,
        *,
        timeout: float | None = None,
        persist: bool | PersistOptions | None = None,
    ) -> Outcome[str]:
        """Send ``{"type": "broadcast", "event": ..., "payload": ...}``; starts at the call.

        The result is ``"ok"``, ``"error"`` or ``"timed out"``. Without ``broadcast.ack`` it is
        ``"ok"`` when the frame is written; awaiting it keeps the sender at the server's pace.
        While the channel is not joined a broadcast goes over HTTP, with a warning in the log.

        Args:
            args: the message; ``payload`` is any JSON value, or ``bytes`` (vsn 2.0.0).
            opts: ``{"timeout": seconds, "persist": True or {"ttl": seconds}}``, each also a
                keyword.

        Raises:
            ValueError, TypeError: the message cannot be sent, or an option is unknown.
            InvalidState: a presence message before ``subscribe``.
            RuntimeError: no event loop is running.

        Protocol reference, section 7.
        """
        if opts is None and timeout is None and persist is None:
            outcome = self._by_the_short_way(args)
            if outcome is not None:
                return outcome
        seconds, keep = send_options(opts, timeout, persist)
        self._core.connection.enter_loop(required="send")
        message = self._checked_message(args)
        if keep is None:
            keep = message.pop("persist", None)
        if keep is not None and message["type"] == "broadcast":
            message["persist"] = keep
        seconds = seconds or self._core.timeout
        if message["type"] != "broadcast":
            return self._push(message, seconds)
        return self._broadcast(message, seconds, bool(keep))

    def _by_the_short_way(self, args: Any) -> Outcome[str] | None:
        """The short way of most broadcasts; None where anything is not as it is for most.

        A plain dict with an event and a JSON payload, on a joined channel of a client that
        ``is_plain``, while nothing waits to be written: it is checked, encoded and written here,
        by the same rooms that the long way leads through.
        """
        core, machine = self._core, self._machine
        connection = core.connection
        connection.enter_loop(required="send")
        link = connection.idle_link()
        if link is None or not core.is_plain or not machine.can_push:
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
            return link.cast(core.session.cast_now(machine, event, body))
        reply = Reply()
        push = Request(machine, RequestKind.PUSH, "broadcast", None, core.timeout, reply)
        link.put(core.session.push_now(push, event, body, connection.now()), None)
        connection.arm_timer()
        return reply

    def _checked_message(self, args: Any) -> dict[str, Any]:
        """A copy that nobody else can change any more, tried for what JSON cannot carry."""
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
        """Raise ``ValueError`` for a message that would cost every channel its connection."""
        payload = message.get("payload", b"")
        known = isinstance(payload, bytes | msgspec.Raw) and isinstance(message.get("event"), str)
        if known and len(message) <= 3 and len(memoryview(payload)) <= SURELY_FITS:
            return
        if not self._core.snapshots:
            # The user's ``encode`` says how large it is, when the frame is made.
            return
        machine = self._machine
        join_ref = machine.join_ref or LONG_REF
        frame = encode_client(
            self._core.vsn, Message(join_ref, LONG_REF, machine.topic, message["type"], message)
        )
        if is_too_large(frame):
            raise ValueError(
                f"a message is at most {MAX_FRAME:,} bytes with its names: at more the server "
                "closes the socket, and every channel with it"
            )

    def _check_binary(self, kind: Any) -> None:
        if kind != "broadcast":
            raise TypeError("bytes can be sent in a broadcast only")
        if self._core.vsn == "1.0.0":
            raise ValueError("protocol 1.0.0 cannot carry a binary payload; use vsn='2.0.0'")

    def _snapshot(self, payload: Any) -> Any:
        encoded = dumps(payload)
        return msgspec.Raw(encoded) if self._core.snapshots else loads(encoded)

    def _broadcast(self, message: dict[str, Any], timeout: float, persist: bool) -> Outcome[str]:
        if persist and not self._can_persist():
            return Outcome.of("error")
        if self._core.pacer is not None and self._machine.can_push:
            return self._broadcast_in_turn(self._core.pacer, message, timeout, persist)
        return self._broadcast_as_may_be(message, timeout, persist)

    def _broadcast_in_turn(
        self, pacer: Pacer, message: dict[str, Any], timeout: float, persist: bool
    ) -> Outcome[str]:
        now = self._core.connection.now()
        if pacer.refuses(now):
            self._core.connection.traffic.frames_refused += 1
            return Outcome.of("error")
        delay = pacer.reserve(now)
        if not delay:
            pacer.serve()
            return self._broadcast_now(message, timeout, persist)
        turn = pacer.line_up(lambda: self._broadcast_as_may_be(message, timeout, persist))
        work = self._broadcast_later(delay, pacer, turn)
        turn.result = self._begin(work, "paced send", otherwise="error")
        return turn.result

    async def _broadcast_later(self, delay: float, pacer: Pacer, turn: Turn) -> str:
        await asyncio.sleep(delay)
        pacer.serve(turn)
        return "error" if turn.sent is None else await turn.sent

    def _broadcast_as_may_be(
        self, message: dict[str, Any], timeout: float, persist: bool
    ) -> Outcome[str]:
        if not self._machine.can_push:
            return self._over_rest(message, timeout, persist)
        return self._broadcast_now(message, timeout, persist)

    def _broadcast_now(
        self, message: dict[str, Any], timeout: float, persist: bool
    ) -> Outcome[str]:
        if self._core.connection.refuses():
            return Outcome.of("error")
        if self._machine.config.ack:
            return self._push(message, timeout, persist)
        outcome: Outcome[str] = Outcome()
        self._machine.cast("broadcast", message, outcome)
        self._core.connection.flush()
        return outcome

    def _can_persist(self) -> bool:
        if not self._machine.config.private:
            problem = "Realtime send() cannot store a message on a public channel."
        elif self._core.vsn == "1.0.0":
            problem = (
                "Realtime send() cannot store a message with protocol 1.0.0. Use httpSend() or "
                "connect with vsn 2.0.0."
            )
        else:
            return True
        log.error("%s", problem, extra=facts(topic=self._machine.topic))
        self._core.log("channel", problem)
        return False

    def _over_rest(self, message: dict[str, Any], timeout: float, persist: bool) -> Outcome[str]:
        known = facts(topic=self._machine.topic, event=message.get("event"))
        if persist:
            problem = "the batch endpoint cannot store a message; join first or use http_send()"
            log.error("%s", problem, extra=known)
            self._core.log("channel", problem)
            return Outcome.of("error")
        log.warning("%s (in Python: http_send())", REST_WARNING, extra=known)
        self._core.log("channel", REST_WARNING)
        machine, broadcast_api = self._machine, self._core.broadcast_api
        payload, private = message.get("payload"), machine.config.private
        if isinstance(payload, bytes):
            work = self._bytes_over_rest(message["event"], payload, timeout)
        else:
            work = broadcast_api.post_batch(machine.sub_topic, message, private, timeout)
        return self._begin(work, "send")

    async def _bytes_over_rest(self, event: str, payload: bytes, timeout: float) -> str:
        """The batch endpoint carries JSON only; the endpoint of the event takes bytes."""
        machine = self._machine
        try:
            await self._core.broadcast_api.post_event(
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

    def _push(self, message: dict[str, Any], timeout: float, persist: bool = False) -> Outcome[str]:
        """Send what the server answers."""
        if self._core.connection.refuses():
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
        connection = self._core.connection
        dropped = self._core.session.push(push, connection.now())
        if dropped is not None:
            problem = f"discarded push due to buffer overflow: {dropped.event}"
            known = facts(topic=self._machine.topic, event=dropped.event)
            log.warning("%s (%s)", problem, self._machine.topic, extra=known)
            self._core.log("channel", problem)
        connection.flush()
        return outcome

    def _begin(
        self, work: Coroutine[Any, Any, Any], name: str, otherwise: str | None = None
    ) -> Outcome[Any]:
        """Start ``work`` now; its result or failure settles the outcome.

        With ``otherwise`` it is not waited for when the client closes, and that is the result.
        """
        outcome: Outcome[Any] = Outcome(self._core.dispatch.on_unawaited_failure)

        async def run() -> None:
            try:
                outcome.succeed(await work)
            except Exception as exc:
                outcome.fail(exc)

        def ended(_: object) -> None:
            # Cancelled, perhaps before its first step: then nobody has awaited the work.
            work.close()
            if otherwise is not None:
                outcome.succeed(otherwise)
            outcome.fail(SendError("the client was closed before the message was sent"))

        task = self._core.connection.background.start(run(), name, patient=otherwise is None)
        task.add_done_callback(ended)
        return outcome

    def http_send(
        self,
        event: str,
        payload: Any,
        opts: SendOptions | None = None,
        *,
        timeout: float | None = None,
        persist: bool | PersistOptions | None = None,
    ) -> Outcome[dict[str, bool]]:
        """Broadcast over HTTP, whether the channel is joined or not; starts at the call.

        ``payload`` is any JSON value but None, or ``bytes``. The result is
        ``{"success": True}``; awaiting raises ``SendError`` (with the HTTP ``status`` and the
        server's words) or ``TimedOut``. Bad arguments raise ``ValueError`` or ``TypeError`` at
        the call.

        A payload with a top-level key ``private`` or ``persist`` goes to the batch endpoint: that
        of the event would take them for its own flags. There the server passes a private message
        by in silence where the token may not write. Protocol reference, sections 7.6 and 7.7.
        """
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
        self._core.connection.enter_loop(required="http_send")
        machine = self._machine
        work = self._core.broadcast_api.post_event(
            machine.sub_topic,
            event,
            body,
            private=machine.config.private,
            persist=keep,
            timeout=seconds or self._core.timeout,
        )
        return self._begin(work, "http_send")

    def track(
        self,
        payload: Mapping[str, Any],
        opts: SendOptions | None = None,
        *,
        timeout: float | None = None,
    ) -> Outcome[str]:
        """Show ``payload`` as this client's presence; starts at the call, result as ``send``.

        It is tracked again after every rejoin until ``untrack``. Calls beyond the client's
        ``presence_limit`` wait, and the latest wins. Raises ``InvalidState`` before
        ``subscribe``, ``TypeError`` for a payload that is no dict. Protocol reference,
        section 8.2.
        """
        if not isinstance(payload, Mapping):
            raise TypeError(f"the payload of track() is a dict, not {type(payload).__name__}")
        self._core.connection.enter_loop(required="track")
        message = {"type": "presence", "event": "track", "payload": dict(payload)}
        return self.send(message, opts, timeout=timeout)

    def untrack(
        self, opts: SendOptions | None = None, *, timeout: float | None = None
    ) -> Outcome[str]:
        """Take this client's presence back; starts at the call, result as ``send``."""
        self._core.connection.enter_loop(required="untrack")
        return self.send({"type": "presence", "event": "untrack"}, opts, timeout=timeout)
