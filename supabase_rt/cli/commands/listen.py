"""``supabase-rt listen``: the events of a channel, live."""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

from ..command import Command, CommandFailed
from ..connection_arguments import add_target_options, channel_options, make_client
from ..output import CommandOutput

if TYPE_CHECKING:
    from ... import RealtimeChannel, SupabaseClient

__all__ = ["COMMAND"]

EPILOG = """\
examples:
  supabase-rt listen room                             all broadcasts of a topic
  supabase-rt listen db --table todos --event INSERT --filter 'list=eq.home'
  supabase-rt listen db --table todos --json | jq .payload.new
  supabase-rt listen members --private --presence --token "$TOKEN"

Events go to standard output, all else to standard error. Ctrl+C leaves the channel.
"""
COLOURS = {"INSERT": "green", "UPDATE": "yellow", "DELETE": "red", "broadcast": "magenta"}
WIDTH = 10
PUBLIC = "public"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("topic", help="the channel's name, without 'realtime:'")
    what = parser.add_argument_group("what to listen to (all broadcasts)")
    what.add_argument("--table", action="append", default=[], metavar="T", help="repeatable")
    what.add_argument("--schema", default=PUBLIC, metavar="S", help="of --table (%(default)s)")
    what.add_argument("--event", default="*", metavar="E", help="INSERT, UPDATE, DELETE (all)")
    what.add_argument("--filter", metavar="F", help="of --table, such as 'id=gt.100'")
    what.add_argument("--broadcast", action="append", default=[], metavar="EVENT", help="'*': all")
    what.add_argument("--presence", action="store_true", help="joins and leaves of presence")
    parser.add_argument("--private", action="store_true", help="a private channel")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--count", type=int, metavar="N", help="end after N events")
    add_target_options(parser)


def run(options: argparse.Namespace) -> int:
    """Listen until Ctrl+C, SIGTERM or ``--count``."""
    if options.count is not None and options.count < 1:
        raise CommandFailed("--count is a number of events, 1 or more", code=2)
    if options.event != "*" and not options.table:
        raise CommandFailed("--event goes with --table; for broadcasts it is --broadcast", code=2)
    for name in ("filter", "schema"):
        if getattr(options, name) not in (None, PUBLIC) and not options.table:
            raise CommandFailed(f"--{name} goes with --table", code=2)
    return asyncio.run(_listen(options))


async def _listen(options: argparse.Namespace) -> int:
    from ... import ConnectionFailed, GaveUp, RealtimeError

    supabase = make_client(options)
    output = CommandOutput()
    printer = _EventPrinter(options, output)
    try:
        channel = supabase.channel(
            options.topic,
            channel_options(
                private=options.private,
                presence={"enabled": True} if options.presence else None,
            ),
        )
        _register(channel, options, printer)
    except (ValueError, TypeError, RealtimeError) as exc:
        raise CommandFailed(str(exc), code=2) from None
    _follow(supabase, printer, output)
    output.end = supabase.realtime.remove_all_channels
    channel.subscribe(printer.status)
    output.note(f"connecting to {supabase.supabase_url} ...")
    try:
        await supabase.realtime.run_forever()
    except (ConnectionFailed, GaveUp) as exc:
        raise CommandFailed.of(exc) from None
    finally:
        printer.summary()
    if output.unwritten is not None:
        raise output.unwritten
    return 1 if printer.refused else 0


def _register(
    channel: RealtimeChannel, options: argparse.Namespace, printer: _EventPrinter
) -> None:
    for table in options.table:
        wanted = {"event": options.event.upper(), "schema": options.schema, "table": table}
        if options.filter:
            wanted["filter"] = options.filter
        channel.on("postgres_changes", wanted, printer.change)
    if options.presence:
        for event in ("join", "leave"):
            channel.on("presence", {"event": event}, printer.presence)
    named = options.broadcast or ([] if options.table or options.presence else ["*"])
    for event in named:
        channel.on("broadcast", {"event": event}, printer.broadcast)
    if options.table:
        channel.on("system", {"event": "*"}, printer.system)


