"""``make demo``: a bot that receives live events and survives the loss of its connection.

By default it starts a local server with an embedded PostgreSQL, plays the other users, and cuts
the bot's connection once. With ``SUPABASE_URL`` and ``SUPABASE_KEY`` it runs against that project
until Ctrl+C, or for ``DEMO_SECONDS``. ``SUPABASE_TABLE`` names a table to follow.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from supabase_rt import (
    Broadcast,
    PostgresChange,
    RealtimeChannel,
    RealtimeClient,
    RealtimeError,
    SubscribeStatus,
    SupabaseClient,
    create_client,
)
from supabase_rt._printable import printable

if TYPE_CHECKING:
    from supabase_rt.server import LocalRealtime

PAUSE = float(os.environ.get("DEMO_PAUSE") or 0.5)
"""Seconds between two scenes of the local demo, so that one can read along."""

PATIENCE = 5.0
"""Seconds to wait for an expected line."""

COLOURS = {
    "demo": 36,
    "sql": 37,
    "change": 32,
    "broadcast": 35,
    "presence": 34,
    "status": 33,
    "connection": 33,
    "error": 31,
}


class DemoScreen:
    """Prints aligned lines with the time and a label, in colour only on a terminal."""

    def __init__(self) -> None:
        self.started: float = time.monotonic()
        self.colours: bool = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        self.scene: list[str] = []
        self.printed: asyncio.Event = asyncio.Event()

    def say(self, label: str, *words: object) -> None:
        """Print one line."""
        text = printable(" ".join(str(word) for word in words if word != ""))
        shown = f"{label:<10}"
        if self.colours:
            shown = f"\x1b[{COLOURS[label]}m{shown}\x1b[0m"
        print(f"{time.monotonic() - self.started:6.2f} s  {shown}  {text}", flush=True)
        self.scene.append(f"{label} {text}")
        self.printed.set()

    async def begin(self, *words: object) -> None:
        """Begin a scene: a pause, and a line that says what happens now."""
        await asyncio.sleep(PAUSE)
        self.scene.clear()
        self.say("demo", *words)

    async def until(self, line: str) -> None:
        """Wait for a line that starts like this; raises a ``TimeoutError`` that names it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while not any(said.startswith(line) for said in self.scene):
                    self.printed.clear()
                    await self.printed.wait()
                return
        raise TimeoutError(f"did not see {line!r} within {PATIENCE:g} s")


def bot(supabase: SupabaseClient, screen: DemoScreen, table: str | None) -> RealtimeChannel:
    """Start the bot; from now on it only acts in these four handlers."""

    def on_change(change: PostgresChange) -> None:
        row = change.old if change.event_type == "DELETE" else change.new
        screen.say("change", change.event_type, change.table, dict(row))

    def on_broadcast(message: Broadcast) -> None:
        screen.say("broadcast", message.event, message.payload)

    def on_presence() -> None:
        screen.say("presence", "here now:", ", ".join(sorted(channel.presence_state())) or "nobody")

    def on_status(status: SubscribeStatus, error: Exception | None) -> None:
        screen.say("status", status, f"({error})" if error else "")

    channel = supabase.channel(
        "room", {"config": {"broadcast": {"self": True}, "presence": {"key": "bot"}}}
    )
    if table is not None:
        changes = {"event": "*", "schema": "public", "table": table}
        channel.on("postgres_changes", changes, on_change)
    return (
        channel.on("broadcast", {"event": "*"}, on_broadcast)
        .on("presence", {"event": "sync"}, on_presence)
        .subscribe(on_status)
    )


def narrate(client: RealtimeClient, screen: DemoScreen) -> None:
    """Print what the client reports about its connection."""

    def reconnecting(attempt: int, delay: float) -> None:
        screen.say("connection", f"lost; trying again in {delay:.1f} s")

    def reconnected(downtime: float) -> None:
        screen.say("connection", f"back after {downtime * 1000:.0f} ms")

    def failed(error: BaseException) -> None:
        screen.say("error", in_words(error))

    client.on("reconnecting", reconnecting).on("reconnected", reconnected).on("error", failed)


def in_words(error: BaseException) -> str:
    """Returns an error and its hint in one line."""
    hint = getattr(error, "hint", "")
    return f"{error}; {hint}" if hint else str(error)


# -- with a local server -------------------------------------------------------------------


TABLE = """
create table messages (id int primary key, text text);
alter publication supabase_realtime add table messages;
"""
INSERT = "insert into messages values ({id}, '{text}')"
UPDATE = "update messages set text = '{text}' where id = {id}"
DELETE = "delete from messages where id = {id}"


async def local_demo(screen: DemoScreen) -> None:
    """Run all on this machine: a database, the server, the bot, and a visitor."""
    async with contextlib.AsyncExitStack() as stack:
        server = await start_server(stack, screen)
        screen.say("demo", f"a local Realtime server listens at {server.url}")
        supabase = create_client(server.url, server.anon_key)
        narrate(supabase.realtime, screen)
        async with supabase.realtime:
            channel = bot(supabase, screen, "messages")
            await channel.ready()
            channel.track({"mood": "curious"})
            await screen.until("presence here now: bot")
            await scenes(server, channel, screen)
        await screen.until("status CLOSED")
    health = supabase.realtime.health()
    screen.say(
        "demo", f"done: {health.frames_in} frames received, {health.reconnects} reconnection"
    )


