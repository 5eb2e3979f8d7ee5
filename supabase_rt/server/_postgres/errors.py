"""The error for a database that cannot be followed."""

from __future__ import annotations

from ..._printable import printable

__all__ = ["DatabaseProblem", "missing_package"]


class DatabaseProblem(RuntimeError):
    """The database cannot be followed; the message is one line that says what to change."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


def missing_package(package: str, purpose: str) -> DatabaseProblem:
    """Returns the error for a package that is not installed."""
    return DatabaseProblem(
        f"{purpose} needs {package}; install it with: pip install 'supabase-rt[server]'"
    )
