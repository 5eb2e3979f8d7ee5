"""A schema as far as rows need it."""

from __future__ import annotations

import dataclasses

from ..._printable import printable

__all__ = ["Column", "Enum", "Schema", "SchemaError", "SchemaTable"]


class SchemaError(Exception):
    """The source is no schema; the message says what to change."""

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
    """A column; ``type`` is ``pg_type.typname`` of one element, for enums their own name."""

    name: str
    type: str
    is_array: bool = False
    dimensions: int = 1
    """Of an array, as its table was written; Postgres does not hold anybody to it."""
    nullable: bool = True
    optional: bool = True
    """An insert need not mention it: nullable, with a default, or numbered by the database."""
    generated: bool = False
    """An insert must not mention it."""
    enum: Enum | None = None
    comment: str = ""


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
    """All that one file is generated from."""

    tables: tuple[SchemaTable, ...]

    def only(self, names: list[str], exclude: list[str]) -> Schema:
        """The named tables (all without names), less the excluded ones.

        A name is a table's, or ``schema.table``. Raises ``SchemaError`` for one that fits none.
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