async def start_server(stack: contextlib.AsyncExitStack, screen: DemoScreen) -> LocalRealtime:
    """Start a server with a PostgreSQL, or without if none can run."""
    from supabase_rt.server import DatabaseProblem, LocalRealtime

    screen.say("demo", "starting PostgreSQL and a Realtime server; both are gone afterwards")
    try:
        server = await stack.enter_async_context(LocalRealtime(embedded_db=True))
    except DatabaseProblem as exc:
        screen.say("demo", f"without a database, changes are made up by the server: {exc}")
        return await stack.enter_async_context(LocalRealtime())
    await server.sql(TABLE)
    return server


async def scenes(server: LocalRealtime, channel: RealtimeChannel, screen: DemoScreen) -> None:
    """Play the scenes of the demo."""
    await screen.begin("somebody writes to the database")
    insert, update, delete = server.insert, server.update, server.delete
    row = {"id": 1, "text": "hello"}
    changed = {"id": 1, "text": "hello, world"}
    await write(server, screen, INSERT.format(**row), lambda: insert("messages", row))
    await write(server, screen, UPDATE.format(**changed), lambda: update("messages", changed))
    await write(server, screen, DELETE.format(**row), lambda: delete("messages", row))

    await screen.begin("anna visits the room")
    await visit(create_client(server.url, server.anon_key), screen)
    await screen.until("presence here now: bot")

    await screen.begin("the connection of the bot is cut")
    server.faults.cut()
    await screen.until("status SUBSCRIBED")
    await channel.ready()
    await screen.until("presence here now: bot")

    await screen.begin("and the events go on")
    row = {"id": 2, "text": "still there?"}
    await write(server, screen, INSERT.format(**row), lambda: insert("messages", row))
    server.broadcast("room", "goodbye", {"from": "the server"})
    await screen.until("broadcast goodbye")

    await screen.begin("the bot leaves")


async def write(
    server: LocalRealtime, screen: DemoScreen, statement: str, made_up: Callable[[], object]
) -> None:
    """Change the table, or publish the change without a database; wait for it to arrive."""
    screen.say("sql", statement)
    if server.has_database:
        await server.sql(statement)
    else:
        made_up()
    await screen.until(f"change {statement.split()[0].upper()}")


async def visit(supabase: SupabaseClient, screen: DemoScreen) -> None:
    """Have another user join the room, send a message and leave."""
    async with supabase.realtime:
        room = supabase.channel("room", {"config": {"presence": {"key": "anna", "enabled": True}}})
        await room.subscribe()
        room.track({"mood": "chatty"})
        await screen.until("presence here now: anna, bot")
        await room.send({"type": "broadcast", "event": "cursor", "payload": {"x": 3, "y": 4}})
        await screen.until("broadcast cursor")
        screen.scene.clear()


# -- with a project ------------------------------------------------------------------------


async def project_demo(screen: DemoScreen, url: str, key: str) -> None:
    """Run against a Supabase project, until Ctrl+C or for ``DEMO_SECONDS``."""
    seconds = float(os.environ.get("DEMO_SECONDS") or "inf")
    supabase = create_client(url, key)
    client = supabase.realtime
    screen.say("demo", f"connecting to {url}")
    await client.connect()
    narrate(client, screen)
    channel = bot(supabase, screen, os.environ.get("SUPABASE_TABLE") or None)
    await channel
    screen.say("demo", "stay tuned; Ctrl+C ends it")
    channel.track({"mood": "curious"})
    talking = asyncio.create_task(talk(channel), name="demo:talk")
    try:
        async with asyncio.timeout(None if seconds == float("inf") else seconds):
            await client.run_forever()
    except TimeoutError:
        pass
    finally:
        talking.cancel()


async def talk(channel: RealtimeChannel) -> None:
    """Send a message every few seconds, for others in the room."""
    for number in itertools.count(1):
        channel.send({"type": "broadcast", "event": "hello", "payload": {"number": number}})
        await asyncio.sleep(5.0)


# -- main ----------------------------------------------------------------------------------


def main() -> int:
    """Run the demo that the environment asks for; returns the exit code."""
    # The demo prints errors itself; the log would print them a second time.
    logging.getLogger("supabase_rt").addHandler(logging.NullHandler())
    screen = DemoScreen()
    url, key = os.environ.get("SUPABASE_URL"), os.environ.get("SUPABASE_KEY")
    try:
        if url and key:
            asyncio.run(project_demo(screen, url, key))
        elif url or key:
            screen.say("error", "set both SUPABASE_URL and SUPABASE_KEY, or neither")
            return 2
        else:
            asyncio.run(local_demo(screen))
    except KeyboardInterrupt:
        screen.say("demo", "stopped")
        return 130
    except (RealtimeError, ValueError, TimeoutError, ImportError) as exc:
        screen.say("error", in_words(exc))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
