"""Words of others, made fit for a terminal and for a log: the one place that escapes them.

Topics, events, roles, reasons, table names, bodies and tracebacks hold what somebody else chose. An
escape sequence among them steers a terminal, a line break forges a log record, and a bidirectional
control shows another text than the one that is there.

A new place where such words come out needs nothing of its own: loggers are made by ``get_logger``,
errors are of ``errors``, and commands print with ``Screen.say``. All three end in ``printable``.
"""

from __future__ import annotations

import logging
import traceback
import unicodedata
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["LONGEST", "get_logger", "printable", "printable_lines"]

LONGEST: Final = 2000
"""Characters of one value that are shown; a program that wants all of it has the value itself."""


def printable(text: object, longest: int | None = LONGEST) -> str:
    """Returns the text on one line, without what would steer a terminal, and not too long.

    Control and format characters, line breaks, bidirectional controls, zero-width characters and
    lone surrogates become ``\\x1b`` or ``\\u202e``; letters, emoji and spaces of any script stay.
    What was made printable stays as it is when made so again.
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
    # Python counts the wide space of CJK text and the one before a French colon as unprintable.
    if character.isprintable() or unicodedata.category(character) == "Zs":
        return character
    return character.encode("unicode_escape").decode()


def printable_lines(text: str) -> str:
    """Returns a text of several lines with each of them printable; tabs stay, too."""
    return "\n".join(
        "\t".join(printable(part, None) for part in line.split("\t")) for line in text.split("\n")
    )


# -- logs ----------------------------------------------------------------------------------


class _Words(str):
    """A value as it is shown by ``%s``, with its own ``repr`` for ``%r``."""

    _repr: str

    def __new__(cls, value: object) -> _Words:
        self = super().__new__(cls, printable(value))
        self._repr = printable(repr(value))
        return self

    def __repr__(self) -> str:
        return self._repr


def _argument(value: Any) -> Any:
    """Returns the value itself wherever it may be shown as it is."""
    if value is None or isinstance(value, int | float):
        return value
    try:
        shown = _Words(value)
        same = shown == str(value) and repr(shown) == repr(value)
    except Exception:
        # It cannot be shown at all; logging says so, without quoting it.
        return value
    return value if same else shown


def _traceback(error: BaseException) -> str | None:
    """Returns a traceback in which no line of a message looks like the beginning of a record.

    None where Python's own is as good.
    """
    lines: list[str] = []
    parts = list(traceback.TracebackException.from_exception(error, compact=True).format())
    for part in parts:
        first, *more = part.rstrip("\n").split("\n")
        lines.append(first)
        # A part that begins with an empty line is Python's own sentence between two errors.
        indent = "    " if first else ""
        lines += [line if not line or line[0].isspace() else indent + line for line in more]
        if not first:
            lines.append("")
    shown = printable_lines("\n".join(lines))
    return None if shown == "".join(parts).rstrip("\n") else shown


class _Escaping(logging.Filter):
    """Makes all that a record holds printable, before any handler sees it.

    A record of honest words passes untouched, with the template and the arguments that tools group
    records by.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Lets every record pass."""
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
    """Returns the logger of that name, whose records hold printable words only."""
    logger = logging.getLogger(name)
    logger.addFilter(_ESCAPING)
    return logger
