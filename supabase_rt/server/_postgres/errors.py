"""What can be wrong with a database, said in one line each."""

from __future__ import annotations

from ..._printable import printable

__all__ = ["DatabaseProblem", "missing_package"]


class DatabaseProblem(RuntimeError):
    """The database cannot be followed; the message is one line that says what to change."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


def missing_package(package: str, purpose: str) -> DatabaseProblem:
    """The problem of a package that is not installed."""
    return DatabaseProblem(
        f"{purpose} needs {package}; install it with: pip install 'supabase-rt[server]'"
    )
