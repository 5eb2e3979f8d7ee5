"""The output of the commands: aligned, and in colour only on a terminal."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any, TextIO

from .._printable import printable, printable_lines
from .command import CommandFailed

__all__ = ["CommandOutput", "Screen", "complain"]

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
"""The most characters that are shown of one word on a line for people."""


class _Painted(str):
    """Printable text between two colour sequences, the only sequences that are printed."""

    __slots__ = ()


class Screen:
    """One stream of lines. A line stays one harmless line with any words in it.

    ``failed`` is called if a line cannot be written; then ``say`` does not raise. It is for
    lines that a handler prints, because an exception in a handler ends nothing.
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
        """Returns the text, in a colour if the stream shows colours; one word for ``say``."""
        shown = printable(text, LONGEST)
        return _Painted(f"\x1b[{COLOURS[colour]}m{shown}\x1b[0m" if self._coloured else shown)

    def say(self, *words: str) -> None:
        """Print one line and flush it, also into a pipe. Raises if the line cannot be written."""
        shown = (word if isinstance(word, _Painted) else printable(word, LONGEST) for word in words)
        self._write(" ".join(shown).rstrip())

    def say_json(self, value: Any, default: Callable[[Any], Any] | None = None) -> None:
        """Print a line of JSON for programs, uncut; all characters but ASCII are escaped."""
        self._write(json.dumps(value, default=default))

    def say_text(self, text: str) -> None:
        """Print a text of several lines, uncut; each line is made harmless."""
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


class CommandOutput:
    """The two streams of a command whose handlers print: results to ``out``, notes to stderr.

    Once a line cannot be written, ``end`` is called, and ``unwritten`` holds the error.
    """

    def __init__(self) -> None:
        self.out: Screen = Screen(failed=self._stop)
        self._err = Screen(sys.stderr, failed=self._stop)
        self.unwritten: BrokenPipeError | CommandFailed | None = None
        self.end: Callable[[], object] = lambda: None
        """Ends the command; set by it."""

    def _stop(self, problem: BrokenPipeError | CommandFailed) -> None:
        if self.unwritten is None:
            self.unwritten = problem
            self.end()

    def note(self, text: str, colour: str = "grey") -> None:
        """Print a line for people to standard error."""
        self._err.say(self._err.paint(text, colour))


def complain(text: str) -> None:
    """Print a line to standard error; if that fails, the exit code has to be enough."""
    Screen(sys.stderr, failed=lambda problem: None).say(text)
