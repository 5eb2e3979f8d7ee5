"""The tables of the status page when the server has no database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..._tables.table_writer import Publisher
from ..._tables.tables import Tables
from .page import RowRefused

__all__ = ["MadeUpRows"]


class MadeUpRows:
    """``EditableRows`` of tables in this process."""

    def __init__(self, tables: Tables, publisher: Publisher) -> None:
        self._tables = tables
        self._publisher = publisher

    async def tables(self) -> Sequence[str]:
        """Returns every table that was declared or written to."""
        return sorted(f"{table.schema}.{table.name}" for table in self._tables.all())

    async def insert(self, schema: str, table: str, record: Mapping[str, Any]) -> Any:
        """Publish the row as ``LocalRealtime.insert`` does."""
        try:
            self._publisher.insert(schema, table, record)
        except (TypeError, ValueError, KeyError) as exc:
            problem = str(exc)
        else:
            return dict(record)
        raise RowRefused(problem)
