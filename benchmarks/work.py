"""The work of the clients, and the frames of each work."""

from __future__ import annotations

import dataclasses
import json
import struct
from collections.abc import Iterator
from typing import Any, Literal

__all__ = [
    "CHANNELS_FLAT",
    "HANDLERS_FLAT",
    "RECEIVING",
    "SYNC_TWIN",
    "Work",
    "frames",
    "presence_state",
    "text_message",
    "topic",
]

TEXT, BINARY = 0x81, 0x82
"""Returns the header of an unfragmented WebSocket frame."""

VARIANTS = 100
"""Number of different frames for one channel before they repeat."""
PRESENT = 200
"""Number of members that are present at any moment of the presence work."""


@dataclasses.dataclass(frozen=True)
class Work:
    """One row of the table: the messages, and the work of the handler."""

    name: str
    title: str
    event: Literal["broadcast", "postgres_changes", "presence"] = "broadcast"
    read: str = "nothing"
    binary: bool = False
    channels: int = 1
    handlers: int = 1
    asynchronous: bool = False
    ack: bool = False
    count: int = 15_000

    def spec(self) -> dict[str, Any]:
        """Returns the work as JSON for clients and the server."""
        return dataclasses.asdict(self)

    @property
    def cycle(self) -> int:
        """Length of a cycle of frames; all counts are multiples of it."""
        return 2 * PRESENT if self.event == "presence" else max(VARIANTS, self.channels)

    def messages(self, share: float = 1.0) -> int:
        """Returns the number of messages in a round of a client that gets only a share."""
        return max(1, round(self.count * share / self.cycle)) * self.cycle


RECEIVING = (
    Work("binary", "broadcast, binary, unread", binary=True),
    Work("binary-read", "broadcast, binary, read", read="x", binary=True),
    Work("text", "broadcast, text, unread"),
    Work("text-read", "broadcast, text, read", read="x"),
    Work("postgres", "postgres_changes, unread", "postgres_changes", count=6_000),
    Work("postgres-read", "postgres_changes, `new` read", "postgres_changes", "new", count=6_000),
    Work(
        "postgres-type",
        "postgres_changes, `event_type` read",
        "postgres_changes",
        "event_type",
        count=6_000,
    ),
    Work("channels", "500 channels, unread", channels=500),
    Work("channels-read", "500 channels, read", read="x", channels=500),
    Work("presence", "presence diffs, 200 present", "presence", count=4_000),
    Work("async", "broadcast, text, async handler", read="x", asynchronous=True),
)

SYNC_TWIN = Work("async", "the same, plain handler", read="x")
"""The work that the row of the async handler is compared with."""

CHANNELS_FLAT = {
    f"{number:,}": Work(f"flat-{number}", "", read="x", channels=number)
    for number in (1, 50, 500, 5_000)
}
HANDLERS_FLAT = {
    f"{number:,}": Work("flat", "", read="x", handlers=number, count=3_000)
    for number in (1, 10, 50)
}


def topic(number: int) -> str:
    """Returns the topic of a channel on the wire."""
    return f"realtime:room{number}"


def text_message(
    vsn: str, join_ref: str | None, ref: str | None, topic: str, event: str, payload: Any
) -> bytes:
    """Returns a message as a text frame."""
    found: Any = [join_ref, ref, topic, event, payload]
    if vsn == "1.0.0":
        found = {"ref": ref, "payload": payload, "event": event, "topic": topic}
    return _frame(TEXT, json.dumps(found, separators=(",", ":")).encode())


def _frame(first: int, data: bytes) -> bytes:
    size = len(data)
    if size < 126:
        return bytes((first, size)) + data
    if size < 65536:
        return bytes((first, 126)) + struct.pack("!H", size) + data
    return bytes((first, 127)) + struct.pack("!Q", size) + data


def frames(work: Work, vsn: str) -> list[bytes]:
    """Returns one cycle of frames, ready for the socket."""
    if work.binary:
        return list(_binary_broadcasts(work))
    payloads = {
        "broadcast": _broadcasts,
        "postgres_changes": _changes,
        "presence": _diffs,
    }[work.event](work)
    event = "presence_diff" if work.event == "presence" else work.event
    return [
        text_message(vsn, None, None, topic(number), event, payload) for number, payload in payloads
    ]


def _content(number: int) -> dict[str, Any]:
    return {"x": number, "y": 34, "user": "anna"}


def _broadcasts(work: Work) -> Iterator[tuple[int, Any]]:
    for number in range(work.cycle):
        content = {"type": "broadcast", "event": "cursor", "payload": _content(number)}
        yield number % work.channels, content


def _binary_broadcasts(work: Work) -> Iterator[bytes]:
    for number in range(work.cycle):
        where, event = topic(number % work.channels).encode(), b"cursor"
        header = bytes((4, len(where), len(event), 0, 1))
        body = json.dumps(_content(number), separators=(",", ":")).encode()
        yield _frame(BINARY, header + where + event + body)


COLUMNS = {
    "id": "int8",
    "title": "text",
    "done": "bool",
    "price": "numeric",
    "score": "float8",
    "owner": "uuid",
    "created_at": "timestamptz",
    "due": "date",
    "tags": "_text",
    "extra": "jsonb",
}


def _changes(work: Work) -> Iterator[tuple[int, Any]]:
    for number in range(work.cycle):
        record = {
            "id": number,
            "title": "buy milk and bread",
            "done": False,
            "price": 12.5,
            "score": 0.75,
            "owner": "11111111-1111-4111-8111-111111111111",
            "created_at": "2026-01-02T01:04:05.678+00:00",
            "due": "2026-01-03",
            "tags": ["home", "shop"],
            "extra": {"color": "red", "size": 3},
        }
        data = {
            "table": "todos",
            "type": "INSERT",
            "record": record,
            "columns": [{"name": name, "type": kind} for name, kind in COLUMNS.items()],
            "errors": None,
            "schema": "public",
            "commit_timestamp": "2026-01-02T01:04:05.700Z",
        }
        yield number % work.channels, {"data": data, "ids": [1]}


def _present(member: int) -> tuple[str, dict[str, Any]]:
    return f"user{member}", {"metas": [{"phx_ref": f"GOq5xYZ{member}", "status": "online"}]}


def presence_state() -> dict[str, Any]:
    """Returns the members that are present before the first diff."""
    return dict(_present(member) for member in range(PRESENT))


def _diffs(work: Work) -> Iterator[tuple[int, Any]]:
    """Returns diffs in which one member joins and one leaves, so that the number stays the same."""
    for number in range(work.cycle):
        came, left = _present((number + PRESENT) % (2 * PRESENT)), _present(number)
        yield 0, {"joins": dict([came]), "leaves": dict([left])}
