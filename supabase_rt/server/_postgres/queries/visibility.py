"""The channels that receive a change (docs/protocol.md#who-receives-a-change)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import psycopg
from psycopg import sql

from ..._tables.change_feed import ServerBinding, Subscriber
from ..._tables.filter_matching import Condition
from ..pool import rolled_back
from ..replication.row_changes import RowChange
from .catalog import Shape
from .change_rendering import Evaluated, error_for
from .claims import act_as
from .filter_sql import escaped

__all__ = [
    "Delivery",
    "Subscription",
    "conditions_of",
    "deliveries",
    "needs_asking",
    "visible_rows",
]

Select = tuple[str, ...] | None


@dataclasses.dataclass(frozen=True, eq=False)
class Subscription:
    """The bindings of one channel; it gets no change committed before ``since`` (an LSN).

    ``key`` is equal for equal claims.
    """

    subscriber: Subscriber
    role: str
    claims: Mapping[str, Any] = dataclasses.field(repr=False)
    key: str = dataclasses.field(repr=False)
    bindings: tuple[ServerBinding, ...]
    since: int
    # A cache here ends with its subscription; a filter may be as large as a frame.
    _covering: dict[tuple[str, str], list[ServerBinding]] = dataclasses.field(
        default_factory=dict, repr=False
    )

    def covering(self, schema: str, table: str) -> list[ServerBinding]:
        """Returns the bindings that match a table."""
        found = self._covering.get((schema, table))
        if found is None:
            found = [each for each in self.bindings if each.names(schema, table)]
            self._covering[schema, table] = found
        return found


@dataclasses.dataclass(frozen=True)
class Delivery:
    """One change for one channel: the ids of the matching bindings, by selected columns."""

    nth: int
    subscription: Subscription
    groups: Mapping[Select, Sequence[int]]


def conditions_of(
    subscriptions: Iterable[Subscription], schema: str, table: str
) -> list[Condition]:
    """Returns all conditions to evaluate for changes of a table, each once."""
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
    rows: Sequence[Evaluated | None],
    subscriptions: Iterable[Subscription],
) -> list[Delivery]:
    """Returns the deliveries by bindings and filters, before row level security.

    ``rows`` are the rows that filters are tried on; None stands for a change that cannot be
    sent.
    """
    found = []
    for subscription in subscriptions:
        bindings = subscription.covering(shape.schema, shape.name)
        for nth, (change, row) in enumerate(zip(changes, rows, strict=True)):
            if change.commit_lsn < subscription.since:
                continue
            if row is None:
                continue
            # A change with an error instead of contents cannot be filtered; all bindings get it.
            failed = error_for(shape, change, subscription.role) is not None
            groups: dict[Select, list[int]] = {}
            for binding in bindings:
                if binding.event in ("*", change.type) and (failed or _passes(binding, row)):
                    groups.setdefault(binding.select, []).append(binding.id)
            if groups:
                found.append(Delivery(nth, subscription, groups))
    return found


def _passes(binding: ServerBinding, row: Evaluated) -> bool:
    return all(row.holds.get(condition, False) for condition in binding.conditions)


def needs_asking(shape: Shape, change: RowChange, role: str) -> bool:
    """Returns True if row level security decides on a change.

    It cannot check the deleted row of a DELETE. A change with an error instead of the row has
    nothing to protect.
    """
    return shape.protected and change.new is not None and error_for(shape, change, role) is None


async def visible_rows(
    conn: psycopg.AsyncConnection,
    shape: Shape,
    claims: Mapping[str, Any],
    changes: Mapping[int, RowChange],
) -> set[int]:
    """Returns the changes whose row a token's role and claims can see now."""
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
    async with rolled_back(conn):
        await act_as(conn, claims)
        rows = await (await conn.execute(query.encode(), parameters)).fetchall()
    numbers = list(changes)
    return {numbers[nth - 1] for (nth,) in rows}


def _identifier(conn: psycopg.AsyncConnection, name: str) -> str:
    return escaped(sql.Identifier(name).as_string(conn))
