"""Who sees a change (protocol reference, section 9.5)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import psycopg
from psycopg import sql

from ..changes import Binding, Subscriber, names
from ..filters import Condition
from .catalog import Shape
from .claims import act_as
from .conditions import escaped
from .images import RowChange
from .render import Evaluated, error_for

__all__ = ["Delivery", "Subscription", "conditions_of", "deliveries", "visible_rows"]

Select = tuple[str, ...] | None

LONGEST_NAMES = 256
"""Characters of the names in a binding that is remembered; those of Postgres end at 63 bytes each.
Neither the filter nor a name of megabytes is kept for those who have long gone."""


@dataclasses.dataclass(frozen=True, eq=False)
class Subscription:
    """The bindings of one channel; changes committed before ``since`` (an LSN) are not its."""

    subscriber: Subscriber
    role: str
    claims: Mapping[str, Any]
    bindings: tuple[Binding, ...]
    since: int

    def covering(self, schema: str, table: str) -> list[Binding]:
        """The bindings for a table."""
        return [each for each in self.bindings if _covers(each, schema, table)]


def _covers(binding: Binding, schema: str, table: str) -> bool:
    if len(binding.schema) + len(binding.table) > LONGEST_NAMES:
        return names(binding.schema, binding.table, schema, table)
    return _known(binding.schema, binding.table, schema, table)


@functools.lru_cache(maxsize=10_000)
def _known(wanted_schema: str, wanted_table: str, schema: str, table: str) -> bool:
    return names(wanted_schema, wanted_table, schema, table)


@dataclasses.dataclass(frozen=True)
class Delivery:
    """One change for one channel: the ids of the bindings that match, by what they select."""

    nth: int
    subscription: Subscription
    groups: Mapping[Select, Sequence[int]]


def conditions_of(
    subscriptions: Iterable[Subscription], schema: str, table: str
) -> list[Condition]:
    """All conditions that changes of a table have to be tried with, each once."""
    found = {
        condition: None
        for subscription in subscriptions
        for binding in subscription.covering(schema, table)
        for condition in binding.conditions
    }
    return list(found)


def deliveries(
    shape: Shape,
    changes: Sequence[RowChange],
    rows: Sequence[Evaluated],
    subscriptions: Iterable[Subscription],
) -> list[Delivery]:
    """Who would get which change by bindings and filters; ``rows`` are those filters look at."""
    found = []
    for subscription in subscriptions:
        bindings = subscription.covering(shape.schema, shape.name)
        for nth, (change, row) in enumerate(zip(changes, rows, strict=True)):
            if change.commit_lsn < subscription.since:
                continue
            # A change without contents goes to everyone: there is nothing to filter by.
            failed = error_for(shape, change, subscription.role) is not None
            groups: dict[Select, list[int]] = {}
            for binding in bindings:
                if binding.event in ("*", change.type) and (failed or _passes(binding, row)):
                    groups.setdefault(binding.select, []).append(binding.id)
            if groups:
                found.append(Delivery(nth, subscription, groups))
    return found


def _passes(binding: Binding, row: Evaluated) -> bool:
    return all(row.holds.get(condition, False) for condition in binding.conditions)


async def visible_rows(
    conn: psycopg.AsyncConnection,
    shape: Shape,
    claims: Mapping[str, Any],
    changes: Mapping[int, RowChange],
) -> set[int]:
    """Those of the changes whose row is there for the role and claims of a token, now."""
    key = shape.key
    parameters = {
        f"c{number}": [(change.new or {}).get(field.name) for change in changes.values()]
        for number, field in enumerate(key)
    }
    arrays = ", ".join(f"%({name})s::text[]" for name in parameters)
    same = " and ".join(
        f"seen.{_identifier(conn, field.name)} = c{number}::{escaped(field.cast)}"
        for number, field in enumerate(key)
    )
    table = f"{_identifier(conn, shape.schema)}.{_identifier(conn, shape.name)}"
    query = (
        f"select nth from unnest({arrays}) with ordinality as found({', '.join(parameters)}, nth)"
        f" where exists (select from {table} as seen where {same})"
    )
    async with conn.transaction(force_rollback=True):
        await act_as(conn, claims)
        rows = await (await conn.execute(query.encode(), parameters)).fetchall()
    numbers = list(changes)
    return {numbers[nth - 1] for (nth,) in rows}


def _identifier(conn: psycopg.AsyncConnection, name: str) -> str:
    return escaped(sql.Identifier(name).as_string(conn))
