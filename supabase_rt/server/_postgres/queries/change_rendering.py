"""Row changes rendered as the JSON that subscribers get.

See docs/protocol.md#the-event, docs/protocol.md#old-rows, docs/protocol.md#errors-inside-a-change.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence

import msgspec
import psycopg

from ..._tables.change_feed import NO_KEY, SMALL_VALUE, TOO_LARGE
from ..._tables.filter_matching import Condition
from ..replication.row_changes import Image, RowChange
from .catalog import Field, Shape
from .filter_sql import condition_sql, escaped

__all__ = ["Evaluated", "Rendered", "encode", "error_for", "evaluate"]

NOT_ALLOWED = "Error 401: Unauthorized"

FEW = 2

Rendered = Mapping[str, str]
"""The JSON texts of a row's values by column."""


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """A row with its values as JSON, and the results of the conditions for it."""

    values: Rendered
    holds: Mapping[Condition, bool]


async def evaluate(
    conn: psycopg.AsyncConnection,
    shape: Shape,
    images: Sequence[Image],
    conditions: Sequence[Condition],
    *,
    shown: bool = True,
) -> list[Evaluated]:
    """Have the database render all values as JSON and evaluate all conditions, in one statement.

    Without ``shown`` it only evaluates the conditions.
    """
    tried_on = {condition.column for condition in conditions}
    fields = [field for field in shape.fields if shown or field.name in tried_on]
    numbers = {field.name: number for number, field in enumerate(fields)}
    tried = [condition for condition in conditions if condition.column in numbers]
    if not fields:
        return [Evaluated({}, {}) for _ in images]
    parameters: dict[str, object] = {
        f"c{number}": [image.get(field.name) for image in images]
        for number, field in enumerate(fields)
    }
    tests = []
    for index, condition in enumerate(tried):
        number = numbers[condition.column]
        test, parameters[f"v{index}"] = condition_sql(
            condition, f"c{number}", fields[number].cast, f"%(v{index})s"
        )
        tests.append(test)
    to_show = fields if shown else []
    if len(images) <= FEW:
        rows_of, parameters = _as_values(fields, images, parameters)
    else:
        arrays = ", ".join(f"%(c{number})s::text[]" for number in range(len(fields)))
        rows_of = f"unnest({arrays}) with ordinality"
    texts = ", ".join(_as_json(field, f"c{number}") for number, field in enumerate(to_show))
    names = ", ".join(f"c{number}" for number in range(len(fields)))
    query = (
        f"select array[{texts}]::text[], array[{', '.join(tests)}]::boolean[]"
        f" from {rows_of} as found({names}, nth) order by nth"
    )
    rows = await (await conn.execute(query.encode(), parameters)).fetchall()
    return [
        _evaluated(to_show, image, found, tried, passed)
        for image, (found, passed) in zip(images, rows, strict=True)
    ]


def _as_values(
    fields: Sequence[Field], images: Sequence[Image], parameters: Mapping[str, object]
) -> tuple[str, dict[str, object]]:
    """Pass a few rows one by one: Postgres parses a large text faster than an array with it."""
    found = {name: value for name, value in parameters.items() if name.startswith("v")}
    rows = []
    for nth, image in enumerate(images):
        names = [f"r{nth}_{number}" for number in range(len(fields))]
        found |= zip(names, (image.get(field.name) for field in fields), strict=True)
        cells = ", ".join(f"%({name})s::text" for name in names)
        rows.append(f"({cells}, {nth})")
    return f"(values {', '.join(rows)})", found


def _as_json(field: Field, column: str) -> str:
    if field.type == "bytea":
        return f"to_jsonb(encode({column}::bytea, 'hex'))::text"
    return f"to_jsonb({column}::{escaped(field.cast)})::text"


def _evaluated(
    fields: Sequence[Field],
    image: Image,
    texts: Sequence[str | None],
    tried: Sequence[Condition],
    passed: Sequence[bool | None],
) -> Evaluated:
    values = {
        field.name: "null" if text is None else text
        for field, text in zip(fields, texts, strict=True)
        if field.name in image
    }
    # NULL and a column that is not in the WAL never match, not even a negated condition.
    holds = {
        condition: result is True and condition.column in image
        for condition, result in zip(tried, passed, strict=True)
    }
    return Evaluated(values, holds)


def error_for(shape: Shape, change: RowChange, role: str) -> str | None:
    """Returns the error that a role gets instead of a change's contents, if any."""
    if change.new is None:
        return None
    if not shape.key:
        return NO_KEY
    return None if all(role in field.readers for field in shape.key) else NOT_ALLOWED


def encode(
    shape: Shape,
    change: RowChange,
    rows: tuple[Rendered | None, Rendered | None],
    role: str,
    select: tuple[str, ...] | None,
    *,
    max_bytes: int,
) -> msgspec.Raw:
    """Encode the ``data`` of an event for one role and one selection of columns.

    ``rows`` are the new and the old row. A change over ``max_bytes`` keeps its small values only.
    """
    new, old = rows
    problem = error_for(shape, change, role)
    fields = [] if problem else _visible(shape, role, select)
    if problem is None and change.size() > max_bytes:
        problem = TOO_LARGE
        new, old = _small(new), _small(old)
    failed = not fields
    parts = [f'"table":{_json(shape.name)}', f'"type":{_json(change.type)}']
    if new is not None:
        parts.append(f'"record":{_object(new, fields)}')
    columns = ", ".join(
        f'{{"name": {_json(field.name)}, "type": {_json(field.type)}}}' for field in fields
    )
    parts.append(f'"columns":[{columns}]')
    parts.append(f'"errors":{_json([problem] if problem else None)}')
    parts.append(f'"schema":{_json(shape.schema)}')
    moment = None if failed and problem else change.commit_timestamp
    parts.append(f'"commit_timestamp":{_json(moment)}')
    if old is not None:
        # Row level security cannot check a deleted row, so only its key is sent.
        protected = shape.protected and change.new is None
        kept = [field for field in fields if field.is_key] if protected else fields
        parts.append(f'"old_record":{_object(old, kept)}')
    return msgspec.Raw(("{" + ",".join(parts) + "}").encode())


def _visible(shape: Shape, role: str, select: tuple[str, ...] | None) -> list[Field]:
    return [
        field
        for field in shape.fields
        if role in field.readers and (select is None or field.is_key or field.name in select)
    ]


def _small(values: Rendered | None) -> Rendered | None:
    if values is None:
        return None
    return {
        name: text
        for name, text in values.items()
        if text != "null" and len(text.encode()) <= SMALL_VALUE
    }


def _object(values: Rendered, fields: Sequence[Field]) -> str:
    # The order of keys in jsonb, which the real server builds its rows with.
    names = sorted(
        (field.name for field in fields if field.name in values),
        key=lambda name: (len(name.encode()), name.encode()),
    )
    return "{" + ", ".join(f"{_json(name)}: {values[name]}" for name in names) + "}"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
