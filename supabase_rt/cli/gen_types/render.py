"""Writes a schema as a Python module: dataclasses for rows, inserts and updates."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from ..._printable import printable
from .identifiers import MODULE, class_name, field_name, member_name, unique
from .schema import Column, Enum, Schema, SchemaTable

__all__ = ["render"]

PYTHON = {
    **dict.fromkeys(("int2", "int4", "int8", "oid", "xid", "cid"), "int"),
    **dict.fromkeys(("float4", "float8"), "float"),
    "bool": "bool",
    "numeric": "Decimal",
    **dict.fromkeys(("timestamptz", "timestamp"), "dt.datetime"),
    "date": "dt.date",
    **dict.fromkeys(("time", "timetz"), "dt.time"),
    "uuid": "UUID",
    "bytea": "bytes",
    **dict.fromkeys(("json", "jsonb"), "Any"),
}
"""The Python type by ``pg_type.typname``; all others are text."""

CONVERTED = {"numeric", "timestamptz", "timestamp", "date", "time", "timetz", "uuid", "bytea"}
"""Types without a JSON form of their own; their fields need a converter."""

IMPORTS = {
    "dt": "import datetime as dt",
    "StrEnum": "from enum import StrEnum",
    "Decimal": "from decimal import Decimal",
    "UUID": "from uuid import UUID",
}
DIMENSIONS = 6
"""Largest number of dimensions of an array in Postgres."""
ENDINGS = ("Row", "Insert", "Update")

HEADER = '''\
"""Rows of {schemas}. Written by `supabase-rt gen types`; changes made by hand are lost."""
'''


@dataclasses.dataclass
class _Names:
    """The names of classes and enums in the module, and those renamed after a collision."""

    classes: dict[SchemaTable, str]
    enums: dict[Enum, str]
    collisions: list[str]
    kinds: set[str] = dataclasses.field(default_factory=set)
    """The Python types in use, for the imports."""


def render(schema: Schema) -> tuple[str, list[str]]:
    """Returns the text of the module, and one line for each name renamed after a collision."""
    names = _name(schema)
    # The body comes first, because it determines the imports.
    body = [part for enum, name in names.enums.items() for part in ("", "", *_enum(enum, name))]
    for table in schema.tables:
        body += _table(table, names)
    lines = [*_head(schema, names), *body]
    return "\n".join(lines).rstrip() + "\n", [printable(line) for line in names.collisions]


def _name(schema: Schema) -> _Names:
    collisions: list[str] = []
    tables = list(schema.tables)
    wanted = [class_name(table.name) for table in tables]
    twice = {name for name in wanted if wanted.count(name) > 1}
    schemas = {table.schema for table in tables}
    if len(schemas) > 1:
        wanted = [
            class_name(f"{table.schema}_{table.name}") if name in twice else name
            for table, name in zip(tables, wanted, strict=True)
        ]
    given = unique(wanted, MODULE)
    for table, before, name in zip(tables, wanted, given, strict=True):
        if before != name:
            collisions.append(f"table {table.schema}.{table.name} is {name}: {before} is taken")
    enums = sorted(
        {column.enum for table in tables for column in table.columns if column.enum},
        key=lambda enum: (enum.schema, enum.name, enum.values),
    )
    rows = [f"{name}{ending}" for name in given for ending in ENDINGS]
    wanted = [class_name(enum.name) for enum in enums]
    enum_names = unique(wanted, [*rows, *MODULE])
    for enum, before, name in zip(enums, wanted, enum_names, strict=True):
        if before != name:
            collisions.append(f"type {enum.schema}.{enum.name} is {name}: {before} is taken")
    return _Names(
        dict(zip(tables, given, strict=True)),
        dict(zip(enums, enum_names, strict=True)),
        collisions,
    )


def _head(schema: Schema, names: _Names) -> Iterator[str]:
    schemas = sorted({table.schema for table in schema.tables}) or ["nothing"]
    yield HEADER.format(schemas=_comment("schema " + ", ".join(schemas)))
    yield "from __future__ import annotations"
    yield ""
    kinds = {kind.partition(".")[0] for kind in names.kinds} | (
        {"StrEnum"} if names.enums else set()
    )
    lines = [line for name, line in IMPORTS.items() if name in kinds]
    if schema.tables:
        lines.append("from dataclasses import dataclass, field")
        lines.append(f"from typing import {'Any, ' if 'Any' in kinds else ''}ClassVar")
    yield from sorted(lines, key=_module)
    if schema.tables:
        yield ""
        yield "from dataclasses_json import DataClassJsonMixin"
        yield ""
        yield "from supabase_rt.rows import UNSET, pg"


def _module(line: str) -> tuple[bool, str]:
    return line.startswith("from"), line.split()[1]


def _comment(text: str) -> str:
    """Returns a database comment made safe for a docstring."""
    words = printable(" ".join(text.split()), None)
    # A quote could end the docstring, and a backslash could escape its end.
    return words.replace("\\", "\\\\").replace('"', "'")


def _quoted(text: str) -> str:
    """Returns a literal, in double quotes if that needs no escape."""
    found = repr(text)
    return found if found[0] == '"' or '"' in found else f'"{found[1:-1]}"'


def _enum(enum: Enum, name: str) -> Iterator[str]:
    yield f"class {name}(StrEnum):"
    yield f'    """{_comment(f"The type {enum.schema}.{enum.name}")}."""'
    yield ""
    members = unique(member_name(value) for value in enum.values)
    for member, value in zip(members, enum.values, strict=True):
        yield f"    {member} = {_quoted(value)}"


def _table(table: SchemaTable, names: _Names) -> Iterator[str]:
    name = names.classes[table]
    wanted = (field_name(column.name) for column in table.columns)
    fields = unique(wanted, names.enums.values())
    for column, given in zip(table.columns, fields, strict=True):
        if field_name(column.name) != given:
            where = f"{table.schema}.{table.name}.{column.name}"
            names.collisions.append(f"column {where} is {given}: the name is taken")
    pairs = list(zip(table.columns, fields, strict=True))
    yield from _class(f"{name}Row", f"A row of {table.schema}.{table.name}.", table)
    yield from (_field(column, given, names, False) for column, given in pairs)
    if not table.writable:
        return
    pairs = [(column, given) for column, given in pairs if not column.generated]
    yield from _class(f"{name}Insert", f"What to insert into {table.schema}.{table.name}.", table)
    yield from (_field(column, given, names, column.optional) for column, given in pairs)
    yield from _class(f"{name}Update", f"What to change in {table.schema}.{table.name}.", table)
    yield from (_field(column, given, names, True) for column, given in pairs)


def _class(name: str, summary: str, table: SchemaTable) -> Iterator[str]:
    yield ""
    yield ""
    yield "@dataclass(kw_only=True)"
    yield f"class {name}(DataClassJsonMixin):"
    about = _comment(table.comment)
    if name.endswith("Row") and about:
        yield f'    """{_comment(summary)}'
        yield ""
        yield f"    {about}"
        yield '    """'
    else:
        yield f'    """{_comment(summary)}"""'
    yield ""
    yield f"    __schema__: ClassVar[str] = {_quoted(table.schema)}"
    yield f"    __table__: ClassVar[str] = {_quoted(table.name)}"
    yield f"    __primary_key__: ClassVar[tuple[str, ...]] = {_keys(table)}"
    yield ""


