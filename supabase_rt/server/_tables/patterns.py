"""Patterns of filters, matched in linear time.

``re`` backtracks: ``(a+)+$`` on 27 characters blocks the server for seconds. RE2 reads a text
once, and refuses patterns that need more than that (back-references, look-around).
"""

from __future__ import annotations

import functools
import re
from typing import Final

try:
    import re2
except ImportError as _missing:  # pragma: no cover - the development environment has it
    raise ImportError(
        "the local server matches filters with google-re2; install it with: "
        "pip install 'supabase-rt[server]'"
    ) from _missing

from ..._printable import get_logger

__all__ = ["PatternError", "like", "matches", "matches_like", "searchable", "searchable_like"]

logger: Final = get_logger("supabase_rt.server")

LONGEST = 1_000
"""Characters of a pattern that is compiled."""
MOST_MEMORY = 2**20
"""Bytes of one compiled pattern; 64 are kept, so all of them have 64 MiB at most."""
KEPT = 64
MOST_STEPS = 10_000_000
"""Size of a pattern times size of a text: the steps RE2 needs when its memory runs out."""


class PatternError(ValueError):
    """A pattern that is invalid or too expensive."""


def searchable(pattern: str, *, ignore_case: bool = False) -> None:
    """Check a regular expression; raises ``PatternError`` if it is invalid or too expensive."""
    _compiled(pattern, ignore_case)


def searchable_like(pattern: str, *, ignore_case: bool = False) -> None:
    """Check a LIKE pattern; raises ``PatternError`` if it is too expensive."""
    if "_" in pattern:
        _compiled_like(pattern, ignore_case, True)


def matches(pattern: str, text: str, *, ignore_case: bool = False) -> bool:
    """Returns True if a regular expression is found in a text; raises ``PatternError``."""
    return _found(_compiled(pattern, ignore_case), text)


def matches_like(
    pattern: str, text: str, *, ignore_case: bool = False, escapes: bool = True
) -> bool:
    """Returns True if a text matches a LIKE pattern; raises ``PatternError``.

    Each part between two ``%`` is taken at the first place where it is found. Trying all places
    would take exponential time.
    """
    if "_" in pattern and "%" not in pattern and not (escapes and "\\" in pattern):
        # A table name with "_" is the usual case; no regular expression is needed for it.
        pattern, text = _same_case(pattern, text) if ignore_case else (pattern, text)
        pairs = zip(pattern, text, strict=True) if len(pattern) == len(text) else [("", "x")]
        return all(wanted in ("_", char) for wanted, char in pairs)
    if "_" in pattern:
        # Parts with "_" cannot be found by str.find.
        return _found(_compiled_like(pattern, ignore_case, escapes), text)
    if ignore_case:
        pattern, text = _same_case(pattern, text)
    first, *others = _literals(pattern) if escapes and "\\" in pattern else pattern.split("%")
    if not others:
        return text == first
    last = others.pop()
    if not text.startswith(first) or len(text) < len(first) + len(last):
        return False
    start, end = len(first), len(text) - len(last)
    for part in others:
        found = text.find(part, start, end)
        if found < 0:
            return False
        start = found + len(part)
    return text.endswith(last)


def _same_case(pattern: str, text: str) -> tuple[str, str]:
    return pattern.lower(), text.lower()


def _literals(pattern: str) -> list[str]:
    """Split a pattern at each ``%``; a backslash takes the next character literally."""
    parts: list[list[str]] = [[]]
    chars = iter(pattern)
    for char in chars:
        if char == "%":
            parts.append([])
        else:
            parts[-1].append(next(chars, "\\") if char == "\\" else char)
    return ["".join(part) for part in parts]


def like(pattern: str, *, escapes: bool = True) -> str:
    """Returns the regular expression for a LIKE pattern."""
    found, chars = [], iter(pattern)
    for char in chars:
        if char == "%":
            found.append(".*")
        elif char == "\\" and escapes:
            found.append(re.escape(next(chars, "\\")))
        else:
            found.append("." if char == "_" else re.escape(char))
    return "".join(found)


def _compiled_like(pattern: str, ignore_case: bool, escapes: bool) -> re2._Regexp:
    return _compiled(rf"\A(?:{like(pattern, escapes=escapes)})\z", ignore_case)


def _compiled(pattern: str, ignore_case: bool) -> re2._Regexp:
    if len(pattern) > LONGEST:
        raise PatternError(f"regular expression is too complex: over {LONGEST} characters")
    try:
        return _compile(pattern, ignore_case)
    except (re2.error, UnicodeError) as exc:
        problem = exc.args[0] if isinstance(exc, re2.error) else "not a text"
    raise PatternError(problem.decode(errors="replace") if isinstance(problem, bytes) else problem)


@functools.lru_cache(maxsize=KEPT)
def _compile(pattern: str, ignore_case: bool) -> re2._Regexp:
    options = re2.Options()
    options.max_mem = MOST_MEMORY
    options.log_errors = False
    options.never_capture = True
    options.dot_nl = True
    options.case_sensitive = not ignore_case
    # re2.compile would keep 128 of them in its own cache, without a limit on their size.
    return re2._Regexp(pattern.encode(), options)


def _found(expression: re2._Regexp, text: str) -> bool:
    # A lone surrogate matches no pattern, but the text around it may.
    data = text.encode("utf-8", "surrogatepass")
    if expression.programsize * len(data) > MOST_STEPS:
        logger.warning("a pattern is too complex for a text of %d bytes", len(data))
        raise PatternError("regular expression is too complex for the text")
    return expression.search(data) is not None
