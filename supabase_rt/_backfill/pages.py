"""The pages that a backfill reads, and the query strings that ask PostgREST for them.

The filter of a binding has nearly the syntax of PostgREST's query string. If the two differ, the
condition is translated here; a filter that PostgREST cannot express is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from .._wire.json_codec import UNREADABLE, dumps, loads

__all__ = ["BackfillPage", "ReadRow", "carried_over", "read_page", "read_params"]

_PLAIN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_QUOTED: Final = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_WORD: Final = re.compile(r"[A-Za-z_]+")
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
# The list of "in" is an array literal: a quote may open anywhere in an element.
_ELEMENT: Final = re.compile(r'(?:^|,)((?:"(?:[^"\\]|\\.)*"|\\.|[^,"\\])*)', re.DOTALL)
_ARRAY_BLANKS: Final = " \t\n\v\f\r"


@dataclass(frozen=True, slots=True)
class BackfillPage:
    """One page that ``Backfill(fetch=...)`` is asked for.

    It has the rows of ``table`` that pass ``filter``, sorted by the columns of ``order``, at most
    ``limit`` of them. They begin behind the row that has the values ``after`` in these columns,
    or with the first row if ``after`` is None. With ``newest`` they are the last rows of the
    table, the very last one first. Rows whose cursor is null are left out. Each row is a dict
    that has at least the columns of ``order``.
    """

    schema: str
    table: str
    order: tuple[str, ...]
    """The cursor, then the rest of the primary key."""
    filter: str | None = None
    """The filter of the binding, as in ``on``."""
    select: tuple[str, ...] | None = None
    """The columns of the binding and those of ``order``; None for all."""
    after: tuple[Any, ...] | None = None
    limit: int = 500
    newest: bool = False


class ReadRow(dict[str, Any]):
    """A row of a page, and its JSON text: a float loses digits of a ``numeric``."""

    __slots__ = ("text",)

    text: msgspec.Raw | None
    """The text; None if only the standard library can read the page."""


_texts: Final = msgspec.json.Decoder(list[msgspec.Raw])


def read_page(body: bytes) -> list[ReadRow] | None:
    """Returns the rows in an answer of PostgREST; None if it is no list of rows.

    Raises ``DecodeError`` if it is not JSON.
    """
    found = loads(body)
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        return None
    rows = [ReadRow(row) for row in found]
    texts: Sequence[msgspec.Raw | None]
    try:
        texts = _texts.decode(body)
    except UNREADABLE:
        texts = [None] * len(rows)
    for row, text in zip(rows, texts, strict=True):
        # A view would keep the whole answer alive as long as one row of it.
        row.text = None if text is None else text.copy()
    return rows


def carried_over(filter: str) -> list[str]:
    """Returns the conditions of a binding's filter in the syntax of PostgREST's ``and=(...)``.

    Raises ``ValueError`` for a condition that would mean something else there.
    """
    return [_carried_over(part.strip(), filter) for part in _split(filter)]


def _carried_over(part: str, filter: str) -> str:
    column, _, condition = part.partition("=")
    negation = "not." if condition.startswith("not.") else ""
    op, dot, value = condition[len(negation) :].partition(".")
    # Other characters in the operator could end the condition and begin another one.
    if not column or not dot or not _WORD.fullmatch(op):
        raise ValueError(f"the filter {filter!r} cannot be read; write column=operator.value")
    if op == "is":
        if not _WORD.fullmatch(value):
            raise ValueError(f"the backfill cannot carry over {part!r}: is takes null, true, false")
    elif op == "in":
        value = _list(part, value)
    else:
        if _QUOTED.fullmatch(value):
            value = _ESCAPE.sub(r"\1", value[1:-1])
        if op in ("like", "ilike") and "*" in value:
            raise ValueError(
                f"the backfill cannot carry over {part!r}: to PostgREST * is a wildcard"
            )
        value = _quote(value)
    return f"{_name(column)}.{negation}{op}.{value}"


def _list(part: str, value: str) -> str:
    """Returns the list of ``in`` with each element in quotes, which mean the same to both."""
    if not (value.startswith("(") and value.endswith(")")):
        raise ValueError(f"the backfill cannot carry over {part!r}: in takes (a,b,c)")
    elements = []
    matches = list(_ELEMENT.finditer(value[1:-1]))
    if "".join(found[0] for found in matches) != value[1:-1]:
        raise ValueError(f"the backfill cannot carry over {part!r}: its list cannot be read")
    for found in matches:
        text = found[1].strip(_ARRAY_BLANKS)
        if _QUOTED.fullmatch(text):
            text = text[1:-1]
        elif text.lower() == "null":
            raise ValueError(f"the backfill cannot carry over {part!r}: it has NULL in a list")
        elements.append(_quote(_ESCAPE.sub(r"\1", text)))
    return f"({','.join(elements)})"


def _split(text: str) -> Iterator[str]:
    """Splits a filter into its conditions, at commas outside of parentheses and quotes."""
    start = depth = 0
    is_quoted = is_escaped = False
    for index, character in enumerate(text):
        if is_escaped:
            is_escaped = False
        elif is_quoted:
            is_escaped = character == "\\"
            is_quoted = character != '"'
        elif character == '"':
            is_quoted = text[:index].endswith((".", "(", ","))
        elif character in "()":
            depth += 1 if character == "(" else -1
        elif character == "," and depth <= 0:
            yield text[start:index]
            start = index + 1
    if text[start:].strip():
        yield text[start:]


def read_params(page: BackfillPage) -> list[tuple[str, str]]:
    """Returns the query string that asks PostgREST for a page.

    All conditions are inside ``and=(...)``. As a parameter of its own, a condition on a column
    called ``order``, ``limit`` or ``select`` would be read as that option.
    """
    columns = "*" if page.select is None else ",".join(map(_name, page.select))
    names = [_name(column) for column in page.order]
    conditions = carried_over(page.filter) if page.filter else []
    conditions.append(f"{names[0]}.not.is.null")
    if page.after is not None:
        conditions.append(f"or({_beyond(names, page.after)})")
    direction = "desc" if page.newest else "asc"
    return [
        ("select", columns),
        ("and", f"({','.join(conditions)})"),
        ("order", ",".join(f"{name}.{direction}" for name in names)),
        ("limit", str(page.limit)),
    ]


def _beyond(names: list[str], values: tuple[Any, ...]) -> str:
    """Returns a condition for the rows behind these values in the order of ``names``.

    Such a row is greater in one column, and equal in all columns before it.
    """
    cases = []
    for index, name in enumerate(names):
        equal = [f"{names[one]}.eq.{_value(values[one])}" for one in range(index)]
        parts = [*equal, f"{name}.gt.{_value(values[index])}"]
        cases.append(parts[0] if len(parts) == 1 else f"and({','.join(parts)})")
    return ",".join(cases)


def _name(column: str) -> str:
    return column if _PLAIN.fullmatch(column) else _quote(column)


def _value(value: Any) -> str:
    return _quote(value) if isinstance(value, str) else dumps(value).decode()


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
