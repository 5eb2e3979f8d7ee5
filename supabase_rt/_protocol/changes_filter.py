"""The builder of postgres_changes filters, which quotes values (docs/protocol.md#filters).

::

    postgres_changes_filter().eq("room", "a,b").gt("n", 3).build()      # room=eq."a,b",n=gt.3

Conditions are joined by commas, which mean AND to the server. A value with characters that have a
meaning in a filter is put in double quotes.
"""

from __future__ import annotations

import datetime
import enum
import re
import uuid
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, Final, Self

from .._name_hints import advice, no_attribute

__all__ = ["PostgresChangesFilter", "postgres_changes_filter"]

_COMPARISONS: Final = ("eq", "neq", "gt", "gte", "lt", "lte", "isdistinct")
_PATTERNS: Final = ("like", "ilike", "match", "imatch")
_OPERATORS: Final = (*_COMPARISONS, *_PATTERNS, "is", "in")
_KEYWORDS: Final = ("null", "true", "false", "unknown")

# These separate a column from its condition, and one condition from the next.
_NOT_IN_COLUMN: Final = re.compile(r'[,=()"]')
_NEEDS_QUOTES: Final = re.compile(r'[,()"\\]')
# The list of "in" becomes a Postgres array. There braces are structure, an empty element means no
# element, and null means NULL.
_QUOTED_IN_LIST: Final = re.compile(r"|null|.*[{}].*", re.IGNORECASE | re.DOTALL)
_ESCAPED: Final = re.compile(r'(["\\])')
_EXPONENT: Final = re.compile(r"e([+-])0*")


def _column(column: str) -> str:
    if not isinstance(column, str) or not column or column != column.strip():
        raise ValueError(f"a column is a name without blanks around it, not {column!r}")
    if _NOT_IN_COLUMN.search(column):
        raise ValueError(f'a filter cannot name a column with any of , = ( ) " in it: {column!r}')
    return column


def _operator(operator: str) -> str:
    if operator in _OPERATORS:
        return operator
    # The methods are called "in_", "is_distinct" and, in JS, "isDistinct": suggest the operator.
    guess = str(operator).lower().replace("_", "")
    hint = advice(guess, _OPERATORS, "there are")
    raise ValueError(f"unknown operator {operator!r}; {hint}")


def _float(value: float) -> str:
    """Returns a number as JavaScript writes it: 1 for 1.0, no exponent from 1e-6 to 1e21."""
    if value == 0:
        return "0"
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "Infinity" if value > 0 else "-Infinity"
    if 1e-6 <= abs(value) < 1e21:
        text = f"{Decimal(repr(value)):f}"
        return text.removesuffix(".0")
    return _EXPONENT.sub(r"e\1", repr(value))


def _decimal(value: Decimal) -> str:
    # An integer column accepts 1000 but not 1E+3.
    return f"{value:f}" if value.is_finite() and abs(value.adjusted()) < 1000 else str(value)


def _text(value: object) -> str:
    """Returns a value as text that the server casts; raises ``TypeError`` for other types."""
    match value:
        case str():
            return value
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return _float(value)
        case Decimal():
            return _decimal(value)
        case datetime.date() | datetime.time():  # a datetime is a date
            return value.isoformat()
        case uuid.UUID():
            return str(value)
        case bytes():
            # The server compares the hex digits that it would send, as text and without "\\x".
            return value.hex()
    raise TypeError(f"a filter cannot compare with a {type(value).__name__}: {value!r}")


def _quoted(text: str, *, always: bool = False) -> str:
    # JavaScript trims the byte order mark and Python does not; Python trims some more characters.
    # Needless quotes are harmless.
    if always or _NEEDS_QUOTES.search(text) or text != text.strip().strip("\ufeff"):
        return '"' + _ESCAPED.sub(r"\\\1", text) + '"'
    return text


def _element(kind: str, text: str) -> str:
    return _quoted(text, always=kind == "str" and _QUOTED_IN_LIST.fullmatch(text) is not None)


def _member(value: object) -> object:
    return value.value if isinstance(value, enum.Enum) else value


def _scalar(value: object) -> str:
    return _quoted(_text(_member(value)))


def _refuse_none(column: str, operator: str, value: Any, *, negated: bool) -> None:
    """Raises ``ValueError`` for a comparison with ``None``, and names the call that tests NULL."""
    if operator == "is":
        return
    if operator == "in":
        is_none = any(_member(each) is None for each in value)
        problem = "in a list, None matches no row, and makes its negation match none"
    else:
        is_none = _member(value) is None
        problem = f"to {operator}, None would be the text 'null'"
    if is_none:
        wants_null = (operator in ("neq", "isdistinct")) is negated
        remedy = f"is_({column!r}, None)" if wants_null else f"not_({column!r}, 'is', None)"
        raise ValueError(f"{problem}; to test for NULL, use {remedy}")


def _keyword(value: object) -> str:
    value = _member(value)
    if value is None or isinstance(value, bool):
        return _text(value)
    if isinstance(value, str) and value in _KEYWORDS:
        return value
    raise ValueError(f"is_ takes None, True, False or one of {', '.join(_KEYWORDS)}, not {value!r}")


