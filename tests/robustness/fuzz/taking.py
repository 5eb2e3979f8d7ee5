"""Builds structured input from bytes without a library, so that a fuzzer, Hypothesis or a file can
supply the bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

__all__ = ["Taker"]

T = TypeVar("T")

WORDS = (
    "", "a", "b", "id", "1", "null", "*", "\x00", "é", "\ud800", '"', "{}", "[]", "x,y", "NULL",
    "title", "INSERT", "UPDATE", "DELETE", "ok", "error", "2026-01-02T03:04:05Z", "{1,2}", "1.5",
    "NaN",
)  # fmt: skip


class Taker:
    """Takes values from the front of ``data``; beyond its end all values are zero or empty."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def more(self) -> bool:
        """True if any input is left."""
        return self._at < len(self._data)

    def byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1] if self._at <= len(self._data) else 0

    def choice(self, values: Sequence[T]) -> T:
        return values[self.byte() % len(values)]

    def chunk(self) -> bytes:
        """Up to 255 bytes; the first byte tells their number."""
        size = self.byte()
        found = self._data[self._at : self._at + size]
        self._at += size
        return found

    def rest(self) -> bytes:
        found = self._data[self._at :]
        self._at = len(self._data)
        return found

    def text(self) -> str:
        """A word or any text, including lone surrogates, which JSON may contain."""
        size = self.byte()
        if size < len(WORDS):
            return WORDS[size]
        self._at -= 1
        return self.chunk().decode("utf-8", "surrogateescape")

    def value(self, depth: int = 3) -> Any:
        """Builds any value that JSON can express."""
        kind = self.byte() % (8 if depth else 6)
        if kind == 0:
            return None
        if kind == 1:
            return bool(self.byte() & 1)
        if kind == 2:
            return int.from_bytes(self.chunk()[:12], "big", signed=True)
        if kind == 3:
            return self.byte() / 8 * 10.0 ** (self.byte() - 128)
        if kind in (4, 5):
            return self.text()
        if kind == 6:
            return [self.value(depth - 1) for _ in range(self.byte() % 4)]
        return {self.text(): self.value(depth - 1) for _ in range(self.byte() % 4)}
