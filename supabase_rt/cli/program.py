"""The program: finds the command by the words on the command line, and runs it."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from typing import NoReturn, TypeAlias

from .. import __version__
from .._printable import printable
from .command import Command, CommandFailed
from .commands import find_commands
from .output import complain

__all__ = ["main", "make_parser"]

INTERRUPTED = 130
STREAMS = {"stdin": "r", "stdout": "w", "stderr": "w"}
Children: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are safe to print: they quote words of unknown origin."""

    def error(self, message: str) -> NoReturn:
        super().error(printable(message))


def make_parser(commands: Sequence[Command], words: Sequence[str]) -> argparse.ArgumentParser:
    """Returns the parser of all commands; its result has the chosen one in ``command``.

    Only commands that ``words`` may name get their options, because some need slow imports.
    """
    parser = _Parser(
        prog="supabase-rt",
        description="Supabase Realtime on the command line.",
        epilog="'supabase-rt COMMAND --help' shows the options of a command.",
    )
    parser.add_argument("--version", action="version", version=f"supabase-rt {__version__}")
    groups: dict[tuple[str, ...], Children] = {(): _children(parser)}
    for command in commands:
        *above, last = command.name.split()
        for depth in range(1, len(above) + 1):
            path = tuple(above[:depth])
            if path not in groups:
                inside = [
                    f"{each.name}: {each.summary}"
                    for each in commands
                    if each.name.split()[:depth] == above[:depth]
                ]
                group = groups[path[:-1]].add_parser(path[-1], help="; ".join(inside))
                groups[path] = _children(group)
        child = _add(groups[tuple(above)], last, command)
        if set(command.name.split()) <= set(words):
            command.configure(child)
    return parser


def _children(parser: argparse.ArgumentParser) -> Children:
    return parser.add_subparsers(title="commands", metavar="COMMAND", required=True)


def _add(group: Children, name: str, command: Command) -> argparse.ArgumentParser:
    parser = group.add_parser(
        name,
        help=command.summary,
        description=command.description or command.summary,
        epilog=command.epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=command)
    return parser


def main(words: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 1 for a failure, 2 for a wrong command line."""
    words = sys.argv[1:] if words is None else words
    name = ""
    _open_streams()
    try:
        parser = make_parser(find_commands(), words)
        if not words:
            parser.print_help(sys.stderr)
            return 2
        options = parser.parse_args(words)
        command: Command = options.command
        name = f" {command.name}"
        return command.run(options)
    except CommandFailed as exc:
        complain(f"supabase-rt{name}: {exc}")
        return exc.code
    except BrokenPipeError:
        # The reader of the pipe has ended, such as head.
        return 0
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        _let_go()


def _open_streams() -> None:
    """Replace streams that the shell has closed (``>&-``); Python has None in their place.

    Events contain any character; those that standard output cannot encode are escaped.
    """
    for name, mode in STREAMS.items():
        if getattr(sys, name) is None:
            nothing = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, open(nothing, mode, closefd=False))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _let_go() -> None:
    """Discard output that cannot be written any more; Python would report it at exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