def _identity(value: object) -> tuple[str, str]:
    """Returns the key by which duplicates in ``in_`` are found: 1 is 1.0 as in JS, but not True."""
    value = _member(value)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    kind = "number" if number else "str" if isinstance(value, str) else type(value).__name__
    return kind, _text(value)


def _members(values: object) -> list[object]:
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise TypeError(f"in_ takes a list of values, not {values!r}")
    return list(values)


def _list(values: list[object]) -> str:
    distinct = dict.fromkeys(_identity(value) for value in values)
    if not distinct:
        raise ValueError("the filter in_ needs at least one value")
    return f"({','.join(_element(kind, text) for kind, text in distinct)})"


def _condition(operator: str, value: Any) -> str:
    if operator == "in":
        return _list(value)
    if operator == "is":
        return _keyword(value)
    return _scalar(value)


class PostgresChangesFilter:
    """Builds the ``filter`` of a postgres_changes binding; each method returns the builder.

    Values are ``str``, ``int``, ``float``, ``bool``, ``Decimal``, ``datetime``, ``date``,
    ``time``, ``UUID``, ``bytes`` or members of an ``Enum`` of these. Other values raise
    ``TypeError``. ``None`` raises ``ValueError`` in all methods but ``is_``, which tests for NULL.
    So does a column name that a filter cannot express. Pass the builder to ``channel.on``, or the
    result of ``build()``.
    """

    __slots__ = ("_conditions", "columns_of_bytes")

    def __init__(self) -> None:
        self._conditions: list[str] = []
        self.columns_of_bytes: list[str] = []

    def _add(self, column: str, operator: str, value: Any, prefix: str = "") -> Self:
        if operator == "in":
            value = _members(value)
        _refuse_none(_column(column), operator, value, negated=bool(prefix))
        condition = _condition(operator, value)
        self._conditions.append(f"{column}={prefix}{operator}.{condition}")
        values = value if operator == "in" else [value]
        if any(isinstance(_member(each), bytes) for each in values):
            self.columns_of_bytes.append(column)
        return self

    def eq(self, column: str, value: object) -> Self:
        """The column equals the value."""
        return self._add(column, "eq", value)

    def neq(self, column: str, value: object) -> Self:
        """The column differs from the value; a NULL in it never matches."""
        return self._add(column, "neq", value)

    def gt(self, column: str, value: object) -> Self:
        """The column is greater than the value."""
        return self._add(column, "gt", value)

    def gte(self, column: str, value: object) -> Self:
        """The column is greater than the value or equal to it."""
        return self._add(column, "gte", value)

    def lt(self, column: str, value: object) -> Self:
        """The column is less than the value."""
        return self._add(column, "lt", value)

    def lte(self, column: str, value: object) -> Self:
        """The column is less than the value or equal to it."""
        return self._add(column, "lte", value)

    def like(self, column: str, pattern: str) -> Self:
        """The column matches a pattern with ``%`` and ``_``."""
        return self._add(column, "like", pattern)

    def ilike(self, column: str, pattern: str) -> Self:
        """The column matches a pattern with ``%`` and ``_``, ignoring case."""
        return self._add(column, "ilike", pattern)

    def match(self, column: str, pattern: str) -> Self:
        """The column matches a POSIX regular expression."""
        return self._add(column, "match", pattern)

    def imatch(self, column: str, pattern: str) -> Self:
        """The column matches a POSIX regular expression, ignoring case."""
        return self._add(column, "imatch", pattern)

    def is_(self, column: str, value: bool | str | None) -> Self:
        """The column is ``None``, ``True``, ``False`` or ``"unknown"``.

        The words ``"null"``, ``"true"`` and ``"false"`` are accepted too; any other value raises
        ``ValueError``.
        """
        return self._add(column, "is", value)

    def is_distinct(self, column: str, value: object) -> Self:
        """The column differs from the value; NULL counts as a value."""
        return self._add(column, "isdistinct", value)

    def in_(self, column: str, values: Iterable[object]) -> Self:
        """The column equals one of the values; the server accepts up to 100.

        Duplicates are removed; ``1``, ``"1"`` and ``True`` are three values. An empty list raises
        ``ValueError``.
        """
        return self._add(column, "in", values)

    def not_(self, column: str, operator: str, value: Any) -> Self:
        """The negation of a condition: ``not_("status", "in", ["draft", "archived"])``.

        ``operator`` is spelled as on the wire: ``eq neq gt gte lt lte like ilike match imatch
        is isdistinct in``; any other raises ``ValueError``. For ``in`` a single value is a list
        of one.
        """
        _operator(operator)
        if operator == "in" and (isinstance(value, str | bytes) or not isinstance(value, Iterable)):
            value = [value]
        return self._add(column, operator, value, "not.")

    def build(self) -> str:
        """Returns the filter as sent to the server; ``""`` without a condition."""
        return ",".join(self._conditions)

    def __str__(self) -> str:
        return self.build()

    def __repr__(self) -> str:
        return f"<PostgresChangesFilter {self.build()!r}>"

    def __getattr__(self, name: str) -> Any:
        raise no_attribute(self, name)


def postgres_changes_filter() -> PostgresChangesFilter:
    """Returns a new, empty ``PostgresChangesFilter``."""
    return PostgresChangesFilter()
