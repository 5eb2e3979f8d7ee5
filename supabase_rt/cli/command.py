"""A command of the program, and its failure."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

from .._printable import printable

if TYPE_CHECKING:
    from .. import RealtimeError

__all__ = ["Command", "CommandFailed"]


class CommandFailed(Exception):
    """A command that failed; the message is one line that says what to change."""

    def __init__(self, message: str, *, code: int = 1) -> None:
        super().__init__(printable(message))
        self.code = code

    @classmethod
    def of(cls, error: RealtimeError) -> CommandFailed:
        """Returns the failure for an error of the client, with its hint."""
        return cls(f"{error} ({error.hint})" if error.hint else str(error))


@dataclasses.dataclass(frozen=True)
class Command:
    """One command; each module in ``commands`` defines one as ``COMMAND``.

    ``name`` may have two words, such as ``gen types``. The help shows ``summary`` in the list of
    commands, ``description`` above the options and ``epilog`` below them. ``configure`` adds the
    options. ``run`` returns the exit code, or raises ``CommandFailed`` for a mistake of the
    user. Slow imports belong into ``run``.
    """

    name: str
    summary: str
    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    description: str = ""
    epilog: str = ""
