"""``Backfill``: the option that says what to read, and how, when changes were missed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from .._protocol.channel_options import check_seconds
from .._stores.protocols import BackfillStore
from .pages import BackfillPage, carried_over
from .progress import Progress

__all__ = ["Backfill", "Fetcher"]

Fetcher: TypeAlias = Callable[[BackfillPage], Awaitable[Sequence[Mapping[str, Any]]]]

PAGE = 500
MOST_ROWS = 1000
"""The most rows that a project of Supabase sends in one answer by default."""


@dataclass(frozen=True, slots=True)
class Backfill:
    """Reads missed rows from the table of a handler: ``on(..., backfill=Backfill("id"))``.

    After every subscription and rejoin, the rows behind the last handled one are read. The same
    handler gets them in order, with ``change.backfilled`` true, before the changes that came live
    in the meantime. Rows that were handled already are dropped.

    Every INSERT that is committed within ``overlap`` of its neighbours is handled at least once.
    UPDATEs need a cursor that every update moves on, such as ``updated_at``; a row that changed
    several times is shown as it is now. DELETEs cannot be read; a ``gap`` event reports them.

    Args:
        cursor: a column that grows with every row (``"id"``, ``"created_at"``) or with every
            change of a row (``"updated_at"``): a number, a time, or text that sorts by bytes.
        key: the column of the primary key, or several.
        fetch: an async function that reads a ``BackfillPage`` from elsewhere. By default rows
            come from PostgREST, with the key and the token of the client.
        overlap: ``(rows, seconds)`` that are read once more; the one that reaches further counts.
            Transactions do not commit in the order of their numbers.
        store: keeps the progress when the program restarts, such as ``SqliteStore``.
        name: the name in the store; by default made from the topic, the table and the filter.
        url: the URL of PostgREST if it is not beside Realtime: ``https://x.supabase.co/rest/v1``.
    """

    cursor: str
    key: str | Sequence[str] = "id"
    fetch: Fetcher | None = None
    overlap: tuple[int, float] = (500, 60.0)
    store: BackfillStore | None = None
    name: str | None = None
    url: str | None = None

    def __post_init__(self) -> None:
        key = (self.key,) if isinstance(self.key, str) else tuple(self.key)
        if not key or not all(isinstance(column, str) and column for column in (self.cursor, *key)):
            raise ValueError(f"cursor and key are names of columns, not {self.cursor!r}, {key!r}")
        object.__setattr__(self, "key", key)
        if self.fetch is not None and not callable(self.fetch):
            raise TypeError(f"fetch is an async function, not {type(self.fetch).__name__}")
        if self.url is not None and not str(self.url).startswith(("http://", "https://")):
            raise ValueError("url is that of PostgREST, such as https://x.supabase.co/rest/v1")
        if not isinstance(self.overlap, tuple | list) or len(self.overlap) != 2:
            raise ValueError(f"overlap is (rows, seconds), not {self.overlap!r}")
        rows, seconds = self.overlap
        if isinstance(rows, bool) or not isinstance(rows, int) or not 0 <= rows < MOST_ROWS:
            raise ValueError(f"overlap[0] is a number of rows below {MOST_ROWS}, not {rows!r}")
        if seconds != 0:
            check_seconds("overlap[1]", seconds)

    def new_progress(self) -> Progress:
        """Makes the progress of a handler that has handled nothing yet."""
        rows, seconds = self.overlap
        return Progress(self.cursor, self.key, rows=rows, seconds=float(seconds), page=PAGE)

    def page(self, filter: Mapping[str, Any]) -> BackfillPage:
        """Returns the first page for a binding; raises ``ValueError`` if it cannot be read."""
        table, event = filter.get("table"), str(filter.get("event", "*")).upper()
        if not table or table == "*" or "%" in table or filter.get("schema") == "*":
            raise ValueError("a backfill reads one table: name it in the filter")
        order = self.new_progress().columns
        if event == "DELETE" or (event == "UPDATE" and self.cursor in self.key):
            raise ValueError(
                f"{event} cannot be backfilled by {self.cursor!r}: deleted rows are not there to "
                "be read, and updated ones only by a cursor such as 'updated_at'"
            )
        select = filter.get("select")
        if select is not None:
            select = tuple(dict.fromkeys([*select, *order]))
        page = BackfillPage(
            filter.get("schema", "public"), table, order, filter.get("filter"), select
        )
        if self.fetch is None and page.filter:
            carried_over(page.filter)
        return page
