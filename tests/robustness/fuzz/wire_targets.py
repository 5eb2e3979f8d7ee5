"""Contracts of readers of one frame, cell or filter: each raises only documented errors."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import json
import math
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from supabase_rt._backfill import pages
from supabase_rt._connection import frame_decoders
from supabase_rt._payloads import pg_arrays, row_conversion
from supabase_rt._payloads.broadcast import Broadcast, read_broadcast
from supabase_rt._payloads.models import converter_for
from supabase_rt._payloads.postgres_change import PostgresChange
from supabase_rt._payloads.postgres_data import PostgresData, read_postgres_changes
from supabase_rt._payloads.system_message import SystemMessage, read_system
from supabase_rt._protocol import changes_filter
from supabase_rt._wire import jwt_claims, serializer, urls
from supabase_rt._wire.envelope import Message
from supabase_rt._wire.json_codec import UNREADABLE, dumps, plain
from supabase_rt.errors import DecodeError
from supabase_rt.server._http.postgrest.errors import RestProblem
from supabase_rt.server._http.postgrest.query import RestQuery, parse_query
from supabase_rt.server._postgres.replication import pgoutput
from supabase_rt.server._tables import filter_matching as server_filters

from .taking import Taker

__all__ = ["TARGETS"]

TYPES = (
    "bool", "int2", "int4", "int8", "oid", "float4", "float8", "numeric", "timestamp",
    "timestamptz", "date", "time", "timetz", "uuid", "bytea", "json", "jsonb", "text", "box",
)  # fmt: skip
REFS = (str, int, type(None))


STRUCTURED = 128
"""If the first byte is at least this, a frame is built from the input; otherwise the input is the
frame.
"""

BROADCAST = ("type", "event", "payload", "meta")
SYSTEM = ("extension", "status", "message", "channel")
CHANGE = (
    "type", "schema", "table", "commit_timestamp", "columns", "record", "old_record", "errors",
)  # fmt: skip

Errors = type[BaseException] | tuple[type[BaseException], ...]


def _tried(documented: Errors, call: Callable[..., Any], *args: Any) -> Any:
    """Returns the result of the call, or None if it raises a documented error."""
    try:
        return call(*args)
    except documented:
        return None


def _object(taker: Taker, names: Sequence[str]) -> dict[str, Any]:
    """Builds mostly expected data: some keys are missing, values are often text and sometimes
    anything.
    """
    return {
        name: taker.text() if taker.byte() & 1 else taker.value()
        for name in names
        if taker.byte() & 3
    }


def _columns(taker: Taker) -> list[Any]:
    return [{"name": taker.text(), "type": taker.choice(TYPES)} for _ in range(taker.byte() % 4)]


def _content(taker: Taker, kind: str) -> Any:
    """The payload of a broadcast, a system message, a change, or arbitrary data."""
    if kind == "broadcast":
        return _object(taker, BROADCAST)
    if kind == "system":
        return _object(taker, SYSTEM)
    if kind == "postgres_changes":
        data = _object(taker, CHANGE)
        if taker.byte() & 1:
            data["columns"] = _columns(taker)
        return {"ids": [taker.value(0) for _ in range(taker.byte() % 3)], "data": data}
    return taker.value()


def _text(value: Any) -> bytes:
    """Returns JSON; empty if the value cannot be written."""
    found: bytes | None = _tried(ValueError, dumps, value)
    return found or b""


def text(data: bytes) -> None:
    """A text frame of either protocol becomes a message that can be written again."""
    taker = Taker(data)
    vsn, frame = taker.choice(serializer.SUPPORTED_VSNS), taker.rest()
    message = _tried(DecodeError, serializer.decode_text, vsn, frame)
    if vsn == "2.0.0":
        quick = _tried(DecodeError, serializer.decode_array, frame)
        assert _shown(quick) == _shown(message)
    if message is None:
        return
    assert isinstance(message.topic, str) and isinstance(message.event, str)  # noqa: PT018
    assert isinstance(message.join_ref, REFS) and isinstance(message.ref, REFS)  # noqa: PT018
    with contextlib.suppress(DecodeError):
        content = plain(message.payload)
        build: Any = Message
        whole = build(message.join_ref, message.ref, message.topic, message.event, content)
        with contextlib.suppress(ValueError):
            again = serializer.decode_text(vsn, serializer.encode_text(vsn, whole))
            assert dumps(plain(again.payload)) == dumps(content)


def _shown(message: Message | None) -> Any:
    """Comparable, NaN included."""
    if message is None:
        return None
    shown = _tried(DecodeError, plain, message.payload)
    return (message.join_ref, message.ref, message.topic, message.event, repr(shown))


def binary(data: bytes) -> None:
    """A binary frame becomes a message; a broadcast is written again byte for byte."""
    for decode in (serializer.decode_server_binary, serializer.decode_client_binary):
        message = _tried(DecodeError, decode, data)
        if message is not None:
            assert isinstance(message, Message)
            _tried(DecodeError, serializer.payload_object, message)
            if data[0] == 4:
                again = serializer.encode_user_broadcast(message.topic, message.payload)
                assert again == data[:4] + bytes([data[4] != 0]) + data[5:]


def roundtrip(data: bytes) -> None:
    """The server reads everything that a client can write, with the same meaning."""
    taker = Taker(data)
    vsn, topic, name = taker.choice(serializer.SUPPORTED_VSNS), taker.text(), taker.text()
    body: Any = taker.chunk() if taker.byte() & 1 else taker.value()
    payload = {"type": "broadcast", "event": name, "payload": body}
    message = Message("1", "2", topic, taker.choice(("broadcast", "presence", name)), payload)
    frame = _tried((ValueError, TypeError), serializer.encode_client, vsn, message)
    if frame is None:
        return
    if isinstance(frame, str):
        found = serializer.decode_text(vsn, frame)
        assert dumps(plain(found.payload)) == dumps(payload)
    else:
        found = serializer.decode_client_binary(frame)
        content = serializer.payload_object(found)
        wanted = body if isinstance(body, bytes) else {} if body is None else body
        assert content["event"] == name
        assert content["payload"] == wanted or dumps(content["payload"]) == dumps(wanted)
        if not isinstance(body, bytes):
            quick = serializer.BroadcastFrames("1", topic).encode("2", name, dumps(wanted))
            assert quick == frame
    assert (found.join_ref, found.ref, found.topic) == ("1", "2", topic)


def short_way(data: bytes) -> None:
    """A frame gives the same result whether the reader decodes it in one pass or in two."""
    taker = Taker(data)
    first = taker.byte()
    event = (frame_decoders.BROADCAST, frame_decoders.CHANGES, frame_decoders.DIFF)[first % 3]
    frame = taker.rest()
    if first >= STRUCTURED:
        taker = Taker(frame)
        frame = _text([taker.value(0), None, taker.text(), event, _content(taker, event)])
    found = _tried(UNREADABLE, frame_decoders.decoder_for(event), frame)
    if found is None or found.event != event or not frame_decoders.is_utf8(frame):
        return
    message = serializer.decode_text("2.0.0", frame)
    assert (found.join_ref, found.ref, found.topic) == (
        message.join_ref,
        message.ref,
        message.topic,
    )
    if event == frame_decoders.BROADCAST:
        other = read_broadcast(message.payload)
        assert (found.payload.type, found.payload.event) == (other.type, other.event)
        shown = [_tried(DecodeError, _payload_shown, one) for one in (found.payload, other)]
        assert shown[0] == shown[1]
    elif event == frame_decoders.CHANGES:
        envelope = read_postgres_changes(message.payload)
        assert found.payload.ids == envelope.ids
        assert found.payload.data.type == envelope.data.type
    else:
        assert repr(found.payload) == repr(plain(message.payload))


def _payload_shown(one: Any) -> str:
    return repr(one.payload)


def payloads(data: bytes) -> None:
    """Payloads of handlers can be read, shown and converted."""
    taker = Taker(data)
    first, types = taker.byte(), taker.choice(row_conversion.MODES)
    kind = ("broadcast", "system", "postgres_changes")[first % 3]
    part = _text(_content(taker, kind)) if first >= STRUCTURED else taker.rest()
    frame = b'["1",null,"t","e",' + part + b"]"
    message = _tried(DecodeError, serializer.decode_text, "2.0.0", frame)
    if message is None:
        return
    read: dict[str, Callable[[Any], Any]] = {
        "broadcast": read_broadcast,
        "system": read_system,
        "postgres_changes": read_postgres_changes,
    }
    found = _tried(DecodeError, read[kind], message.payload)
    if found is None:
        return
    if kind == "postgres_changes":
        found = PostgresChange(found.data, types)
    assert len(repr(found)) < 1000
    values = _tried(DecodeError, dict, found)
    if values is None:
        return
    assert found.get("nothing") is None
    shown = _tried(DecodeError, found.to_dict)
    if shown is not None:
        _restored(type(found), shown)


def _restored(kind: type[Broadcast | SystemMessage | PostgresChange[Any]], shown: Any) -> None:
    """The same payload is built again from its shown form, or it is refused with an error."""
    again = _tried(ValueError, kind.from_dict, shown)
    if again is not None:
        assert again.to_dict() == shown


def cells(data: bytes) -> None:
    """A cell of any type and any text is converted or left as it came."""
    taker = Taker(data)
    kind = "_" * (taker.byte() % 3) + taker.choice(TYPES)
    value = taker.rest().decode("utf-8", "surrogateescape")
    row_conversion.convert_cell(kind, value)
    listed = msgspec.Raw(dumps([{"name": "x", "type": kind}]))
    row = _tried(ValueError, _raw, {"x": value, "y": 1})
    for mode in row_conversion.MODES if row is not None else ():
        found = row_conversion.convert_row(listed, row, mode)
        assert list(found) == ["x", "y"]
        assert found["y"] == 1


def rows(data: bytes) -> None:
    """Columns and records of any shape: a dict or a ``DecodeError``."""
    taker = Taker(data)
    first, size = taker.byte(), taker.byte()
    mode = row_conversion.MODES[first % 3]
    parts = (_text(_columns(taker)), _text(taker.value()))
    if first < STRUCTURED:
        whole = Taker(data[2:]).rest()
        parts = (whole[:size], whole[size:])
    raws: list[Any] = []
    for part in parts:
        frame = _tried(DecodeError, serializer.decode_text, "2.0.0", b'["","","","",' + part + b"]")
        if frame is None:
            return
        raws.append(frame.payload)
    found = _tried(DecodeError, row_conversion.convert_row, raws[0], raws[1], mode)
    assert found is None or isinstance(found, dict)


def _raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(dumps(value))


@dataclasses.dataclass
class Row:
    """A user's model with a field of each sort."""

    id: int
    title: str = ""
    price: Decimal | None = None
    at: datetime.datetime | None = None
    tags: list[str] = dataclasses.field(default_factory=list)
    meta: Any = None


