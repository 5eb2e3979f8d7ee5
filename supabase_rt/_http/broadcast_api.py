"""Broadcasts over HTTP (docs/protocol.md#broadcasts-by-http-in-batches, #one-broadcast-by-http).

``send`` uses ``post_batch`` while the channel is not joined. ``http_send`` uses ``post_event``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import msgspec

from .._printable import get_logger
from .._runtime.log_fields import facts
from .._wire.envelope import TOPIC_PREFIX
from .._wire.json_codec import UNREADABLE, dumps, loads
from .._wire.serializer import is_binary
from ..errors import SendError, TimedOut
from .http_client import JSON_TYPE, HttpClient, reason_in

__all__ = ["BroadcastApi", "holds_flags"]

log: Final = get_logger("supabase_rt.rest")

BYTES_TYPE: Final = "application/octet-stream"

HINTS: Final = {
    401: "the token or the key was not accepted: is it expired, or of another project?",
    403: "the policies on realtime.messages do not let this token write to the topic",
    404: "self-hosted servers need Realtime 2.97.0 or newer for this; or use send()",
    413: "the payload is larger than the server allows",
    422: "the server found the message wrong; its text says where",
    429: "too many messages for the project's limit: send fewer, or later",
}


@dataclass(slots=True, repr=False)
class BroadcastApi:
    """Posts broadcasts. ``params`` and ``vsn`` are those of the socket URL."""

    client: HttpClient
    params: dict[str, Any]
    vsn: str

    async def post_batch(
        self, sub_topic: str, message: dict[str, Any], private: bool, timeout: float
    ) -> str:
        """Post one message to the batch endpoint: ``ok``, ``error`` or ``timed out``.

        It never raises, as in supabase-js.
        """
        # A message without a payload is sent without one: null would be another message.
        content = {key: message[key] for key in ("event", "payload") if key in message}
        known = {"topic": TOPIC_PREFIX + sub_topic, "event": message.get("event")}
        body = dumps({"messages": [{"topic": sub_topic, **content, "private": private}]})
        request = self.client.request
        try:
            status, _, text = await request(
                "POST", self._batch_url(), JSON_TYPE, timeout, body=body
            )
        except TimeoutError:
            return "timed out"
        except SendError as exc:
            log.warning("broadcast over HTTP failed: %s", exc, extra=facts(exc, **known))
            return "error"
        except (aiohttp.ClientError, OSError) as exc:
            words = "broadcast over HTTP failed: %s"
            log.warning(words, type(exc).__name__, extra=facts(exc, **known))
            return "error"
        if 200 <= status < 300:
            return "ok"
        words = "broadcast over HTTP failed: HTTP %d %s"
        log.warning(words, status, reason_in(text, ""), extra=facts(http_status=status, **known))
        return "error"

    def _batch_url(self) -> str:
        """Returns the batch endpoint with the query of the socket URL, as supabase-js keeps it."""
        endpoint = self.client.endpoint
        query = endpoint.socket_url(self.params, self.vsn).partition("?")[2]
        return f"{endpoint.http_url.partition('?')[0]}?{query}"

    async def post_event(
        self,
        sub_topic: str,
        event: str,
        payload: Any,
        *,
        private: bool,
        persist: Any,
        timeout: float,
    ) -> dict[str, bool]:
        """Post one message to the endpoint of its event; raises ``SendError`` or ``TimedOut``.

        A payload that ``holds_flags`` goes to the batch endpoint, which has fields of its own
        for the flags.
        """
        url = self.client.endpoint.broadcast_url(
            sub_topic, event, private, persist, params={**self.params, "vsn": self.vsn}
        )
        if is_binary(payload):
            kind, body = BYTES_TYPE, bytes(payload)
        else:
            kind, body = JSON_TYPE, dumps(payload)
            if holds_flags(body):
                url = self._batch_url()
                message = {"topic": sub_topic, "event": event, "payload": msgspec.Raw(body)}
                body = dumps({"messages": [{**message, "private": private}]})
        try:
            status, reason, text = await self.client.request("POST", url, kind, timeout, body=body)
        except TimeoutError:
            error: SendError | TimedOut = TimedOut(f"no answer within {timeout:g} s")
        except (aiohttp.ClientError, OSError) as exc:
            error = _unreachable(exc)
        else:
            if status == 202:
                return {"success": True}
            error = _refusal(status, reason, text)
        # Raised outside the except blocks: aiohttp's exceptions quote the URL with the key, and
        # would become the context of this one.
        raise error


class _Flags(msgspec.Struct):
    """The keys that the endpoint of an event reads from the body as well as from the query."""

    private: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    persist: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_flags = msgspec.json.Decoder(_Flags)


def holds_flags(body: bytes) -> bool:
    """Returns True if a JSON payload has a top-level key that the server takes for a flag.

    For the server the body wins over the query. So ``private`` in a payload would decide who
    reads the message (docs/protocol.md#one-broadcast-by-http).
    """
    try:
        found = _flags.decode(body)
    except UNREADABLE:
        other = loads(body)
        return isinstance(other, dict) and not other.keys().isdisjoint(_Flags.__struct_fields__)
    return found.private is not msgspec.UNSET or found.persist is not msgspec.UNSET


def _unreachable(exc: Exception) -> SendError:
    text = f"cannot reach the server: {type(exc).__name__}"
    if isinstance(exc, aiohttp.ClientConnectorCertificateError):
        hint = "pass ssl=, an ssl.SSLContext that knows the issuer of the certificate"
        return SendError(text, code="CertificateError", retryable=False, hint=hint)
    return SendError(text, retryable=True, hint="check the URL and the network")


def _refusal(status: int, reason: str, text: bytes) -> SendError:
    found = reason_in(text, reason or f"HTTP {status}")
    if status == 404:
        found = (
            "httpSend() requires Realtime server v2.97.0 or newer; the endpoint returned 404. "
            f"({found})"
        )
    return SendError(
        found,
        status=status,
        code=f"HTTP{status}",
        retryable=status in (408, 425, 429) or status >= 500,
        hint=HINTS.get(status, "the server could not take the message"),
    )
