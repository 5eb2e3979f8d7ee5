"""The tables that Python code publishes changes of, and their known rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from .column_types import default_value, infer, wire

__all__ = ["Row", "Table", "Tables"]

Row = dict[str, Any]
MAX_ROWS = 10_000


@dataclasses.dataclass(eq=False)
class Table:
    """One table; its rows are kept to know the old row of an update or a delete."""

    schema: str
    name: str
    columns: dict[str, str]
    primary_key: tuple[str, ...] = ()
    replica_identity: str = "default"
    declared: bool = False
    visible: Callable[[Mapping[str, Any], Row], bool] | None = None
    rows: dict[tuple[Any, ...], Row] = dataclasses.field(default_factory=dict)
    inserted: int = 0

    def learn(self, row: Mapping[str, Any]) -> None:
        """Add the columns of a row; in a declared table, check that it has them."""
        if self.declared:
            unknown = [name for name in row if name not in self.columns]
            if unknown:
                raise ValueError(f"table {self.schema}.{self.name} has no column {unknown[0]!r}")
            return
        for name, value in row.items():
            if value is not None or name not in self.columns:
                self.columns[name] = infer(value)
        if not self.primary_key and self.columns:
            self.primary_key = ("id",) if "id" in self.columns else (next(iter(self.columns)),)

    def complete(self, row: Mapping[str, Any]) -> Row:
        """Returns a new row with every column, a numbered key, and values as on the wire."""
        self.inserted += 1
        found: Row = {}
        for name, kind in self.columns.items():
            value = row.get(name)
            if value is None and name in self.primary_key:
                value = default_value(kind, self.inserted - 1)
            found[name] = wire(value)
        return found

    def key(self, row: Mapping[str, Any]) -> tuple[Any, ...] | None:
        """Returns the values of the primary key; None if the row lacks one."""
        if not self.primary_key or any(name not in row for name in self.primary_key):
            return None
        return tuple(str(wire(row[name])) for name in self.primary_key)

    def keep(self, row: Row) -> None:
        """Remember a row; above the limit the oldest is forgotten."""
        key = self.key(row)
        if key is not None:
            self.rows[key] = row
            if len(self.rows) > MAX_ROWS:
                del self.rows[next(iter(self.rows))]

    def forget(self, row: Mapping[str, Any]) -> None:
        """Drop a remembered row."""
        key = self.key(row)
        if key is not None:
            self.rows.pop(key, None)

    def find(self, where: Mapping[str, Any]) -> list[Row]:
        """Returns the remembered rows with these values."""
        wanted = {name: wire(value) for name, value in where.items()}
        return [
            row
            for row in self.rows.values()
            if all(name in row and row[name] == value for name, value in wanted.items())
        ]

    def known(self, row: Mapping[str, Any]) -> Row | None:
        """Returns the remembered row with the same primary key."""
        key = self.key(row)
        return None if key is None else self.rows.get(key)

    def identity(self, row: Mapping[str, Any], *, key_only: bool = False) -> Row:
        """Returns the columns of an old row in the replica identity (docs/protocol.md#old-rows)."""
        if self.replica_identity == "full" and not key_only:
            return dict(row)
        return {name: row[name] for name in self.primary_key if name in row}


class Tables:
    """All tables of one server."""

    def __init__(self) -> None:
        self._tables: dict[tuple[str, str], Table] = {}

    def declare(self, table: Table) -> Table:
        """Add a table, or replace one of the same name."""
        self._tables[table.schema, table.name] = table
        return table

    def get(self, schema: str, name: str) -> Table:
        """Returns the table of this name, and adds an undeclared one if it is missing."""
        found = self._tables.get((schema, name))
        return found or self.declare(Table(schema, name, {}))

    def find_table(self, schema: str, name: str) -> Table | None:
        """Returns the table of this name, if there is one."""
        return self._tables.get((schema, name))

    def all(self) -> list[Table]:
        """Returns every table."""
        return list(self._tables.values())

    def declared(self) -> list[Table]:
        """Returns the declared tables."""
        return [table for table in self._tables.values() if table.declared]
