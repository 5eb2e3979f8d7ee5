"""The decoder of pgoutput, against an encoder written from the same page of the manual."""

from __future__ import annotations

import contextlib
import datetime as dt
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supabase_rt.server._postgres.replication.pgoutput import (
    EPOCH,
    UNCHANGED,
    Begin,
    Commit,
    Delete,
    Insert,
    Message,
    Other,
    PgOutputError,
    Relation,
    RelationColumn,
    Truncate,
    Type,
    Update,
    Values,
    decode,
)

# -- the other direction -------------------------------------------------------------------


def _cstring(text: str) -> bytes:
    return text.encode() + b"\0"


def _row(values: Values) -> bytes:
    found = struct.pack("!H", len(values))
    for value in values:
        if value is None:
            found += b"n"
        elif isinstance(value, str):
            data = value.encode()
            found += b"t" + struct.pack("!i", len(data)) + data
        else:
            found += b"u"
    return found


def _moment(value: dt.datetime) -> bytes:
    return struct.pack("!q", (value - EPOCH) // dt.timedelta(microseconds=1))


def _column(column: RelationColumn) -> bytes:
    about = struct.pack("!Ii", column.type_oid, column.modifier)
    return bytes([column.is_key]) + _cstring(column.name) + about


def encode(message: Message) -> bytes:
    match message:
        case Begin(lsn, moment, xid):
            return b"B" + struct.pack("!Q", lsn) + _moment(moment) + struct.pack("!I", xid)
        case Commit(flags, lsn, end, moment):
            return b"C" + struct.pack("!BQQ", flags, lsn, end) + _moment(moment)
        case Relation(oid, schema, name, identity, columns):
            head = b"R" + struct.pack("!I", oid) + _cstring(schema) + _cstring(name)
            count = struct.pack("!H", len(columns))
            return head + identity.encode() + count + b"".join(map(_column, columns))
        case Type(oid, schema, name):
            return b"Y" + struct.pack("!I", oid) + _cstring(schema) + _cstring(name)
        case Insert(relation, new):
            return b"I" + struct.pack("!I", relation) + b"N" + _row(new)
        case Update(relation, new, old, full):
            before = b"" if old is None else (b"O" if full else b"K") + _row(old)
            return b"U" + struct.pack("!I", relation) + before + b"N" + _row(new)
        case Delete(relation, old, full):
            kind = b"O" if full else b"K"
            return b"D" + struct.pack("!I", relation) + kind + _row(old)
        case Truncate(relations, cascade, restart):
            options = cascade + 2 * restart
            head = b"T" + struct.pack("!IB", len(relations), options)
            return head + b"".join(struct.pack("!I", oid) for oid in relations)
        case Other(kind):
            return kind.encode() + b"anything"


# -- round trips ---------------------------------------------------------------------------

OIDS = st.integers(0, 2**32 - 1)
LSNS = st.integers(0, 2**64 - 1)
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=30)
ROWS = st.lists(st.none() | TEXTS | st.just(UNCHANGED), max_size=5).map(tuple)
MOMENTS = st.datetimes(dt.datetime(1900, 1, 1), dt.datetime(9000, 1, 1), timezones=st.just(dt.UTC))
MODIFIERS = st.integers(-(2**31), 2**31 - 1)
COLUMNS = st.lists(st.builds(RelationColumn, NAMES, OIDS, MODIFIERS, st.booleans()), max_size=4)
MESSAGES: st.SearchStrategy[Message] = st.one_of(
    st.builds(Begin, LSNS, MOMENTS, OIDS),
    st.builds(Commit, st.integers(0, 255), LSNS, LSNS, MOMENTS),
    st.builds(Relation, OIDS, NAMES, NAMES, st.sampled_from("dnfi"), COLUMNS.map(tuple)),
    st.builds(Type, OIDS, NAMES, NAMES),
    st.builds(Insert, OIDS, ROWS),
    st.builds(Update, OIDS, ROWS, ROWS, st.booleans()),
    st.builds(Update, OIDS, ROWS),
    st.builds(Delete, OIDS, ROWS, st.booleans()),
    st.builds(Truncate, st.lists(OIDS, max_size=4).map(tuple), st.booleans(), st.booleans()),
    st.builds(Other, st.sampled_from("OM")),
)


@given(MESSAGES)
def test_what_was_encoded_is_decoded(message: Message) -> None:
    assert decode(encode(message)) == message


@given(st.binary(max_size=60) | st.builds(lambda k, b: k + b, st.sampled_from(
    [b"B", b"C", b"R", b"Y", b"I", b"U", b"D", b"T"]), st.binary(max_size=40)))  # fmt: skip
def test_any_bytes_are_a_message_or_an_error(data: bytes) -> None:
    with contextlib.suppress(PgOutputError):
        decode(data)


@given(MESSAGES.filter(lambda message: not isinstance(message, Other)), st.data())
def test_a_message_cut_short_is_an_error(message: Message, data: st.DataObject) -> None:
    whole = encode(message)
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(PgOutputError):
        decode(whole[:cut])


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "an empty message"),
        (b"x", "a message of the unknown kind 'x'"),
        (b"I\0\0\0\1X", "a row of the unknown kind 'X'"),
        (b"I\0\0\0\1N\0\1z", "a value of the unknown kind 'z'"),
        (b"I\0\0\0\1N\0\1t\xff\xff\xff\xff", "the message ends too early"),
        (b"I\0\0\0\1N\0\1t\0\0\0\1\xff", "a text that is not UTF-8"),
        (b"I\0\0\0\1N\0\0!", "1 bytes too many"),
        (b"Y\0\0\0\1public", "a name without an end"),
        (b"T\xff\xff\xff\xff\0", "the message ends too early"),
        (b"B" + b"\0" * 8 + b"\x7f" + b"\xff" * 7 + b"\0" * 4, "a time beyond the calendar"),
    ],
)
def test_what_is_wrong_is_said(data: bytes, problem: str) -> None:
    with pytest.raises(PgOutputError) as caught:
        decode(data)
    assert str(caught.value) == problem


def test_the_catalog_is_named_and_the_placeholder_shown() -> None:
    assert decode(b"Y\0\0\0\1\0int4\0") == Type(1, "pg_catalog", "int4")
    assert repr(UNCHANGED) == "UNCHANGED"
