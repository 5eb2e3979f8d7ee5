"""The change feed without a database: subscriptions, and the channels that get a row change.

Channels call ``subscribe`` and ``unsubscribe`` only, and ``subscribe`` answers by a callback.
So ``DatabaseFeed``, which reads a real Postgres, can replace this feed. See
docs/protocol.md#9-database-changes.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from ..._wire.json_codec import dumps
from ..activity import Activity, Happening
from .column_types import exact
from .filter_matching import (
    RAISED,
    Condition,
    FilterError,
    check,
    check_alone,
    parse,
    passes,
    quoted,
)
from .patterns import PatternError, matches_like
from .tables import Row, Table, Tables

__all__ = [
    "NO_KEY",
    "SMALL_VALUE",
    "TOO_LARGE",
    "UNABLE",
    "Change",
    "ChangeFeed",
    "ServerBinding",
    "ServerFeed",
    "SubscribeFailed",
    "Subscriber",
    "entry_id",
    "names",
    "timestamp",
]

WILDCARD_SELECT = (
    "Column selection is not supported for wildcard subscriptions. "
    "Provide an explicit schema and table name."
)
SELECT_SHAPE = (
    "Error parsing `select` params: expected a list of column name strings, "
    'e.g. select: ["col1", "col2"]'
)
NO_PARAMS = (
    "No subscription params provided. "
    "Please provide at least a `schema` or `table` to subscribe to: "
)
UNABLE = "Unable to subscribe to changes with given parameters. "
NO_KEY = "Error 400: Bad Request, no primary key"
TOO_LARGE = "Error 413: Payload Too Large"
SMALL_VALUE = 64


def entry_id(entry: Mapping[str, Any]) -> int:
    """Returns the id of a binding; equal entries have equal ids."""
    return zlib.crc32(dumps(sorted(entry.items()))) & 0x7FFFFFF


def timestamp(moment: dt.datetime) -> str:
    """Returns a commit timestamp as text: UTC with milliseconds and Z."""
    utc = moment.astimezone(dt.UTC).replace(tzinfo=None)
    return utc.isoformat(timespec="milliseconds") + "Z"


def names(wanted_schema: str, wanted_table: str, schema: str, table: str) -> bool:
    """Returns True if the two patterns of a binding match a schema and a table."""
    try:
        return all(
            wanted == "*" or matches_like(wanted, name, escapes=False)
            for wanted, name in ((wanted_schema, schema), (wanted_table, table))
        )
    except PatternError:
        # Only a pattern longer than any table name is refused.
        return False


class SubscribeFailed(Exception):
    """A subscription that is refused, with the message for the ``system`` error."""


@dataclasses.dataclass(frozen=True)
class ServerBinding:
    """One entry of ``postgres_changes`` in a join, parsed."""

    id: int
    event: str
    schema: str
    table: str
    conditions: tuple[Condition, ...] = ()
    select: tuple[str, ...] | None = None

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> ServerBinding:
        """Read an entry (docs/protocol.md#bindings); raises ``SubscribeFailed``."""
        names = {key: entry[key] for key in ("schema", "table", "filter") if key in entry}
        if not {"schema", "table"} & names.keys() or not all(
            isinstance(value, str) for value in names.values()
        ):
            raise SubscribeFailed(NO_PARAMS + _elixir_map(entry))
        event = str(entry.get("event", "*")).upper()
        return cls(
            entry_id(entry),
            event if event in ("INSERT", "UPDATE", "DELETE") else "*",
            names.get("schema", "public"),
            names.get("table", "*"),
            cls._conditions(names),
            cls._select(entry),
        )

    @staticmethod
    def _conditions(names: Mapping[str, str]) -> tuple[Condition, ...]:
        if not {"schema", "table"} <= names.keys():
            return ()
        try:
            return parse(names.get("filter", ""))
        except FilterError as exc:
            problem = str(exc)
        raise SubscribeFailed(problem)

    @staticmethod
    def _select(entry: Mapping[str, Any]) -> tuple[str, ...] | None:
        select = entry.get("select", [])
        if not isinstance(select, list):
            raise SubscribeFailed(SELECT_SHAPE)
        names = tuple(name for name in select if isinstance(name, str))
        if names and (entry.get("schema", "*") == "*" or entry.get("table", "*") == "*"):
            raise SubscribeFailed(WILDCARD_SELECT)
        return names or None

    def covers(self, table: Table) -> bool:
        """Returns True if this binding matches a table; its names are LIKE patterns."""
        return self.names(table.schema, table.name)

    def names(self, schema: str, table: str) -> bool:
        """Returns True if this binding matches these names."""
        return names(self.schema, self.table, schema, table)

    def shown(self) -> str:
        """Returns the binding as the server's error messages print it."""
        filters = ", ".join(condition.shown() for condition in self.conditions)
        select = "nil" if self.select is None else f"[{', '.join(map(quoted, self.select))}]"
        return (
            f"[event: {self.event}, schema: {self.schema}, table: {self.table}, "
            f"filters: [{filters}], select: {select}]"
        )


def _elixir_map(entry: Mapping[str, Any]) -> str:
    pairs = (f"{quoted(key)} => {_elixir(value)}" for key, value in sorted(entry.items()))
    return "%{" + ", ".join(pairs) + "}"


def _elixir(value: Any) -> str:
    if value is None:
        return "nil"
    return quoted(value) if isinstance(value, str) else dumps(value).decode()


@dataclasses.dataclass(frozen=True)
class Change:
    """One committed row change; ``old`` has all known columns of the old row."""

    table: Table
    type: str
    record: Row | None
    old: Row | None
    commit_timestamp: str
    errors: tuple[str, ...] = ()

    def filter_row(self, key_only: bool) -> Row:
        """Returns the row that filters are tried on."""
        if self.record is not None:
            return self.record
        return self.table.identity(self.old or {}, key_only=key_only)


class Subscriber(Protocol):
    """A channel, as the feed sees it."""

    @property
    def connection(self) -> int:
        """The number of its socket."""

    def change_claims(self) -> Mapping[str, Any]:
        """Returns the claims for row level security."""

    def deliver_change(self, kind: str, ids: Sequence[int], data: msgspec.Raw) -> None:
        """Send one encoded change, with the ids of the matching bindings."""

    def changes_missed(self, problem: str) -> None:
        """Report that changes for this channel could not be sent; later ones still are."""


class ServerFeed(Protocol):
    """A change feed, as channels see it."""

    def subscribe(
        self,
        subscriber: Subscriber,
        entries: Sequence[Mapping[str, Any]],
        done: Callable[[str | None], None],
    ) -> None:
        """Subscribe to all entries or none; ``done`` gets the error text, or None."""

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """Forget a channel; an unknown one is ignored."""


class ChangeFeed:
    """Sends changes published from Python to the channels whose bindings match."""

    def __init__(
        self,
        *,
        strict: bool = False,
        max_record_bytes: int = 1_048_576,
        activity: Activity | None = None,
    ) -> None:
        self._activity = activity or Activity()
        self.tables: Tables = Tables()
        self._strict = strict
        self._max_record_bytes = max_record_bytes
        self._subscriptions: dict[Subscriber, tuple[ServerBinding, ...]] = {}

    def subscribe(
        self,
        subscriber: Subscriber,
        entries: Sequence[Mapping[str, Any]],
        done: Callable[[str | None], None],
    ) -> None:
        """Subscribe to all entries or none; ``done`` gets the error text, or None."""
        self.unsubscribe(subscriber)
        try:
            bindings = tuple(ServerBinding.read(entry) for entry in entries)
            for binding in bindings:
                self._check(binding)
        except SubscribeFailed as exc:
            done(str(exc))
            return
        self._subscriptions[subscriber] = bindings
        done(None)

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """Forget a channel; an unknown one is ignored."""
        self._subscriptions.pop(subscriber, None)

    def _check(self, binding: ServerBinding) -> None:
        covered = [table for table in self.tables.declared() if binding.covers(table)]
        if self._strict and not covered:
            raise SubscribeFailed(
                f"{UNABLE}Please check Realtime is enabled for the given connect parameters: "
                f"{binding.shown()}"
            )
        try:
            for table in covered:
                _check_table(binding, table)
            if not covered:
                for condition in binding.conditions:
                    check_alone(condition)
        except FilterError as exc:
            problem = str(exc)
        else:
            return
        raise SubscribeFailed(
            f"{UNABLE}An exception happened so please check your connect parameters: "
            f"{binding.shown()}. Exception: {problem}"
        )

    def publish(self, change: Change) -> int:
        """Send a change to all channels that match; returns their number."""
        if change.table.declared and not change.table.primary_key and change.type != "DELETE":
            change = dataclasses.replace(change, errors=(NO_KEY,))
        encoded: dict[tuple[str, ...] | None, msgspec.Raw] = {}
        reached = 0
        for subscriber, bindings in list(self._subscriptions.items()):
            groups = self._matching(change, subscriber, bindings)
            for select, ids in groups.items():
                if select not in encoded:
                    encoded[select] = msgspec.Raw(dumps(self._data(change, select)))
                subscriber.deliver_change(change.type, ids, encoded[select])
            reached += bool(groups)
        if self._activity.watched:
            name, row = f"{change.table.schema}.{change.table.name}", change.record or change.old
            found = Happening("change", None, name, change.type, content=row, reached=reached)
            self._activity.report(found)
        return reached

    def _matching(
        self, change: Change, subscriber: Subscriber, bindings: Sequence[ServerBinding]
    ) -> dict[tuple[str, ...] | None, list[int]]:
        """Returns the ids of the matching bindings, grouped by the columns they select."""
        table = change.table
        row = change.filter_row(table.visible is not None)
        found: dict[tuple[str, ...] | None, list[int]] = {}
        for binding in bindings:
            if binding.event not in ("*", change.type) or not binding.covers(table):
                continue
            if change.errors or passes(binding.conditions, row, table.columns):
                found.setdefault(binding.select, []).append(binding.id)
        # Row level security comes last. It cannot check the row of a DELETE, which is gone
        # (docs/protocol.md#old-rows).
        if found and table.visible and change.record is not None:
            return found if table.visible(subscriber.change_claims(), change.record) else {}
        return found

    def _data(self, change: Change, select: tuple[str, ...] | None) -> dict[str, Any]:
        table, failed = change.table, bool(change.errors)
        shown = [
            name
            for name in ([] if failed else table.columns)
            if select is None or name in select or name in table.primary_key
        ]
        data: dict[str, Any] = {"table": table.name, "type": change.type}
        if change.record is not None:
            data["record"] = _pick(change.record, shown)
        data["columns"] = [{"name": name, "type": table.columns[name]} for name in shown]
        data["errors"] = list(change.errors) or None
        data["schema"] = table.schema
        data["commit_timestamp"] = None if failed else change.commit_timestamp
        if change.type != "INSERT":
            protected = change.type == "DELETE" and table.visible is not None
            old = change.old or change.record or {}
            data["old_record"] = _pick(table.identity(old, key_only=protected), shown)
        return self._cut(data)

    def _cut(self, data: dict[str, Any]) -> dict[str, Any]:
        """Reduce a change that is too large to its small values.

        See docs/protocol.md#errors-inside-a-change.
        """
        if len(dumps(data)) <= self._max_record_bytes:
            return data
        for part in ("record", "old_record"):
            if part in data:
                data[part] = {k: v for k, v in data[part].items() if _is_small(v)}
        data["errors"] = [TOO_LARGE]
        return data


def _check_table(binding: ServerBinding, table: Table) -> None:
    """Check a binding against the columns of a table; raises ``FilterError``."""
    for condition in binding.conditions:
        check(condition, table.columns)
    for name in binding.select or ():
        if name not in table.columns:
            raise FilterError(f"{RAISED}invalid column for select {name}")


def _pick(row: Row, names: Sequence[str]) -> Row:
    return {name: exact(row[name]) for name in names if name in row}


def _is_small(value: Any) -> bool:
    return value is not None and len(dumps(value)) <= SMALL_VALUE
