"""A bot that obeys commands in a chat room: ``!help``, ``!roll 2d6``, ``!who``.

::

    supabase-rt serve                                   # in one terminal; prints URL and key
    export SUPABASE_URL=... SUPABASE_KEY=...            # in the others
    python -m supabase_rt.examples.command_bot lobby
    supabase-rt listen lobby
    supabase-rt send lobby message '{"from": "anna", "text": "!roll 2d6"}'

Ctrl+C ends it. A new command is a function with ``@command`` above it.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Awaitable, Callable

from supabase_rt import Broadcast, RealtimeChannel, create_client
from supabase_rt.examples.environment import printable, project

Command = Callable[[RealtimeChannel, str], Awaitable[str]]
COMMANDS: dict[str, Command] = {}


def command(function: Command) -> Command:
    """Let ``!name`` call a function of this name with the room and the words after it."""
    COMMANDS[function.__name__] = function
    return function


@command
async def help(room: RealtimeChannel, words: str) -> str:
    """What there is"""
    return ", ".join(f"!{name}: {found.__doc__}" for name, found in sorted(COMMANDS.items()))


@command
async def roll(room: RealtimeChannel, words: str) -> str:
    """Throw dice, such as 2d6"""
    count, sides = (int(number) for number in (words or "1d6").split("d"))
    if not (1 <= count <= 20 and 2 <= sides <= 1000):
        raise ValueError
    return " + ".join(str(random.randint(1, sides)) for _ in range(count))


@command
async def who(room: RealtimeChannel, words: str) -> str:
    """List who is in the room"""
    return ", ".join(sorted(room.presence_state())) or "nobody shows"


async def answer(room: RealtimeChannel, text: str) -> str | None:
    """Returns the answer to a message; None if it is not a command."""
    name, _, words = text.removeprefix("!").partition(" ")
    if not text.startswith("!"):
        return None
    if name not in COMMANDS:
        return f"no command !{name}; try !help"
    try:
        return await COMMANDS[name](room, words.strip())
    except ValueError:
        return f"!{name}: {COMMANDS[name].__doc__}"


def main(topic: str = "lobby") -> None:
    """Obey until Ctrl+C."""
    supabase = create_client(*project())
    room = supabase.channel(topic, {"config": {"presence": {"key": "bot", "enabled": True}}})

    @room.on("broadcast", {"event": "message"})
    async def on_message(message: Broadcast) -> None:
        said = await answer(room, str(message.payload.get("text", "")))
        if said is not None:
            print(printable(f"{message.payload['text']} -> {said}"), flush=True)
            reply = {"from": "bot", "text": said}
            await room.send({"type": "broadcast", "event": "message", "payload": reply})

    room.subscribe(lambda status, error: print(status, error or "", flush=True))
    supabase.realtime.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
