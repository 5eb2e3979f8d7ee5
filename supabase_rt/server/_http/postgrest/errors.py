"""The errors that PostgREST responds with."""

from __future__ import annotations

from typing import Any

from ..._machine.memory_bounds import MOST_ANSWER

__all__ = ["RestProblem", "parse_problem", "too_large"]


class RestProblem(Exception):
    """A refused request, with the HTTP status and the four fields of the JSON body."""

    def __init__(
        self, status: int, code: str, message: str, details: str | None = None, hint: Any = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body: dict[str, Any] = {
            "code": code,
            "details": details,
            "hint": hint,
            "message": message,
        }


def parse_problem(what: str, text: str, details: str) -> RestProblem:
    """Returns the error for a part of the query that cannot be parsed."""
    return RestProblem(400, "PGRST100", f'"failed to parse {what} ({text})"', details)


def too_large() -> RestProblem:
    """More rows than fit into one answer."""
    hint = "Ask for fewer rows (limit) or columns (select)."
    return RestProblem(413, "54000", f"the answer is larger than {MOST_ANSWER} bytes", hint=hint)
