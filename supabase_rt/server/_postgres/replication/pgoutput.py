"""Decodes the messages of logical replication that the plugin ``pgoutput`` writes (version 1).

See https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html. Values stay
texts, in the form that psql shows.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import struct
from collections.abc import Callable
from typing import Final

__all__ = [
    "UNCHANGED",
    "Begin",
    "Commit",
    "Delete",
    "Insert",
    "Message",
    "Other",
    "PgOutputError",
    "Relation",
    "RelationColumn",
    "Truncate",
    "Type",
    "Unchanged",
    "Update",
    "Values",
    "decode",
]

EPOCH = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
UINT16 = struct.Struct("!H")
UINT32 = struct.Struct("!I")
INT32 = struct.Struct("!i")
INT64 = struct.Struct("!q")
UINT64 = struct.Struct("!Q")


class PgOutputError(ValueError):
    """Bytes that are not a valid message of pgoutput."""


class Unchanged:
    """Stands for a large value that an UPDATE did not change; the WAL does not have it."""

    def __repr__(self) -> str:
        return "UNCHANGED"


UNCHANGED: Final = Unchanged()

Values = tuple[str | Unchanged | None, ...]
"""One row: a value per column of its relation, in order."""


@dataclasses.dataclass(frozen=True)
class Begin:
    """The start of a transaction; ``committed_at`` is in UTC."""

    final_lsn: int
    committed_at: dt.datetime
    xid: int


@dataclasses.dataclass(frozen=True)
class Commit:
    """The end of a transaction; the next one begins at ``end_lsn`` or later."""

    flags: int
    lsn: int
    end_lsn: int
    committed_at: dt.datetime


@dataclasses.dataclass(frozen=True)
class RelationColumn:
    """A column of a relation; ``is_key`` is True if the replica identity includes it."""

    name: str
    type_oid: int
    modifier: int = -1
    is_key: bool = False


@dataclasses.dataclass(frozen=True)
class Relation:
    """A table; sent before its first change, and again after it was altered.

    ``identity`` is ``pg_class.relreplident``: d(efault), n(othing), f(ull), i(ndex).
    """

    oid: int
    schema: str
    name: str
    identity: str
    columns: tuple[RelationColumn, ...]


@dataclasses.dataclass(frozen=True)
class Type:
    """A type that is not built in."""

    oid: int
    schema: str
    name: str


@dataclasses.dataclass(frozen=True)
class Insert:
    """A new row."""

    relation: int
    new: Values


@dataclasses.dataclass(frozen=True)
class Update:
    """A row with new values.

    ``old`` is None unless the replica identity is full or its columns were changed. With
    ``old_is_full`` it has all columns; otherwise only those of the identity.
    """

    relation: int
    new: Values
    old: Values | None = None
    old_is_full: bool = False


@dataclasses.dataclass(frozen=True)
class Delete:
    """A deleted row; see ``Update`` for ``old``."""

    relation: int
    old: Values
    old_is_full: bool = False


@dataclasses.dataclass(frozen=True)
class Truncate:
    """Tables that were emptied."""

    relations: tuple[int, ...]
    cascade: bool = False
    restart_identity: bool = False


@dataclasses.dataclass(frozen=True)
class Other:
    """A message that is not used here: an origin, or a logical message."""

    kind: str


Message = Begin | Commit | Relation | Type | Insert | Update | Delete | Truncate | Other


class _Reader:
    """Reads the fields of a message, from front to back."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        """The number of bytes that were not read yet."""
        return len(self._data) - self._at

    def unpack(self, form: struct.Struct) -> int:
        try:
            (value,) = form.unpack_from(self._data, self._at)
        except struct.error:
            pass
        else:
            self._at += form.size
            return int(value)
        raise PgOutputError("the message ends too early")

    def take(self, size: int) -> bytes:
        found = self._data[self._at : self._at + size]
        if size < 0 or len(found) < size:
            raise PgOutputError("the message ends too early")
        self._at += size
        return found

    def char(self) -> str:
        return self.take(1).decode("latin-1")

    def string(self) -> str:
        end = self._data.find(b"\0", self._at)
        if end < 0:
            raise PgOutputError("a name without an end")
        found = self.take(end - self._at)
        self._at += 1
        return _text(found)

    def moment(self) -> dt.datetime:
        try:
            return EPOCH + dt.timedelta(microseconds=self.unpack(INT64))
        except OverflowError:
            pass
        raise PgOutputError("a time beyond the calendar")

    def values(self) -> Values:
        return tuple(self._value() for _ in range(self.unpack(UINT16)))

    def _value(self) -> str | Unchanged | None:
        kind = self.char()
        if kind == "n":
            return None
        if kind == "u":
            return UNCHANGED
        if kind == "t":
            return _text(self.take(self.unpack(INT32)))
        raise PgOutputError(f"a value of the unknown kind {kind!r}")

    def finish(self) -> None:
        if self.left:
            raise PgOutputError(f"{self.left} bytes too many")


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        pass
    raise PgOutputError("a text that is not UTF-8")


def decode(data: bytes) -> Message:
    """Decode one message; raises ``PgOutputError``."""
    if not data:
        raise PgOutputError("an empty message")
    kind = chr(data[0])
    if kind in "OM":
        return Other(kind)
    decoder = _DECODERS.get(kind)
    if decoder is None:
        raise PgOutputError(f"a message of the unknown kind {kind!r}")
    reader = _Reader(data[1:])
    message = decoder(reader)
    reader.finish()
    return message


def _begin(reader: _Reader) -> Begin:
    return Begin(reader.unpack(UINT64), reader.moment(), reader.unpack(UINT32))


def _commit(reader: _Reader) -> Commit:
    flags = ord(reader.char())
    return Commit(flags, reader.unpack(UINT64), reader.unpack(UINT64), reader.moment())


def _relation(reader: _Reader) -> Relation:
    oid, schema, name = reader.unpack(UINT32), reader.string(), reader.string()
    identity = reader.char()
    columns = tuple(_column(reader) for _ in range(reader.unpack(UINT16)))
    # Postgres sends an empty name for the schema pg_catalog.
    return Relation(oid, schema or "pg_catalog", name, identity, columns)


def _column(reader: _Reader) -> RelationColumn:
    is_key = bool(ord(reader.char()) & 1)
    name = reader.string()
    return RelationColumn(name, reader.unpack(UINT32), reader.unpack(INT32), is_key)


def _type(reader: _Reader) -> Type:
    return Type(reader.unpack(UINT32), reader.string() or "pg_catalog", reader.string())


def _expect(kind: str, allowed: str) -> None:
    if kind not in allowed:
        raise PgOutputError(f"a row of the unknown kind {kind!r}")


def _insert(reader: _Reader) -> Insert:
    relation = reader.unpack(UINT32)
    _expect(reader.char(), "N")
    return Insert(relation, reader.values())


def _update(reader: _Reader) -> Update:
    relation, kind = reader.unpack(UINT32), reader.char()
    _expect(kind, "KON")
    if kind == "N":
        return Update(relation, reader.values())
    old = reader.values()
    _expect(reader.char(), "N")
    return Update(relation, reader.values(), old, kind == "O")


def _delete(reader: _Reader) -> Delete:
    relation, kind = reader.unpack(UINT32), reader.char()
    _expect(kind, "KO")
    return Delete(relation, reader.values(), kind == "O")


def _truncate(reader: _Reader) -> Truncate:
    count, options = reader.unpack(UINT32), ord(reader.char())
    if count * 4 > reader.left:
        raise PgOutputError("the message ends too early")
    relations = tuple(reader.unpack(UINT32) for _ in range(count))
    return Truncate(relations, bool(options & 1), bool(options & 2))


_DECODERS: dict[str, Callable[[_Reader], Message]] = {
    "B": _begin,
    "C": _commit,
    "R": _relation,
    "Y": _type,
    "I": _insert,
    "U": _update,
    "D": _delete,
    "T": _truncate,
}
