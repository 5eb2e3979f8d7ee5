"""What a command is."""

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
    """The command cannot do it; the message is one line that says what to change."""

    def __init__(self, message: str, *, code: int = 1) -> None:
        super().__init__(printable(message))
        self.code = code

    @classmethod
    def of(cls, error: RealtimeError) -> CommandFailed:
        """What an error of the client says, and what to do about it."""
        return cls(f"{error} ({error.hint})" if error.hint else str(error))


@dataclasses.dataclass(frozen=True)
class Command:
    """One command; a module in ``commands`` has it under the name ``COMMAND``.

    ``name`` may be of two words, ``gen types``. ``summary`` stands in the list of commands,
    ``description`` above the options and ``epilog`` below them. ``configure`` adds the options
    and ``run`` does it; what it returns is the exit code. ``run`` raises ``CommandFailed`` for
    what the user can mend, and is the place for imports that take their time.
    """

    name: str
    summary: str
    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    description: str = ""
    epilog: str = ""
