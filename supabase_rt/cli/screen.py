"""What commands print: aligned, with colours only where a terminal shows them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, TextIO

from .command import CommandFailed

__all__ = ["Screen", "Screens", "printable"]

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


def printable(text: object) -> str:
    """What others sent, on one line and without what would steer the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


class Screen:
    """One stream of lines.

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
        """The text in a colour, or as it is."""
        return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m" if self._coloured else text

    def say(self, *words: str) -> None:
        """Print one line at once, also into a pipe; raises where nothing takes it."""
        try:
            print(" ".join(words).rstrip(), file=self._stream, flush=True)
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
        self._err.say(self._err.paint(printable(text), colour))