def model(data: bytes) -> None:
    """A row becomes an instance of the user's dataclass, or a ``DecodeError`` says why not."""
    taker = Taker(data)
    first = taker.byte()
    kinds = [taker.choice(TYPES) for _ in range(3)]
    kinds.append(TYPES[first % len(TYPES)])
    listed = [
        {"name": field.name, "type": kind}
        for field, kind in zip(dataclasses.fields(Row), kinds, strict=False)
    ]
    names = [field.name for field in dataclasses.fields(Row)]
    part = _text(_object(taker, names)) if first >= STRUCTURED else taker.rest()
    frame = b'["","","","",' + part + b"]"
    message = _tried(DecodeError, serializer.decode_text, "2.0.0", frame)
    if message is None:
        return
    change = PostgresData(
        "UPDATE", columns=listed, record=message.payload, old_record=message.payload
    )
    for read in (converter_for(Row).new, converter_for(Row).old):
        found = _tried(DecodeError, read, change)
        assert found is None or isinstance(found, Row)


def array(data: bytes) -> None:
    """An array literal is read into lists of the depth that Postgres allows, or refused."""
    taker = Taker(data)
    delimiter, text = taker.choice(",;"), taker.rest().decode("utf-8", "surrogateescape")
    found = _tried(ValueError, pg_arrays.parse_array, text, delimiter)
    if found is not None:
        assert _depth(found) <= pg_arrays.MAX_DIMENSIONS
        assert pg_arrays.parse_array(_literal(found, delimiter), delimiter) == found
    row_conversion.to_array(text, taker.choice(TYPES))