def _keys(table: SchemaTable) -> str:
    keys = [_quoted(name) for name in table.primary_key]
    return f"({', '.join(keys)}{',' if len(keys) == 1 else ''})"


def _field(column: Column, given: str, names: _Names, optional: bool) -> str:
    known = "Any" if column.opaque else PYTHON.get(column.type, "str")
    element = kind = names.enums[column.enum] if column.enum else known
    names.kinds.add(kind)
    # A table may declare more dimensions than Postgres allows.
    for _ in range(min(column.dimensions, DIMENSIONS) if column.is_array else 0):
        kind = f"list[{kind}]"
    if column.nullable and kind != "Any":
        kind += " | None"
    arguments = []
    if column.enum is None and column.is_array and element != "Any":
        # An array always needs a converter: dataclasses-json would turn a null element into text.
        arguments.append(_quoted(f"_{column.type}"))
    elif kind != "Any" and column.enum is None and column.type in CONVERTED:
        arguments.append(_quoted(column.type))
    if given != column.name:
        arguments.append(f"name={_quoted(column.name)}")
    line = f"    {given}: {kind}"
    if optional:
        line += f" = field(default=UNSET, metadata=pg({', '.join(arguments)}))"
    elif arguments:
        line += f" = field(metadata=pg({', '.join(arguments)}))"
    about = _comment(column.comment)
    return f"{line}  # {about}" if about else line
