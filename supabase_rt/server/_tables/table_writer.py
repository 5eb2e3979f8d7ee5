"""Row changes made in Python, published through the change feed."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from .change_feed import Change, ChangeFeed, timestamp
from .column_types import wire
from .tables import Row, Table

__all__ = ["Publisher"]

IDENTITIES = ("default", "full")


def _wired(row: Mapping[str, Any]) -> Row:
    return {name: wire(value) for name, value in row.items()}


def _picked(row: Row, names: Sequence[str]) -> Row:
    return {name: row[name] for name in names if name in row}


class Publisher:
    """Publishes inserts, updates and deletes as a database would."""

    def __init__(self, feed: ChangeFeed) -> None:
        self._feed = feed

    def declare(self, table: Table) -> Table:
        """Add a table; raises ``ValueError`` if its description contradicts itself."""
        if table.replica_identity not in IDENTITIES:
            raise ValueError(f"replica_identity is one of {', '.join(IDENTITIES)}")
        missing = [name for name in table.primary_key if name not in table.columns]
        if missing:
            raise ValueError(f"primary key column {missing[0]!r} is not among the columns")
        return self._feed.tables.declare(table)

    def _table(self, schema: str, name: str, *rows: Mapping[str, Any] | None) -> Table:
        table = self._feed.tables.get(schema, name)
        for row in rows:
            if row is not None:
                table.learn(row)
        return table

    def insert(self, schema: str, name: str, record: Mapping[str, Any], **about: Any) -> int:
        """Publish a new row; returns the number of channels reached, like all of these methods."""
        table = self._table(schema, name, record)
        row = table.complete(record)
        table.keep(row)
        return self._publish(table, "INSERT", row, None, **about)

    def update(
        self,
        schema: str,
        name: str,
        new: Mapping[str, Any],
        where: Mapping[str, Any] | None,
        old: Mapping[str, Any] | None,
        **about: Any,
    ) -> int:
        """Publish rows with new values."""
        table = self._table(schema, name, old, where, new)
        changed = _wired(new)
        if old is not None:
            rows: list[Row] = [_wired(old)]
        elif where is not None:
            rows = table.find(where)
        else:
            known = table.known(new)
            # Only the key is known of a row that was never inserted here.
            rows = [known or _picked(changed, table.primary_key)]
        reached = 0
        for row in rows:
            table.forget(row)
            record = dict.fromkeys(table.columns) | row | changed
            table.keep(record)
            reached += self._publish(table, "UPDATE", record, row, **about)
        return reached

    def delete(
        self,
        schema: str,
        name: str,
        where: Mapping[str, Any] | None,
        old: Mapping[str, Any] | None,
        **about: Any,
    ) -> int:
        """Publish deleted rows."""
        given = old if old is not None else where
        if given is None:
            raise TypeError("delete needs the values of the rows to delete")
        table = self._table(schema, name, given)
        rows = [] if old is not None else table.find(given)
        reached = 0
        for row in rows or [_wired(given)]:
            table.forget(row)
            reached += self._publish(table, "DELETE", None, row, **about)
        return reached

    def _publish(
        self,
        table: Table,
        kind: str,
        record: Row | None,
        old: Row | None,
        *,
        commit_timestamp: dt.datetime | None = None,
        errors: Sequence[str] = (),
    ) -> int:
        moment = timestamp(commit_timestamp or dt.datetime.now(dt.UTC))
        return self._feed.publish(Change(table, kind, record, old, moment, tuple(errors)))
