"""The escaping of foreign text for terminals and logs; no other module does it.

Others choose the text of topics, events, roles, reasons, table names, bodies and tracebacks. In
it, an escape sequence controls a terminal and a line break forges a log record. A bidirectional
control changes the order in which text is shown.

A new output needs no escaping of its own. Loggers come from ``get_logger``, errors from ``errors``,
and commands print with ``Screen.say``; all three call ``printable``.
"""

from __future__ import annotations

import logging
import traceback
import unicodedata
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["LONGEST", "get_logger", "printable", "printable_lines"]

LONGEST: Final = 2000
"""Characters shown of one value. A program that needs all of it has the value itself."""


def printable(text: object, longest: int | None = LONGEST) -> str:
    """Returns the text on one line, cut, with control characters escaped.

    Control and format characters, line breaks, bidirectional controls, zero-width characters and
    lone surrogates become ``\x1b`` or ``\u202e``. Letters, emoji and spaces of any script stay. A
    printable text is returned unchanged.
    """
    whole = str(text)
    shown = whole if longest is None else whole[: longest + 1]
    if not shown.isprintable():
        shown = "".join(map(_shown, shown))
    if longest is None or len(shown) <= longest:
        return shown
    note = f"... ({len(whole):,} characters)"
    return shown[: max(0, longest - len(note))] + note


def _shown(character: str) -> str:
    # For Python the spaces of CJK text and of French punctuation are unprintable.
    if character.isprintable() or unicodedata.category(character) == "Zs":
        return character
    return character.encode("unicode_escape").decode()


def printable_lines(text: str) -> str:
    """Returns a text of several lines with each line printable; tabs are kept."""
    return "\n".join(
        "\t".join(printable(part, None) for part in line.split("\t")) for line in text.split("\n")
    )


# -- logs ----------------------------------------------------------------------------------


class _Words(str):
    """The printable text of a value for ``%s``, and its printable ``repr`` for ``%r``."""

    _repr: str

    def __new__(cls, value: object) -> _Words:
        self = super().__new__(cls, printable(value))
        self._repr = printable(repr(value))
        return self

    def __repr__(self) -> str:
        return self._repr


def _argument(value: Any) -> Any:
    """Returns the value itself if it is printable, else its printable text."""
    if value is None or isinstance(value, int | float):
        return value
    try:
        shown = _Words(value)
        same = shown == str(value) and repr(shown) == repr(value)
    except Exception:
        # Its ``str`` or ``repr`` fails: logging reports that without the value.
        return value
    return value if same else shown


def _traceback(error: BaseException) -> str | None:
    """Returns a traceback in which no line of a message looks like a log record.

    Returns None if Python's own traceback needs no change.
    """
    lines: list[str] = []
    parts = list(traceback.TracebackException.from_exception(error, compact=True).format())
    for part in parts:
        first, *more = part.rstrip("\n").split("\n")
        lines.append(first)
        # A part that begins with an empty line is the sentence of Python between two errors.
        indent = "    " if first else ""
        lines += [line if not line or line[0].isspace() else indent + line for line in more]
        if not first:
            lines.append("")
    shown = printable_lines("\n".join(lines))
    return None if shown == "".join(parts).rstrip("\n") else shown


class _Escaping(logging.Filter):
    """Makes the message, arguments and fields of a record printable before any handler sees it.

    A printable record is not changed, because tools group records by template and arguments.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Returns True for every record."""
        record.msg = _argument(record.msg)
        if isinstance(record.args, Mapping):
            record.args = {name: _argument(value) for name, value in record.args.items()}
        elif record.args:
            record.args = tuple(map(_argument, record.args))
        for name, value in list(record.__dict__.items()):
            # The fields of ``extra``, and the names of task and thread, which may hold a topic.
            if isinstance(value, str) and name not in ("msg", "exc_text", "stack_info"):
                record.__dict__[name] = printable(value)
        if record.exc_info and record.exc_info[1] is not None and not record.exc_text:
            record.exc_text = _traceback(record.exc_info[1])
        return True


_ESCAPING: Final = _Escaping()


def get_logger(name: str) -> logging.Logger:
    """Returns the logger of that name, with the filter that makes its records printable."""
    logger = logging.getLogger(name)
    logger.addFilter(_ESCAPING)
    return logger
