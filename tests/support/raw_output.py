"""A pytest plugin: no test of the whole suite makes the package print text that controls a
terminal.

Every log record of the package and all captured output is searched. Forbidden are control
characters, escape sequences, bidirectional controls and lone surrogates, and line breaks in a
record's own message. So a new output that shows foreign text unescaped fails as soon as a test
reaches it with such a text. ``@pytest.mark.raw_output("why")`` exempts a test.
"""

from __future__ import annotations

import logging
import re

import pytest

from .watch import Watch

__all__ = ["HOSTILE", "RawOutput", "found_raw", "pytest_configure"]

HOSTILE = "\x1b]0;pwned\x07\x9b31m\r\nERROR forged\u202e\u2066\u2028\u200b\ufeff\x7f\ud800"
"""Texts that set the window title, set a colour, forge a record, run backwards, or are no valid
text.
"""

RAW = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)


def found_raw(text: str) -> str | None:
    """Returns the surroundings of the first character that steers a terminal, escaped."""
    match = RAW.search(text)
    return None if match is None else ascii(text[max(0, match.start() - 80) : match.end() + 20])


class RawOutput(Watch):
    """Listens to all loggers; holds the unescaped texts of the present test."""

    def __init__(self) -> None:
        super().__init__("something that steers a terminal was said", "raw_output")
        self._look = logging.Formatter()

    def see(self, where: str, text: str) -> None:
        found = found_raw(text)
        if found is not None:
            self.told.append(f"{where}: {found}")

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.partition(".")[0] != "supabase_rt":
            return
        fields = [value for value in vars(record).values() if isinstance(value, str)]
        self.see("log", "\n".join([self._look.format(record), *fields]))
        if "\n" in record.getMessage():
            self.told.append(f"log: two lines: {record.getMessage()!r}")

    def look(self, report: pytest.TestReport) -> None:
        for where, text in report.sections:
            if "log" not in where:
                self.see(where, text)


def pytest_configure(config: pytest.Config) -> None:
    RawOutput().register(config, "raw_output")
