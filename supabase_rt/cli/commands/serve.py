"""``supabase-rt serve``: a Realtime server on this machine, with or without a database."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import gc
import logging
import os
import signal
import time
from typing import TYPE_CHECKING, Any

from ... import __version__
from ..command import Command, CommandFailed
from ..conninfo import without_password
from ..dataclass_arguments import add_field_options, field_values
from ..output import Screen
from ..secret import kept_secret

if TYPE_CHECKING:
    from ...server import Happening, LocalRealtime

__all__ = ["COMMAND"]

PORT = 54321
MMAP_THRESHOLD = -3
SECRET_VARIABLE = "SUPABASE_JWT_SECRET"
LOOPBACK = ("127.", "localhost", "::1")
EPILOG = f"""\
examples:
  supabase-rt serve                         broadcast and presence, rows published from Python
  supabase-rt serve --embedded-db           with a PostgreSQL that is gone afterwards
  supabase-rt serve --embedded-db ./data    with one that keeps its data
  supabase-rt serve --db postgresql://postgres:postgres@127.0.0.1:5432/postgres

A secret on the command line is seen by everyone on the machine: {SECRET_VARIABLE}
in the environment does the same. Ctrl+C ends the server and everything it started.
"""
SNIPPET = """\
from supabase_rt import create_client

supabase = create_client("{url}", "{key}")
room = supabase.channel("room").on("broadcast", {{"event": "*"}}, print)
room.subscribe(lambda status, error: print(status, error or ""))
supabase.realtime.run()
"""
COLOURS = {
    "connect": "green",
    "disconnect": "grey",
    "join": "cyan",
    "leave": "grey",
    "refuse": "red",
    "join_refused": "red",
    "broadcast": "magenta",
    "presence": "blue",
    "change": "yellow",
}


# -- options -------------------------------------------------------------------------------


def _port(text: str) -> int:
    if text.isdecimal() and int(text) < 65536:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a port from 0 to 65535")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options; raises ``CommandFailed`` if the server's packages are missing."""
    try:
        from ...server import Settings
    except ImportError as exc:
        raise CommandFailed(str(exc)) from None
    # argparse would print twenty lines of options before each error.
    parser.usage = "%(prog)s [options]"
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument(
        "--port", type=_port, default=PORT, help="port, 0 for a free one (%(default)s)"
    )
    database = parser.add_mutually_exclusive_group()
    database.add_argument(
        "--db", metavar="URL", help="follow this PostgreSQL 14 or newer with wal_level = logical"
    )
    database.add_argument(
        "--embedded-db",
        metavar="FOLDER",
        nargs="?",
        const=True,
        default=False,
        help="start a PostgreSQL of its own; with a folder it keeps its data there",
    )
    parser.add_argument(
        "--slot",
        metavar="NAME",
        help="replication slot that is found again after a crash (default: a temporary one)",
    )
    parser.add_argument(
        "--jwt-secret",
        metavar="SECRET",
        default=os.environ.get(SECRET_VARIABLE) or None,
        help="signs and checks tokens, at least 32 bytes (default: your own secret, created at "
        "the first start and kept). For keys of a local Supabase stack, give the stack's secret",
    )
    parser.add_argument(
        "--allow-host",
        metavar="NAME",
        action="append",
        default=[],
        help="a host name that clients may use, in addition to localhost and IP addresses",
    )
    parser.add_argument(
        "--allow-origin",
        metavar="ORIGIN",
        action="append",
        default=[],
        help="a web page that may use this server, beside local ones: https://app.example",
    )
    parser.add_argument("--quiet", action="store_true", help="print no request log")
    limits = parser.add_argument_group("limits and delays (seconds, bytes)")
    limits.add_argument(
        "--realistic",
        action="store_true",
        help="the delays of the real server, such as 5 s before a join is refused",
    )
    add_field_options(limits, Settings)


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """Returns the given limits and delays; a single one overrides --realistic."""
    from ...server import REALISTIC, Settings

    return {**(REALISTIC if options.realistic else {}), **field_values(options, Settings)}


# -- the server ----------------------------------------------------------------------------


def run(options: argparse.Namespace) -> int:
    """Serve until Ctrl+C or SIGTERM."""
    from ...server import DatabaseProblem, LocalRealtime

    if options.slot and not (options.db or options.embedded_db):
        raise CommandFailed("--slot goes with --db or --embedded-db", code=2)
    screen = Screen()
    # PostgreSQL inherits our environment, perhaps as a user who must not know the secret.
    os.environ.pop(SECRET_VARIABLE, None)
    warnings = logging.StreamHandler()
    warnings.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    logging.getLogger("supabase_rt").addHandler(warnings)
    try:
        server = LocalRealtime(
            options.port,
            options.host,
            options.jwt_secret or _own_secret(screen),
            db=options.db,
            embedded_db=options.embedded_db,
            slot=options.slot,
            allow_hosts=options.allow_host,
            allow_origins=options.allow_origin,
            **settings(options),
        )
        asyncio.run(_serve(server, options, screen))
    except (DatabaseProblem, ValueError) as exc:
        raise CommandFailed(str(exc)) from None
    finally:
        logging.getLogger("supabase_rt").removeHandler(warnings)
    return 0


