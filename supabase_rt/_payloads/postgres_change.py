"""The payload of a database change (docs/protocol.md#9-database-changes)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self

from .base import TEXT_OR_NONE, Payload, brief, check_types, js_keys, shown
from .json_shapes import json_safe
from .models import RowConverter
from .postgres_data import PostgresData
from .row_conversion import convert_row, js_row

__all__ = ["BackfilledChange", "PostgresChange"]

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    Row = TypeVar("Row", default=dict[str, Any], covariant=True)

    class _Rows(Payload, Generic[Row]):
        """The base for type checkers only: at run time ``PostgresChange[Todo]`` is the class."""
else:
    Row, _Rows = Any, Payload


class PostgresChange(_Rows[Row]):
    """One change of one row; a row is converted when it is first read.

    ``conversion`` is ``"js"``, ``"python"`` or ``"raw"`` (see ``row_conversion``), or the converter
    of a model. With a model rows are instances of its class: ``PostgresChange[Todo]``. ``new`` and
    ``old`` raise ``DecodeError`` for a row that is malformed or does not fit the model.
    """

    __slots__ = ("_conversion", "_data", "_new", "_old")

    backfilled: ClassVar[bool] = False
    """True if the row was read from the table because its change was missed."""

    _names = js_keys("schema", "table", "commit_timestamp", "eventType", "new", "old", "errors")
    _defaults: ClassVar[dict[str, Any]] = {
        **dict.fromkeys(("schema", "table", "commit_timestamp", "errors")),
        "new": {},
        "old": {},
    }

    _moved: ClassVar[dict[str, str]] = {
        "data": "the change itself: change.new, change.old, change.event_type",
        "record": "'new'",
        "old_record": "'old'",
        "type": "'eventType' as a key and event_type as an attribute",
    }

    # Made for each event: two more parameters with defaults would cost 4 % of its whole way.
    def __init__(self, data: PostgresData, conversion: str | RowConverter = "js") -> None:
        self._data = data
        self._conversion = conversion
        # None until it is read for the first time.
        self._new: Any = None
        self._old: Any = None

    def _with_rows(self, new: dict[str, Any], old: dict[str, Any]) -> Self:
        self._new, self._old = new, old
        return self

    @property
    def schema(self) -> str | None:
        """The schema of the table."""
        return self._data.schema

    @property
    def table(self) -> str | None:
        """The name of the table."""
        return self._data.table

    @property
    def commit_timestamp(self) -> str | None:
        """The time of the commit, ISO 8601 in UTC; ``None`` with some ``errors``."""
        return self._data.commit_timestamp

    @property
    def event_type(self) -> str:
        """``"INSERT"``, ``"UPDATE"`` or ``"DELETE"``."""
        return self._data.type

    @property
    def new(self) -> Row:
        """The row after the change; ``{}`` for DELETE, or None with a model."""
        row: Row = self._new
        if row is None:
            row = self._new = self._row_new(self._conversion)
        return row

    @property
    def old(self) -> Row:
        """The old row: its key, or all of it with REPLICA IDENTITY FULL.

        ``{}`` for INSERT, or None with a model. Fields of a model have their default, or None, if
        the server does not send the column.
        """
        row: Row = self._old
        if row is None:
            row = self._old = self._row_old(self._conversion)
        return row

    @property
    def errors(self) -> list[str] | None:
        """The reasons of missing data (docs/protocol.md#errors-inside-a-change), or None."""
        found: list[str] | None = self._data.errors
        return found

    def _row_new(self, conversion: str | RowConverter) -> Any:
        data = self._data
        if conversion == "js" and data.type == "INSERT":
            return js_row(data.columns, data.record)
        if not isinstance(conversion, str):
            return conversion.new(data)
        if data.type == "INSERT" or data.type == "UPDATE":
            return convert_row(data.columns, data.record, conversion)
        return {}

    def _row_old(self, conversion: str | RowConverter) -> Any:
        data = self._data
        if not isinstance(conversion, str):
            return conversion.old(data)
        if data.type == "UPDATE" or data.type == "DELETE":
            return convert_row(data.columns, data.old_record, conversion)
        return {}

    def _plain(self) -> dict[str, Any]:
        if self._conversion in ("js", "raw"):
            return super()._plain()
        rows = {"new": self._row_new("js"), "old": self._row_old("js")}
        return {key: json_safe(rows[key] if key in rows else self[key]) for key in self._names}

    @classmethod
    def _restore(cls, values: dict[str, Any]) -> Self:
        check_types(values, eventType=str, new=Mapping, old=Mapping, errors=(list, type(None)))
        check_types(values, **dict.fromkeys(("schema", "table", "commit_timestamp"), TEXT_OR_NONE))
        data = PostgresData(
            type=values["eventType"],
            schema=values["schema"],
            table=values["table"],
            commit_timestamp=values["commit_timestamp"],
            errors=values["errors"],
        )
        return cls(data, "raw")._with_rows(dict(values["new"]), dict(values["old"]))

    def __repr__(self) -> str:
        where = ".".join(name for name in (self.schema, self.table) if name is not None)
        errors = f"errors={brief(self.errors)}" if self.errors else ""
        kind = f"PostgresChange {self.event_type:.60}"
        return shown(kind, f"{where:.130}", errors, content=lambda: self.new or self.old)


class BackfilledChange(PostgresChange[Row]):
    """A row that was read from its table because its change was missed.

    ``commit_timestamp`` is None and ``old`` is empty, because they are not known.
    """

    __slots__ = ()

    backfilled: ClassVar[bool] = True
