"""``supabase-rt presence``: show who is in a channel, and be present in it."""

from __future__ import annotations

import argparse
import asyncio
import json
from typing import TYPE_CHECKING, Any

from ..command import Command, CommandFailed
from ..connection_arguments import add_target_options, channel_options, make_client
from ..output import CommandOutput

if TYPE_CHECKING:
    from ... import RealtimeChannel
    from ...types import PresenceOptions

__all__ = ["COMMAND"]

EPILOG = """\
examples:
  supabase-rt presence lobby                                    who is there, on every change
  supabase-rt presence lobby --track '{"mood": "curious"}' --as anna
  supabase-rt presence lobby --once --json                      the present state, for scripts
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("topic", help="the channel's name, without 'realtime:'")
    parser.add_argument("--track", metavar="JSON", help="be present with this data")
    parser.add_argument(
        "--as", dest="presence_key", metavar="NAME", help="the presence key of --track"
    )
    parser.add_argument("--once", action="store_true", help="show the state once, then end")
    parser.add_argument("--private", action="store_true", help="a private channel")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    add_target_options(parser)


def run(options: argparse.Namespace) -> int:
    """Show who is present until Ctrl+C."""
    tracked = None
    if options.track is not None:
        try:
            tracked = json.loads(options.track)
        except ValueError as exc:
            raise CommandFailed(f"--track is not JSON: {exc}", code=2) from None
        if not isinstance(tracked, dict):
            raise CommandFailed('--track is a JSON object, such as \'{"mood": "x"}\'', code=2)
    asyncio.run(_watch(options, tracked))
    return 0


async def _watch(options: argparse.Namespace, tracked: dict[str, Any] | None) -> None:
    from ... import RealtimeError

    supabase = make_client(options)
    presence: PresenceOptions = {"enabled": True}
    if options.presence_key:
        presence["key"] = options.presence_key
    output = CommandOutput()
    printer = _PresencePrinter(options, output, waits=tracked is not None)
    try:
        channel = supabase.channel(
            options.topic, channel_options(private=options.private, presence=presence)
        )
        channel.on("presence", {"event": "sync"}, lambda: printer.state(channel))
        output.end = supabase.realtime.remove_all_channels
        output.note(f"connecting to {supabase.supabase_url} ...")
        async with supabase.realtime:
            await channel.subscribe()
            if tracked is not None:
                status = await channel.track(tracked)
                if status != "ok":
                    raise CommandFailed(f"not tracked: {status}")
                printer.tracked(channel)
            if options.once:
                await asyncio.wait_for(printer.shown.wait(), options.timeout)
            else:
                await supabase.realtime.run_forever()
        if output.unwritten is not None:
            raise output.unwritten
    except TimeoutError:
        raise CommandFailed("the server sent no state; is presence switched off there?") from None
    except RealtimeError as exc:
        raise CommandFailed.of(exc) from None
    except (ValueError, TypeError) as exc:
        raise CommandFailed(str(exc), code=2) from None


class _PresencePrinter:
    """Prints the state at each change; ``waits`` until our own ``track`` is answered."""

    def __init__(self, options: argparse.Namespace, output: CommandOutput, *, waits: bool) -> None:
        self._options = options
        self._out = output.out
        self._waits = waits
        self.shown = asyncio.Event()

    def tracked(self, channel: RealtimeChannel) -> None:
        """Start printing: a state printed before would not list ourselves."""
        self._waits = False
        if channel.presence_state():
            self.state(channel)

    def state(self, channel: RealtimeChannel) -> None:
        if self._waits or (self._options.once and self.shown.is_set()):
            return
        state = channel.presence_state()
        if self._options.json:
            self._out.say_json(state)
        else:
            self._out.say(self._out.paint(f"{len(state)} present", "bold"))
            for key, entries in sorted(state.items()):
                for entry in entries:
                    about = {name: value for name, value in entry.items() if name != "presence_ref"}
                    self._out.say(" ", self._out.paint(key, "cyan"), str(about))
        self.shown.set()


COMMAND = Command(
    name="presence",
    summary="show who is in a channel, or be present in it",
    description="Show the presence state of a channel at every change; with --track be part of it.",
    epilog=EPILOG,
    configure=configure,
    run=run,
)