def _own_secret(screen: Screen) -> str:
    """Returns the user's own secret; prints a warning if it is valid for this run only."""
    from ...server import new_secret

    secret = kept_secret(os.environ, new_secret())
    if secret.problem is not None:
        screen.say(
            screen.paint("careful:", "red"),
            f"the keys are good for this run only: {secret.problem}",
        )
    return secret.text


def _cannot_listen(exc: OSError, options: argparse.Namespace) -> str:
    at = f"{options.host}:{options.port}"
    if exc.errno == errno.EADDRINUSE:
        return f"{at} is taken by another program; choose another --port, or 0 for a free one"
    if exc.errno == errno.EACCES:
        return f"this user may not listen at {at}; choose a --port above 1023"
    return f"cannot listen at {at}: {exc.strerror or exc}; --host is an address of this machine"


async def _serve(server: LocalRealtime, options: argparse.Namespace, screen: Screen) -> None:
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        # Windows has no SIGHUP and no signal handlers in the loop; there Ctrl+C cancels this task.
        with contextlib.suppress(AttributeError, NotImplementedError):
            loop.add_signal_handler(getattr(signal, name), over.set)
    if options.embedded_db:
        screen.say("starting PostgreSQL ...")
    starting = loop.create_task(server.start(), name="supabase_rt serve: start")
    ended = loop.create_task(over.wait(), name="supabase_rt serve: until a signal")
    try:
        await asyncio.wait([starting, ended], return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            return
        try:
            starting.result()
        except OSError as exc:
            raise CommandFailed(_cannot_listen(exc, options)) from None
        # The modules stay for good: a full collection that visits them all takes 50 ms.
        gc.freeze()
        _introduce(server, options, screen)
        if not options.quiet:
            _Log(screen).follow(server)
        await ended
        screen.say("stopping ...")
    finally:
        for task in (starting, ended):
            task.cancel()
        await asyncio.wait([starting, ended])
        await server.stop()


# -- output --------------------------------------------------------------------------------


def _introduce(server: LocalRealtime, options: argparse.Namespace, screen: Screen) -> None:
    rows = [("URL", server.url), ("WebSocket", server.ws_url)]
    if server.settings.status_page:
        rows.append(("Inspector", server.inspector_url))
    if options.db or options.embedded_db:
        rows.append(("Database", without_password(server.database_url)))
    rows += [("anon key", server.anon_key), ("service key", server.service_key)]
    screen.say(screen.paint(f"Supabase Realtime, local (supabase-rt {__version__})", "bold"))
    screen.say()
    for name, value in rows:
        screen.say(f"  {name:<12}", value)
    screen.say()
    screen.say("A bot to start with:")
    screen.say()
    # Not indented, because it is there to be copied, and Python refuses an indented program.
    for line in SNIPPET.format(url=server.url, key=server.anon_key).splitlines():
        screen.say(screen.paint(line, "cyan") if line else "")
    screen.say()
    if not options.host.startswith(LOOPBACK):
        screen.say(
            screen.paint("careful:", "red"),
            "others can reach this server, and read keys and messages on the way: it speaks no TLS",
        )
    screen.say(screen.paint("Ctrl+C ends it", "grey"))


class _Log:
    """The request log: sockets, requests and their results, without payloads and keys."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen

    def follow(self, server: LocalRealtime) -> None:
        """Print each event of the server until the output is closed."""

        def show(found: Happening) -> None:
            try:
                self.show(found)
            except BrokenPipeError:
                end()

        end = server.watch(show)

    def show(self, found: Happening) -> None:
        """Print one line."""
        origin = "" if found.connection is None else f"socket {found.connection}"
        if found.kind == "change":
            origin = "database"
        elif found.kind in ("refuse", "request"):
            origin = "http"
        kind = self._screen.paint(f"{_word(found):<10}", COLOURS.get(found.kind, "grey"))
        moment = self._screen.paint(time.strftime("%H:%M:%S"), "grey")
        self._screen.say(moment, f" {origin:<10}", kind, _about(found))


def _word(found: Happening) -> str:
    if found.kind in ("refuse", "join_refused"):
        return "refused"
    return found.event if found.kind in ("change", "request") else found.kind


def _about(found: Happening) -> str:
    words = [found.topic, found.event if found.kind == "broadcast" else "", found.text]
    if found.reached is not None:
        words.append(f"→ {found.reached}")
    return " ".join(word for word in words if word)


COMMAND = Command(
    name="serve",
    summary="run a Realtime server on this machine",
    description="Run a Realtime server on this machine, with or without a PostgreSQL behind it.",
    epilog=EPILOG,
    configure=configure,
    run=run,
)
