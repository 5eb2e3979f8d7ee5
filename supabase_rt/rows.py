"""What generated rows stand on: field configs by Postgres type, for ``dataclasses_json``.

::

    @dataclass(kw_only=True)
    class TodosRow(DataClassJsonMixin):
        id: int
        price: Decimal = field(metadata=pg("numeric"))
        class_: str = field(metadata=pg(name="class"))

Written by ``supabase-rt gen types``, and as good by hand. Imports dataclasses-json, so it is not
imported by the package itself.
"""

from __future__ import annotations

import datetime
import uuid
from decimal import Decimal
from typing import Any, Final

from dataclasses_json import config

from ._payloads.pg_values import python_cell

__all__ = ["UNSET", "pg"]


class _Unset:
    """A column that an insert or an update does not mention."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "UNSET"

    def __bool__(self) -> bool:
        return False

    def __copy__(self) -> _Unset:
        return self

    def __deepcopy__(self, memo: Any) -> _Unset:
        return self

    def __reduce__(self) -> str:
        return "UNSET"


UNSET: Final[Any] = _Unset()
"""The default of optional fields in ``...Insert`` and ``...Update``: left out of ``to_dict()``,
where ``None`` would write NULL."""


def pg(type_name: str = "", *, name: str | None = None) -> dict[str, dict[str, Any]]:
    """The metadata of a dataclass field that holds a column.

    Args:
        type_name: the type as ``pg_type.typname`` spells it: ``"timestamptz"``, ``"_numeric"``
            for an array. Values are read as with ``types="python"``; what Python has no object
            for (``infinity``) stays text.
        name: the column's name where the field has another.

    Returns what ``dataclasses.field(metadata=...)`` takes.
    """
    cell = python_cell(type_name) if type_name else None
    return config(
        field_name=name,
        decoder=cell,
        encoder=_plain,
        exclude=_is_unset,
    )


def _is_unset(value: object) -> bool:
    return value is UNSET


def _plain(value: Any) -> Any:
    """A value as PostgREST takes it in JSON."""
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, bytes):
        return f"\\x{value.hex()}"
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, Decimal | uuid.UUID):
        return str(value)
    return value
