"""The tables, columns and enums that row classes are generated from."""

from __future__ import annotations

import dataclasses

from ..._printable import printable

__all__ = ["Column", "Enum", "Schema", "SchemaError", "SchemaTable"]


class SchemaError(Exception):
    """A source that is not a usable schema; the message says what to change."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


@dataclasses.dataclass(frozen=True)
class Enum:
    """A type with a fixed list of texts."""

    schema: str
    name: str
    values: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Column:
    """A column; ``type`` is the ``pg_type.typname`` of one element, or the name of an enum."""

    name: str
    type: str
    is_array: bool = False
    dimensions: int = 1
    """Dimensions in the declaration of an array; Postgres does not enforce them."""
    nullable: bool = True
    optional: bool = True
    """True if an insert may omit it: nullable, with a default, or numbered by the database."""
    generated: bool = False
    """True if an insert must omit it."""
    enum: Enum | None = None
    comment: str = ""
    opaque: bool = False
    """True if the source only names the type: a value may be a text, a number or an object."""


@dataclasses.dataclass(frozen=True)
class SchemaTable:
    """A table or a view; columns in the order of their definition."""

    schema: str
    name: str
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...] = ()
    writable: bool = True
    comment: str = ""


@dataclasses.dataclass(frozen=True)
class Schema:
    """The tables of one generated module."""

    tables: tuple[SchemaTable, ...]

    def only(self, names: list[str], exclude: list[str]) -> Schema:
        """Returns the named tables, or all without names, minus the excluded ones.

        A name is a table's, or ``schema.table``. Raises ``SchemaError`` for an unknown name.
        """
        for name in [*names, *exclude]:
            if not any(_fits(table, name) for table in self.tables):
                known = ", ".join(sorted(table.name for table in self.tables)) or "none"
                raise SchemaError(f"there is no table {name!r}; the tables: {known}")
        kept = (
            table
            for table in self.tables
            if (not names or any(_fits(table, name) for name in names))
            and not any(_fits(table, name) for name in exclude)
        )
        return Schema(tuple(kept))


def _fits(table: SchemaTable, name: str) -> bool:
    return name in (table.name, f"{table.schema}.{table.name}")
