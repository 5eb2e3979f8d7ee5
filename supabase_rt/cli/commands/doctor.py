"""``supabase-rt doctor``: finds out why no events arrive."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import os
from typing import TYPE_CHECKING, Any

from ..command import Command
from ..connection_arguments import add_target_options, make_client, target_of
from ..output import Screen

if TYPE_CHECKING:
    from ..doctor import Report, Result

__all__ = ["COMMAND"]

EPILOG = """\
examples:
  supabase-rt doctor
  supabase-rt doctor --table todos --db postgresql://postgres:…@db.<ref>.supabase.co:5432/postgres
  supabase-rt doctor --private members --token "$TOKEN" --role authenticated

SUPABASE_DB_URL in the environment does the same as --db. The exit code is 1 if a check fails.
"""
COLOURS = {"ok": "green", "warn": "yellow", "fail": "red", "skip": "grey"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--table", metavar="T", help="a table whose changes should arrive")
    parser.add_argument("--schema", default="public", metavar="S", help="its schema (%(default)s)")
    parser.add_argument("--private", metavar="TOPIC", help="a private topic to join")
    parser.add_argument("--db", metavar="URL", help="also check this database")
    parser.add_argument("--role", metavar="R", help="whose rights to check there (the token's)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    add_target_options(parser, timeout=5.0)


def run(options: argparse.Namespace) -> int:
    """Run the checks, print each result, and a summary."""
    from ..doctor import Report

    screen = Screen()
    report = Report(lambda result: _show(screen, result, options.json))
    asyncio.run(_examine(options, report))
    if not options.json:
        _conclude(screen, report)
    return 1 if report.failed else 0


async def _examine(options: argparse.Namespace, report: Report) -> None:
    from ... import ReconnectPolicy
    from ..doctor import check_database, check_network, check_realtime

    url, key, token = target_of(options)
    if await check_network(report, url, key, options.timeout):
        supabase = make_client(options, reconnect=ReconnectPolicy.disabled())
        await check_realtime(
            report,
            supabase,
            timeout=options.timeout,
            table=options.table,
            schema=options.schema,
            private=options.private,
        )
    database = options.db or os.environ.get("SUPABASE_DB_URL")
    if database:
        await asyncio.to_thread(
            check_database,
            report,
            database,
            schema=options.schema,
            table=options.table,
            role=options.role or _role(token or key),
            timeout=options.timeout,
        )


def _role(token: str) -> str:
    from ..._wire.jwt_claims import claims_of

    role: Any = (claims_of(token) or {}).get("role")
    return role if isinstance(role, str) else "anon"


def _show(screen: Screen, result: Result, as_json: bool) -> None:
    if as_json:
        screen.say_json(dataclasses.asdict(result))
        return
    state = screen.paint(f"{result.state:<4}", COLOURS[result.state])
    screen.say(state, f"{result.name:<12}", result.text)
    if result.remedy:
        screen.say(" " * 17, screen.paint(f"→ {result.remedy}", "cyan"))


def _conclude(screen: Screen, report: Report) -> None:
    count = dict.fromkeys(COLOURS, 0)
    for result in report.results:
        count[result.state] += 1
    words = f"{count['fail']} to mend" if report.failed else "all is well"
    more = f", {count['warn']} to think about" if count["warn"] else ""
    screen.say()
    screen.say(screen.paint(f"{words}{more}", "red" if report.failed else "green"))


COMMAND = Command(
    name="doctor",
    summary="find out why nothing arrives",
    description="Check the way from here to the events: name, TLS, key, WebSocket, join,\n"
    "broadcast, database changes, private topics, and the database itself with --db.",
    epilog=EPILOG,
    configure=configure,
    run=run,
)