def _depth(found: Any) -> int:
    return 1 + max((_depth(each) for each in found), default=0) if isinstance(found, list) else 0


def _literal(found: Any, delimiter: str) -> str:
    """As Postgres writes it."""
    if isinstance(found, list):
        return "{" + delimiter.join(_literal(each, delimiter) for each in found) + "}"
    if not isinstance(found, str):
        return "NULL"
    return '"' + found.replace("\\", "\\\\").replace('"', '\\"') + '"'


def filter_builder(data: bytes) -> None:
    """The server reads the conditions of a built filter, and no others."""
    taker = Taker(data)
    builder = changes_filter.postgres_changes_filter()
    wanted: list[Any] = []
    while taker.more and len(wanted) < 4:
        column, operator = (
            taker.text(),
            taker.choice(("eq", "neq", "gt", "like", "in", "isdistinct")),
        )
        value: Any = [taker.text(), taker.text()] if operator == "in" else taker.text()
        negated = bool(taker.byte() & 1)
        add = builder.not_ if negated else builder._add
        if _tried(ValueError, add, column, operator, value) is None:
            continue
        wanted.append(
            (column, operator, list(dict.fromkeys(value)) if operator == "in" else value, negated)
        )
    built = builder.build()
    if not wanted:
        assert built == ""
        return
    read = [
        (one.column, one.op, list(one.values) if one.op == "in" else one.value, one.negated)
        for one in server_filters.parse(built)
    ]
    assert read == wanted
    _tried(ValueError, pages.carried_over, built)


