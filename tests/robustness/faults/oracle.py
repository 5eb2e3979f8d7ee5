"""Computes which events must arrive from the frames written to the client.

The client must deliver every numbered event that the proxy wrote undamaged after the ``ok`` of a
join and before any frame that ends it. It must deliver it once, in this order, to each binding.
Events may be missing at the end only, and only if the link died: TCP promises only that a prefix
arrives.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from supabase_rt._wire.envelope import Message, UserBroadcast
from supabase_rt._wire.json_codec import loads, plain
from supabase_rt._wire.serializer import decode_client_binary, decode_server_binary, decode_text
from supabase_rt.errors import DecodeError

from .pipe import DOWN, Direction, Fate
from .proxy import ProxyLink
from .wsframes import TEXT, WsFrame

__all__ = ["Join", "WireLog", "accepts", "describe"]


@dataclasses.dataclass
class Join:
    """The events sent during one join: the numbers that may or must arrive, by kind."""

    link: int
    ref: str
    may_be_stale: bool
    """The reply was late, so the client may have given up this join; then it delivers nothing."""
    is_sure: bool = True
    """False after a frame that may have ended the join for the client, but not for the server."""
    numbers: dict[str, list[tuple[int, bool]]] = dataclasses.field(default_factory=dict)
    """The numbers by event, each with True if the client must deliver it."""


class WireLog:
    """Records the frames that a proxy wrote to the client."""

    def __init__(self, vsn: str) -> None:
        self._vsn = vsn
        self._asked: dict[str, tuple[int, str]] = {}
        """The last join of each topic: link and ref."""
        self._answered: set[str] = set()
        """Refs of joins that have an answer; only the first answer counts."""
        self._joined: dict[str, Join] = {}
        self.joins: dict[str, list[Join]] = {}
        """The joins that the server accepted."""

    def ref_of(self, topic: str) -> str | None:
        """The ref of the last join of a topic."""
        return self._asked[topic][1] if topic in self._asked else None

    def watch(self, link: ProxyLink, direction: Direction, frame: WsFrame, fate: Fate) -> None:
        """The proxy's watcher."""
        if not frame.is_data or fate == "spoiled":
            return
        try:
            message = self._decode(direction, frame)
        except DecodeError:
            return
        if direction == DOWN:
            self._came_down(link, message, fate)
        elif message.event == "phx_join" and fate == "whole" and not self._is_past(link, message):
            self._asked[message.topic] = (link.number, str(message.ref))
            self._joined.pop(message.topic, None)

    def _is_past(self, link: ProxyLink, message: Message) -> bool:
        """Returns True if the frame was held back until a later link had requested a join."""
        return message.topic in self._asked and link.number < self._asked[message.topic][0]

    def _decode(self, direction: Direction, frame: WsFrame) -> Message:
        if frame.opcode == TEXT:
            return decode_text(self._vsn, frame.payload)
        decode = decode_server_binary if direction == DOWN else decode_client_binary
        return decode(frame.payload)

    def _came_down(self, link: ProxyLink, message: Message, fate: Fate) -> None:
        join = self._joined.get(message.topic)
        if message.event == "phx_reply":
            self._replied(link, message)
        elif join is None or join.link != link.number:
            return
        elif message.event in ("phx_close", "phx_error"):
            join.is_sure &= str(message.ref) != join.ref
        elif (number := number_of(message)) is not None:
            must = join.is_sure and fate == "whole"
            join.numbers.setdefault(message.event, []).append((number, must))

    def _replied(self, link: ProxyLink, message: Message) -> None:
        payload, topic, ref = plain(message.payload), message.topic, str(message.ref)
        if self._asked.get(topic) != (link.number, ref) or ref in self._answered:
            return
        self._answered.add(ref)
        if isinstance(payload, dict) and payload.get("status") == "ok":
            join = Join(link.number, ref, may_be_stale=link.was_slow)
            self._joined[topic] = join
            self.joins.setdefault(topic, []).append(join)


def number_of(message: Message) -> int | None:
    """Returns the publisher's number in an event, None for any other message."""
    found = message.payload
    if isinstance(found, UserBroadcast):
        found = loads(found.body) if found.is_json else None
    else:
        found = plain(found)
    for key in ("data", "payload", "record"):
        if isinstance(found, dict) and key in found:
            found = found[key]
    number = found.get("n") if isinstance(found, dict) else None
    return number if isinstance(number, int) else None


def accepts(joins: Sequence[Join], event: str, got: Sequence[int], live: set[int]) -> bool:
    """Returns True if a binding that got these numbers got every event that it had to get.

    ``live`` has the links that are still open; on these no event may be missing.
    """
    # The possible places in ``got`` after each join, each with True if its link had died by then.
    places = {(0, False)}
    link = None
    for join in joins:
        if join.link != link:
            link = join.link
            places = {(at, False) for at, _ in places}
        places = _after(join, join.numbers.get(event, []), got, places, link in live)
    return any(at == len(got) for at, _ in places)


def _after(
    join: Join,
    numbers: list[tuple[int, bool]],
    got: Sequence[int],
    places: set[tuple[int, bool]],
    is_live: bool,
) -> set[tuple[int, bool]]:
    ends = {place for place in places if place[1] or join.may_be_stale}
    now = {at for at, is_dead in places if not is_dead}
    for number, must in numbers:
        if not is_live:
            ends |= {(at, True) for at in now}
        taken = {at + 1 for at in now if at < len(got) and got[at] == number}
        now = taken if must else now | taken
    return ends | {(at, False) for at in now}


def describe(joins: Sequence[Join], event: str, got: Sequence[Any], live: set[int]) -> str:
    """Returns the text for a failure."""
    lines = [f"got {list(got)}"]
    for join in joins:
        numbers = [n if must else f"({n})" for n, must in join.numbers.get(event, [])]
        notes = "live" * (join.link in live) + " maybe stale" * join.may_be_stale
        lines.append(f"link {join.link} {notes}: {numbers}")
    return "\n".join(lines)
