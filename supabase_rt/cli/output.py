"""What commands print: aligned, with colours only where a terminal shows them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any, TextIO

from .._printable import printable, printable_lines
from .command import CommandFailed

__all__ = ["Screen", "Screens", "complain"]

COLOURS = {
    "grey": 90,
    "red": 31,
    "green": 32,
    "yellow": 33,
    "blue": 34,
    "magenta": 35,
    "cyan": 36,
    "bold": 1,
}


LONGEST = 10_000
"""Characters of one word on a line for eyes."""


class _Painted(str):
    """Printable text between the sequences for a colour, which is the only kind let through."""

    __slots__ = ()


class Screen:
    """One stream of lines; whatever the words of a line hold, it stays one harmless line.

    ``failed`` is told where a line cannot be written, and ``say`` does not raise then: for
    lines that a handler prints, whose exceptions end nothing.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        failed: Callable[[BrokenPipeError | CommandFailed], None] | None = None,
    ) -> None:
        self._stream = sys.stdout if stream is None else stream
        self._failed = failed
        self._coloured = self._stream.isatty() and "NO_COLOR" not in os.environ

    def paint(self, text: str, colour: str) -> str:
        """The text in a colour, or as it is; a word of its own for ``say``."""
        shown = printable(text, LONGEST)
        return _Painted(f"\x1b[{COLOURS[colour]}m{shown}\x1b[0m" if self._coloured else shown)

    def say(self, *words: str) -> None:
        """Print one line at once, also into a pipe; raises where nothing takes it."""
        shown = (word if isinstance(word, _Painted) else printable(word, LONGEST) for word in words)
        self._write(" ".join(shown).rstrip())

    def say_json(self, value: Any, default: Callable[[Any], Any] | None = None) -> None:
        """Print a line of JSON, whole: programs read it. All but ASCII is escaped."""
        self._write(json.dumps(value, default=default))

    def say_text(self, text: str) -> None:
        """Print a text of several lines, whole, with each of them harmless."""
        self._write(printable_lines(text))

    def _write(self, line: str) -> None:
        try:
            print(line, file=self._stream, flush=True)
        except OSError as exc:
            problem = (
                exc
                if isinstance(exc, BrokenPipeError)
                else CommandFailed(f"cannot write: {exc.strerror}")
            )
        else:
            return
        if self._failed is None:
            raise problem
        self._failed(problem)


class Screens:
    """Standard output for what was asked for, standard error for all else.

    For what handlers print: once a line cannot be written ``over`` is called, and ``unwritten``
    says why.
    """

    def __init__(self) -> None:
        self._out = Screen(failed=self._stop)
        self._err = Screen(sys.stderr, failed=self._stop)
        self.unwritten: BrokenPipeError | CommandFailed | None = None
        self.over: Any = None

    def _stop(self, problem: BrokenPipeError | CommandFailed) -> None:
        if self.unwritten is None:
            self.unwritten = problem
            self.over()

    def note(self, text: str, colour: str = "grey") -> None:
        """A line for eyes, not for what reads the output."""
        self._err.say(self._err.paint(text, colour))


def complain(text: str) -> None:
    """Print a line to standard error; where nothing takes it, the exit code has to do."""
    Screen(sys.stderr, failed=lambda problem: None).say(text)