def _follow(supabase: SupabaseClient, printer: _EventPrinter, output: CommandOutput) -> None:
    client = supabase.realtime
    client.on(
        "reconnecting",
        lambda attempt, delay, cause: output.note(f"{cause}; again in {delay:.1f} s", "yellow"),
    )
    client.on("reconnected", lambda downtime: printer.back(downtime))
    client.on("gap", lambda topic, since, until, reason: printer.gap(since, until, reason))


class _EventPrinter:
    """Prints events and the state of the channel, and counts them for the summary."""

    def __init__(self, options: argparse.Namespace, output: CommandOutput) -> None:
        from ... import ConnectionFailed, ConnectionLost, GaveUp

        self._options = options
        self._output = output
        self._out = output.out
        self._started = time.monotonic()
        self._events = 0
        self._reconnects = 0
        # The first is shown as a note on reconnecting, the others when the command ends.
        self._shown_elsewhere = (ConnectionLost, ConnectionFailed, GaveUp)
        self.refused = False

    # -- events ----------------------------------------------------------------------------

    def change(self, change: Any) -> None:
        row = change.old if change.event_type == "DELETE" else change.new
        about = f"{change.schema}.{change.table}"
        self._event("postgres_changes", change.event_type, about, row, change)

    def broadcast(self, message: Any) -> None:
        self._event("broadcast", "broadcast", message.event, message.payload, message)

    def presence(self, event: Any) -> None:
        entries = event.new_presences if event.event == "join" else event.left_presences
        self._event("presence", event.event, event.key, entries, event)

    def _event(self, type: str, word: str, about: str, shown: Any, payload: Any) -> None:
        if self._options.count is not None and self._events >= self._options.count:
            return
        self._events += 1
        if self._options.json:
            line = {"at": round(time.time(), 3), "type": type, "payload": payload.to_dict()}
            self._out.say_json(line, default=_plain)
        else:
            moment = self._out.paint(time.strftime("%H:%M:%S"), "grey")
            kind = self._out.paint(f"{word:<{WIDTH}}", COLOURS.get(word, "blue"))
            self._out.say(
                moment, kind, about, json.dumps(shown, default=_plain, ensure_ascii=False)
            )
        if self._events == self._options.count:
            self._output.end()

    # -- the state of the channel ----------------------------------------------------------

    def status(self, status: str, error: Any) -> None:
        if status == "SUBSCRIBED":
            self._output.note(f"listening to {self._options.topic}", "green")
        elif isinstance(error, self._shown_elsewhere):
            return
        elif error is not None:
            hint = f" ({error.hint})" if getattr(error, "hint", "") else ""
            self._output.note(f"{error}{hint}", "red")
            if not getattr(error, "retryable", True):
                # No event can come any more, so waiting for one makes no sense.
                self.refused = True
                self._output.end()

    def system(self, message: Any) -> None:
        if message.status == "ok":
            self._output.note(message.message, "green")
        else:
            tables = " ".join(f"--table {table}" for table in self._options.table[:1])
            self._output.note(f"{message.message} → supabase-rt doctor {tables}", "red")

    def back(self, downtime: float) -> None:
        self._reconnects += 1
        self._output.note(f"connected again after {downtime:.1f} s", "green")

    def gap(self, since: float, until: float, reason: str) -> None:
        self._output.note(f"events of {until - since:.1f} s may be missing ({reason})", "yellow")

    def summary(self) -> None:
        passed = time.monotonic() - self._started
        again = f", {_count(self._reconnects, 'reconnect')}" if self._reconnects else ""
        self._output.note(f"{_count(self._events, 'event')} in {passed:.0f} s{again}")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _plain(value: Any) -> Any:
    return f"\\x{value.hex()}" if isinstance(value, bytes) else str(value)


COMMAND = Command(
    name="listen",
    summary="show the events of a channel, live",
    description="Show broadcasts, database changes and presence of a channel as they happen.",
    epilog=EPILOG,
    configure=configure,
    run=run,
)
