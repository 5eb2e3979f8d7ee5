"""The Protocol that every kind of row model implements."""

from __future__ import annotations

from typing import Any, Protocol

from ..postgres_data import PostgresData

__all__ = ["RowConverter"]


class RowConverter(Protocol):
    """Turns the rows of a change into objects of the user's class."""

    def new(self, data: PostgresData) -> Any:
        """Returns the row after the change, or None for a DELETE.

        Raises ``DecodeError`` for a row that does not fit the class.
        """

    def old(self, data: PostgresData) -> Any:
        """Returns the known part of the row before the change, or None for an INSERT.

        A column that the server does not send has its default, or None. Raises ``DecodeError`` for
        a row that does not fit the class.
        """
