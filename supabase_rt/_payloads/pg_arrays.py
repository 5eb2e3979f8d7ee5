"""The parser of Postgres array literals such as ``{1,NULL,"a b"}``.

Current servers send arrays as JSON lists. Literals still come from older self-hosted servers and
from columns that hold them as text.
"""

from __future__ import annotations

import re
from typing import Any, Final

__all__ = ["MAX_DIMENSIONS", "parse_array"]

MAX_DIMENSIONS: Final = 6
"""The limit of Postgres. It also bounds every recursion over an array."""

# ``[0:1][-3:4]=`` comes before the braces if a lower bound is not 1.
_BOUNDS: Final = re.compile(r"\s*(?:(?:\[[+-]?\d+:[+-]?\d+\])+=)?")
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)


def _tokens(delimiter: str) -> re.Pattern[str]:
    # Postgres accepts an unquoted backslash but never writes one. It is no token here, so such a
    # text is left unchanged.
    return re.compile(
        rf"""\s*(?:([{{}}])
            |({delimiter})
            |"([^"\\]*(?:\\.[^"\\]*)*)"
            |([^\s{{}}"\\{delimiter}][^{{}}"\\{delimiter}]*))""",
        re.DOTALL | re.VERBOSE,
    )


_BRACE, _DELIMITER, _QUOTED, _BARE = 1, 2, 3, 4
"""The groups of a token."""

_TOKENS: Final = {delimiter: _tokens(delimiter) for delimiter in ",;"}


class _Builder:
    """Builds nested lists of tokens and refuses a token at a wrong place."""

    __slots__ = ("done", "open", "wants_value")

    def __init__(self) -> None:
        self.open: list[list[Any]] = []
        self.wants_value = True
        self.done: list[Any] | None = None

    def add(self, value: Any) -> None:
        if not self.open or not self.wants_value:
            raise ValueError("array value out of place")
        self.open[-1].append(value)
        self.wants_value = False

    def delimit(self) -> None:
        if self.wants_value:
            raise ValueError("array delimiter out of place")
        self.wants_value = True

    def begin(self) -> None:
        if not self.wants_value or len(self.open) == MAX_DIMENSIONS:
            raise ValueError("array brace out of place")
        self.open.append([])

    def end(self) -> None:
        # "{}" is allowed, but a value must follow a delimiter.
        if not self.open or (self.wants_value and self.open[-1]):
            raise ValueError("array brace out of place")
        finished = self.open.pop()
        self.wants_value = True
        if self.open:
            self.add(finished)
        else:
            self.done = finished


def parse_array(text: str, delimiter: str = ",") -> list[Any]:
    """Read an array literal into nested lists of ``str`` and ``None``.

    ``delimiter`` is ``","``, or ``";"`` for arrays of ``box``. Raises ``ValueError`` for a text
    that is no array literal.
    """
    if '"' in text or "\\" in text:
        return _parse_tokens(text, delimiter)
    start = text.find("{")
    end = text.find("}")
    # Most literals are one list of bare values. A loop over tokens would take seconds for those of
    # the largest rows.
    if start < 0 or end < 0 or text.find("{", start + 1) >= 0 or text[end + 1 :].strip():
        return _parse_tokens(text, delimiter)
    bounds = _BOUNDS.match(text)
    if text[bounds.end() if bounds else 0 : start].strip():
        raise ValueError("not an array literal")
    return _parse_flat(text[start + 1 : end], delimiter)


def _parse_flat(body: str, delimiter: str) -> list[Any]:
    """Returns the values between the braces of a list without quotes, escapes and lists."""
    values = [value.strip() for value in body.split(delimiter)]
    if "" not in values:
        return [None if len(value) == 4 and value.upper() == "NULL" else value for value in values]
    if len(values) == 1:
        return []
    raise ValueError("array delimiter out of place")


def _parse_tokens(text: str, delimiter: str) -> list[Any]:
    """Read any array literal, token by token."""
    tokens = _TOKENS[delimiter]
    builder = _Builder()
    start = _BOUNDS.match(text)
    position = start.end() if start else 0
    while builder.done is None:
        match = tokens.match(text, position)
        if match is None:
            raise ValueError("not an array literal")
        position = match.end()
        # A loop over millions of values: the most frequent tokens first, without more calls.
        kind = match.lastindex
        if kind == _DELIMITER:
            if builder.wants_value:
                raise ValueError("array delimiter out of place")
            builder.wants_value = True
        elif kind == _BRACE:
            if match[_BRACE] == "{":
                builder.begin()
            else:
                builder.end()
        elif kind == _QUOTED:
            value = match[_QUOTED]
            builder.add(_ESCAPE.sub(r"\1", value) if "\\" in value else value)
        else:
            value = match[_BARE].rstrip()
            builder.add(None if value.upper() == "NULL" else value)
    if text[position:].strip():
        raise ValueError("text after the array")
    return builder.done
