"""Reads the schema from PostgREST's own description at ``/rest/v1/`` (OpenAPI 2.0)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .schema import Column, Enum, Schema, SchemaError, SchemaTable

__all__ = ["read_openapi"]

TYPES = {
    "smallint": "int2",
    "integer": "int4",
    "bigint": "int8",
    "smallserial": "int2",
    "serial": "int4",
    "bigserial": "int8",
    "real": "float4",
    "double precision": "float8",
    "decimal": "numeric",
    "boolean": "bool",
    "character varying": "varchar",
    "character": "bpchar",
    "timestamp with time zone": "timestamptz",
    "timestamp without time zone": "timestamp",
    "time with time zone": "timetz",
    "time without time zone": "time",
    "bit varying": "varbit",
}
"""The name of ``format_type()``, which PostgREST shows, to ``pg_type.typname``."""

BUILT_IN = frozenset(
    re.findall(
        r"\S+",
        """
        text name char uuid date json jsonb bytea interval money bit xml inet cidr macaddr macaddr8
        oid xid xid8 cid tid pg_lsn pg_snapshot txid_snapshot jsonpath tsvector tsquery refcursor
        point line lseg box path polygon circle
        int4range int8range numrange tsrange tstzrange daterange
        int4multirange int8multirange nummultirange tsmultirange tstzmultirange datemultirange
        regclass regcollation regconfig regdictionary regnamespace regoper regoperator regproc
        regprocedure regrole regtype
        """,
    )
) | {*TYPES, *TYPES.values()}
"""The types of Postgres itself, which PostgREST names without a schema."""

EXTENSIONS = frozenset(("citext", "ltree", "lquery", "ltxtquery", "vector", "halfvec", "sparsevec"))
"""Types of extensions whose values are texts."""

BY_JSON_TYPE = {"integer": "int8", "number": "float8", "boolean": "bool", "string": "text"}
"""The type of a column without a format."""


def read_openapi(document: Any, schema: str = "public") -> Schema:
    """Read the tables and views of one schema; raises ``SchemaError`` for another document."""
    definitions = document.get("definitions") if isinstance(document, Mapping) else None
    if not isinstance(definitions, Mapping):
        raise SchemaError(
            "this is no OpenAPI description by PostgREST: it has no 'definitions'; "
            "it is what GET {url}/rest/v1/ answers"
        )
    paths = document.get("paths")
    described = {
        name: found
        for name, found in definitions.items()
        if isinstance(found, Mapping) and isinstance(found.get("properties"), Mapping)
    }
    enums = _enums(described)
    tables = [
        _table(schema, name, found, paths if isinstance(paths, Mapping) else {}, enums)
        for name, found in described.items()
    ]
    return Schema(tuple(tables))


def _enums(described: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of each enum by its format; an array of it does not list them."""
    columns = (each for found in described.values() for each in found["properties"].values())
    return {
        _text(each, "format"): each["enum"]
        for each in columns
        if isinstance(each, dict) and each.get("enum") and _text(each, "format")
    }


def _table(
    schema: str,
    name: str,
    found: Mapping[str, Any],
    paths: Mapping[str, Any],
    enums: Mapping[str, Any],
) -> SchemaTable:
    required = found.get("required") or []
    if not isinstance(required, list):
        raise _odd(name, "required", required)
    properties = {key: each for key, each in found["properties"].items() if isinstance(each, dict)}
    keys = tuple(key for key, each in properties.items() if "<pk/>" in _text(each))
    columns = tuple(
        _column(schema, name, key, each, key not in required, enums)
        for key, each in properties.items()
    )
    path = paths.get(f"/{name}")
    return SchemaTable(
        schema,
        name,
        columns,
        keys,
        # A document without paths does not show it; then the table counts as writable.
        writable=not isinstance(path, Mapping) or "post" in path,
        comment=_text(found),
    )


def _odd(table: str, word: str, found: object) -> SchemaError:
    kind = type(found).__name__
    return SchemaError(
        f"this is no OpenAPI description by PostgREST: of {table!r}, {word!r} is of type {kind}"
    )


def _text(found: Mapping[str, Any], word: str = "description") -> str:
    text = found.get(word)
    return text if isinstance(text, str) else ""


def _column(
    schema: str,
    table: str,
    name: str,
    found: Mapping[str, Any],
    nullable: bool,
    enums: Mapping[str, Any],
) -> Column:
    items = found.get("items")
    items = items if isinstance(items, Mapping) else {}
    format = _text(found, "format")
    is_array = found.get("type") == "array" or format.endswith("[]")
    element = format.removesuffix("[]")
    values = found.get("enum") or items.get("enum") or (is_array and enums.get(element))
    if values and not (isinstance(values, list) and all(isinstance(v, str) for v in values)):
        raise _odd(f"{table}.{name}", "enum", values)
    type_name = _type_name(element, items if is_array else found)
    opaque = not values and not _is_known(element)
    # PostgREST shows each default of a text, but of other types only a constant. It shows neither
    # the default of a serial or identity column nor one such as '{}'::jsonb.
    shows_default = found.get("type") == "string" and not opaque
    return Column(
        name,
        type_name,
        is_array=is_array,
        nullable=nullable,
        optional=nullable or "default" in found or not shows_default,
        enum=_enum(schema, element, name, values) if values else None,
        comment=_without_notes(_text(found)),
        opaque=opaque,
    )


def _is_known(format: str) -> bool:
    """Returns True for a type whose JSON form is known; composites and foreign types are not."""
    bare = _bare(format)
    space, _, name = bare.rpartition(".")
    name = name.strip('"')
    return not format or name in EXTENSIONS or (not space and name in BUILT_IN)


def _bare(format: str) -> str:
    """Returns the name of a type without the length or precision that may be inside it."""
    return re.sub(r"\([^()]*\)", "", format).strip()


def _type_name(format: str, found: Mapping[str, Any]) -> str:
    if not format:
        return BY_JSON_TYPE.get(_text(found, "type"), "jsonb")
    bare = _bare(format)
    return TYPES.get(bare, bare.rpartition(".")[2].strip('"'))


def _enum(schema: str, format: str, column: str, values: list[str]) -> Enum:
    space, _, name = format.rpartition(".")
    texts = tuple(dict.fromkeys(values))
    return Enum(space.strip('"') or schema, name.strip('"') or column, texts)


def _without_notes(text: str) -> str:
    """Returns a column's own comment, without PostgREST's notes about keys."""
    own, _, _ = text.partition("Note:\nThis is a ")
    return own.strip()