def filter_parser(data: bytes) -> None:
    """A filter written by hand gives conditions, or the server's own error."""
    text = data.decode("utf-8", "surrogateescape")
    found = _tried(server_filters.FilterError, server_filters.parse, text)
    for condition in found or ():
        assert condition.op in server_filters.OPERATORS
        assert condition.shown()
    _tried(ValueError, pages.carried_over, text)


def rest_query(data: bytes) -> None:
    """The query of a PostgREST read is parsed, or refused with an HTTP error."""
    pairs = _tried(ValueError, parse_qsl, data.decode("utf-8", "surrogateescape"), True)
    if pairs is not None:
        found = _tried(RestProblem, parse_query, pairs)
        assert found is None or isinstance(found, RestQuery)


def pgoutput_message(data: bytes) -> None:
    """A message of logical replication is decoded, or raises ``PgOutputError``."""
    _tried(pgoutput.PgOutputError, pgoutput.decode, data)


def token(data: bytes) -> None:
    """The claims of a token are read without its key; a token that would end a header is
    refused.
    """
    found = data.decode("utf-8", "surrogateescape")
    expiry = jwt_claims.expires_at(found)
    assert expiry is None or (jwt_claims.is_jwt(found) and math.isfinite(expiry))
    try:
        jwt_claims.check_token(found)
    except ValueError:
        return
    assert not set(found) & {"\r", "\n", "\x00"}


def address(data: bytes) -> None:
    """Any text as URL, topic, event and key gives one address without a line break, or an error."""
    taker = Taker(data)
    params, topic, event = {"apikey": taker.text()}, taker.text(), taker.text()
    given = taker.rest().decode("utf-8", "surrogateescape")
    urls.redact(given)
    base = _tried(ValueError, urls.realtime_endpoint, given)
    endpoint = None if base is None else _tried(ValueError, urls.Endpoint, base)
    if endpoint is None:
        return
    socket = functools.partial(endpoint.socket_url, params, "2.0.0")
    broadcast = functools.partial(endpoint.broadcast_url, topic, event, params=params)
    made = [_tried(UnicodeEncodeError, call) for call in (socket, broadcast)]
    for url in made:
        assert url is None or not any(letter <= " " for letter in url)


def edge(data: bytes) -> None:
    """Stored JSON becomes a payload again, or raises ``ValueError``."""
    taker = Taker(data)
    kind: Any = taker.choice((Broadcast, SystemMessage, PostgresChange))
    found = taker.rest()
    value = _tried((ValueError, RecursionError), json.loads, found)
    if value is not None:
        made = _tried(ValueError, kind.from_dict, value)
        assert made is None or made == kind.from_dict(made.to_dict())


TARGETS: tuple[Callable[[bytes], None], ...] = (
    text,
    binary,
    roundtrip,
    short_way,
    payloads,
    cells,
    rows,
    model,
    array,
    filter_builder,
    filter_parser,
    rest_query,
    pgoutput_message,
    token,
    address,
    edge,
)
