"""The field configs of generated row classes: by Postgres type, for ``dataclasses_json``.

::

    @dataclass(kw_only=True)
    class TodosRow(DataClassJsonMixin):
        id: int
        price: Decimal = field(metadata=pg("numeric"))
        class_: str = field(metadata=pg(name="class"))

``supabase-rt gen types`` writes such classes; they can also be written by hand. This module imports
dataclasses-json, so the package itself does not import it.
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
    """The value of a column that an insert or an update leaves out."""

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
"""The default of optional fields in ``...Insert`` and ``...Update``. ``to_dict()`` leaves such a
field out, while ``None`` writes NULL."""


def pg(type_name: str = "", *, name: str | None = None) -> dict[str, dict[str, Any]]:
    """Returns the ``metadata`` of a dataclass field for a column.

    Args:
        type_name: the type as ``pg_type.typname`` spells it: ``"timestamptz"``, ``"_numeric"``
            for an array. Values are converted as with ``types="python"``; a value without a
            Python type (``infinity``) stays text.
        name: the name of the column, if the field has another one.
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
    """Returns a value as PostgREST reads it in JSON."""
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, bytes):
        return f"\\x{value.hex()}"
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, Decimal | uuid.UUID):
        return str(value)
    return value
