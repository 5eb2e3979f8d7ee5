"""The payload of a postgres_changes message as it comes from the wire."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from .._wire.json_codec import UNREADABLE, plain
from ..errors import DecodeError
from .base import TEXT_OR_NONE

__all__ = ["PostgresData", "PostgresEnvelope", "read_postgres_changes"]

if TYPE_CHECKING:
    Undecoded = Any
else:
    Undecoded = msgspec.Raw


class PostgresData(msgspec.Struct, gc=False):
    """The ``data`` of a change (docs/protocol.md#the-event).

    Rows and columns are undecoded, or plain data if only ``json`` could read the frame.
    """

    type: str
    schema: str | None = None
    table: str | None = None
    commit_timestamp: str | None = None
    columns: Undecoded = None
    record: Undecoded = None
    old_record: Undecoded = None
    errors: Any = None


class PostgresEnvelope(msgspec.Struct, gc=False):
    """The payload of a postgres_changes message: one change and the ids of its bindings."""

    ids: list[int | str]
    data: PostgresData


_envelope: Final = msgspec.json.Decoder(PostgresEnvelope)


def read_postgres_changes(payload: Any) -> PostgresEnvelope:
    """Read the payload of a postgres_changes message: ``msgspec.Raw`` or plain data.

    Raises ``DecodeError`` for a payload without ids or type.
    """
    if isinstance(payload, msgspec.Raw):
        try:
            return _envelope.decode(payload)
        except UNREADABLE:
            pass
    return _plain_envelope(plain(payload))


def _plain_envelope(found: Any) -> PostgresEnvelope:
    ids, data = (found.get("ids"), found.get("data")) if isinstance(found, dict) else (None, None)
    if not isinstance(ids, list) or not isinstance(data, dict):
        raise DecodeError("postgres_changes without ids or data")
    if not all(isinstance(one, int | str) and not isinstance(one, bool) for one in ids):
        raise DecodeError("postgres_changes with an id that is neither text nor a number")
    if not isinstance(data.get("type"), str):
        raise DecodeError("postgres_changes without a type")
    known = {name: data[name] for name in PostgresData.__struct_fields__ if name in data}
    for name in ("schema", "table", "commit_timestamp"):
        if not isinstance(known.get(name), TEXT_OR_NONE):
            raise DecodeError(f"postgres_changes whose {name} is no text")
    return PostgresEnvelope(ids, PostgresData(**known))
