"""``supabase-rt send``: one broadcast."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from ..command import Command, CommandFailed
from ..connection_arguments import add_target_options, channel_options, make_client
from ..output import Screen, complain

__all__ = ["COMMAND"]

EPILOG = """\
examples:
  supabase-rt send room cursor '{"x": 1}'
  supabase-rt send room photo @cat.jpg --binary
  date | jq -R . | supabase-rt send room now - --http
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("topic", help="the channel's name, without 'realtime:'")
    parser.add_argument("event", help="the name of the event")
    parser.add_argument("payload", help="JSON; @FILE reads a file, - standard input")
    parser.add_argument("--binary", action="store_true", help="send the payload as bytes, not JSON")
    parser.add_argument("--http", action="store_true", help="send over HTTP, without joining")
    parser.add_argument("--private", action="store_true", help="a private channel")
    parser.add_argument("--json", action="store_true", help="the result as a JSON object")
    add_target_options(parser)


def run(options: argparse.Namespace) -> int:
    """Send the broadcast; returns 0 if the server accepted it."""
    payload = _payload(options)
    status = asyncio.run(_send(options, payload))
    if options.json:
        Screen().say_json({"status": status})
    elif status == "ok":
        complain(f"sent {options.event} to {options.topic}")
    if status != "ok" and not options.json:
        raise CommandFailed(f"not sent: {status}{_advice(status, options, payload)}")
    return 0 if status == "ok" else 1


def _advice(status: str, options: argparse.Namespace, payload: Any) -> str:
    if status == "error":
        size = len(payload if options.binary else json.dumps(payload))
        return f" (is it too large, with {size:,} bytes? A project allows 3,000,000 by default)"
    if options.private:
        return " (the policies on realtime.messages may not allow it: then no answer comes)"
    return " (no answer came; is the server busy?)"


def _payload(options: argparse.Namespace) -> Any:
    given = options.payload
    try:
        if given == "-":
            data = sys.stdin.buffer.read()
        elif given.startswith("@"):
            data = Path(given[1:]).read_bytes()
        else:
            data = given.encode(errors="surrogateescape")
    except OSError as exc:
        raise CommandFailed(f"cannot read {given[1:]}: {exc.strerror}", code=2) from None
    if options.binary:
        return data
    try:
        return json.loads(data, parse_constant=_no_json)
    except ValueError as exc:
        advice = "a text is written '\"so\"'; bytes go with --binary"
        raise CommandFailed(f"the payload is not JSON: {exc} ({advice})", code=2) from None


def _no_json(word: str) -> None:
    raise ValueError(f"{word} is not JSON, only Python and JavaScript know it")


async def _send(options: argparse.Namespace, payload: Any) -> str:
    from ... import RealtimeError

    supabase = make_client(options)
    try:
        # Without an ack nothing shows whether it was allowed.
        channel = supabase.channel(
            options.topic, channel_options(private=options.private, broadcast={"ack": True})
        )
        if options.http:
            await channel.http_send(options.event, payload)
            return "ok"
        async with supabase.realtime:
            await channel.subscribe()
            message = {"type": "broadcast", "event": options.event, "payload": payload}
            return await channel.send(message)
    except RealtimeError as exc:
        raise CommandFailed.of(exc) from None
    except (ValueError, TypeError) as exc:
        raise CommandFailed(str(exc), code=2) from None
    finally:
        await supabase.realtime.disconnect()


COMMAND = Command(
    name="send",
    summary="send a broadcast",
    description="Send one broadcast and wait until the server has taken it.",
    epilog=EPILOG,
    configure=configure,
    run=run,
)
