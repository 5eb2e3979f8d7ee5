"""The five example bots, run as their docstrings say, against the local server."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from supabase_rt import create_client
from supabase_rt.server import LocalRealtime

from ..support.snippets import complaints
from ..support.waiting import until
from ..tools.cli.kit import Serving

EXAMPLES = Path(__file__).parents[2] / "supabase_rt" / "examples"
BOTS = [
    "chat_relay",
    "command_bot",
    "cursor_broadcaster",
    "order_watcher",
    "presence_board",
]
LONGEST = 85

pytestmark = pytest.mark.usefixtures("settings")


@asynccontextmanager
async def running(name: str, *words: str) -> AsyncIterator[Serving]:
    """Runs a bot in a process of its own; it must end with Ctrl+C and print no error."""
    pipe = asyncio.subprocess.PIPE
    flags = ["-X", "dev", "-W", "error", "-m"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *flags, f"supabase_rt.examples.{name}", *words, stdout=pipe, stderr=pipe
    )
    bot = Serving(process)
    try:
        yield bot
        code, out, err = await bot.end()
    except BaseException:
        if process.returncode is None:
            process.kill()
        await process.wait()
        raise
    bot.lines += out.splitlines()
    assert (code, complaints(err)) == (0, [])


def sent(server: LocalRealtime, topic: str) -> list[dict[str, Any]]:
    """Returns the broadcasts to a topic, without the ids that the database adds."""
    return [
        {name: value for name, value in message.payload["payload"].items() if name != "id"}
        for message in server.received
        if message.topic == f"realtime:{topic}" and message.event == "broadcast"
    ]


async def test_the_chat_relay_repeats_each_message_once_in_the_other_room(
    server: LocalRealtime,
) -> None:
    async with running("chat_relay", "lobby", "kitchen") as bot:
        await bot.until("SUBSCRIBED")
        await bot.until("SUBSCRIBED")
        server.broadcast("lobby", "message", {"from": "anna", "text": "hello"})
        assert await bot.until("hello") == "lobby -> kitchen: hello (ok)"
        server.broadcast("kitchen", "message", {"text": "relayed before", "via": "chat_relay"})
        server.broadcast("kitchen", "message", {"from": "ben", "text": "tea?"})
        assert await bot.until("tea") == "kitchen -> lobby: tea? (ok)"
    assert sent(server, "kitchen") == [{"from": "anna", "text": "hello", "via": "chat_relay"}]
    assert sent(server, "lobby") == [{"from": "ben", "text": "tea?", "via": "chat_relay"}]
    assert bot.lines[-1].endswith("CLOSED ")


async def test_the_order_watcher_handles_what_came_while_it_was_not_running(
    server: LocalRealtime, tmp_path: Path
) -> None:
    server.table("orders", {"id": "int8", "item": "text", "amount": "int4"})
    store = str(tmp_path / "handled.db")
    server.insert("orders", {"id": 1, "item": "before its time", "amount": 1})
    async with running("order_watcher", store) as bot:
        # The rows of the first start are recorded before changes begin to flow.
        await bot.until("watching")
        server.insert("orders", {"id": 2, "item": "tea", "amount": 3})
        assert await bot.until("^order") == "order 2: 3 x tea (live)"
    server.insert("orders", {"id": 3, "item": "milk", "amount": 1})
    async with running("order_watcher", store) as bot:
        assert await bot.until("^order") == "order 3: 1 x milk (missed)"
        server.faults.cut()
        await bot.until("CHANNEL_ERROR")
        server.insert("orders", {"id": 4, "item": "sugar", "amount": 2})
        assert re.match("order 4: 2 x sugar", await bot.until("^order"))


async def test_the_presence_board_shows_who_comes_and_goes(server: LocalRealtime) -> None:
    async with running("presence_board", "hall", "anna") as bot:
        await bot.until("^hall: 1 here$")
        assert re.fullmatch(r"  anna  since \d\d:\d\d:\d\d", await bot.until("anna"))
        other = create_client(server.url, server.anon_key)
        async with other.realtime:
            room = other.channel("hall", {"config": {"presence": {"key": "ben"}}})
            room.on("presence", {"event": "sync"}, lambda: None)
            await room.subscribe()
            await room.track({"since": 0})
            await bot.until("^hall: 2 here$")
            # The output goes to a pipe, so it has no codes that clear a screen.
            assert (await bot.until("anna")).startswith("  anna")
            assert (await bot.until("ben")).startswith("  ben")
        await bot.until("^hall: 1 here$")


async def test_the_cursor_broadcaster_sends_and_shows_cursors(server: LocalRealtime) -> None:
    async with running("cursor_broadcaster", "canvas", "anna") as bot:
        await bot.until("SUBSCRIBED")
        await until(lambda: len(sent(server, "canvas")) >= 3)
        server.broadcast("canvas", "cursor", {"name": "ben", "x": 0.5, "y": -1.0})
        assert await bot.until("ben") == "ben is at +0.500 -1.000"
    for cursor in sent(server, "canvas"):
        assert cursor["name"] == "anna"
        assert abs(complex(cursor["x"], cursor["y"])) == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(
    ("text", "reply"),
    [
        pytest.param("!roll 2d6", r"[1-6] \+ [1-6]", id="with-words"),
        pytest.param("!roll many", "!roll: Throw dice, such as 2d6", id="wrong-words"),
        pytest.param("!who", "anna", id="presence"),
        pytest.param("!sing", "no command !sing; try !help", id="unknown"),
        pytest.param("!help", "!help: What there is, !roll: .*", id="help"),
    ],
)
async def test_the_answers_of_the_command_bot(server: LocalRealtime, text: str, reply: str) -> None:
    """The commands run in this process, without a bot for each."""
    from supabase_rt.examples.command_bot import answer

    supabase = create_client(server.url, server.anon_key)
    async with supabase.realtime:
        room = supabase.channel("lobby", {"config": {"presence": {"key": "anna"}}})
        room.on("presence", {"event": "sync"}, lambda: None)
        await room.subscribe()
        await room.track({})
        await until(lambda: "anna" in room.presence_state())
        assert re.fullmatch(reply, await answer(room, text) or "")
        assert await answer(room, "no command") is None


async def test_the_command_bot_answers_in_the_room_and_goes_on(server: LocalRealtime) -> None:
    async with running("command_bot", "lobby") as bot:
        await bot.until("SUBSCRIBED")
        server.broadcast("lobby", "message", {"from": "anna", "text": "just talking"})
        server.broadcast("lobby", "message", {"from": "anna", "text": "!roll no dice"})
        await bot.until("!roll no dice -> ")
        server.broadcast("lobby", "message", {"from": "anna", "text": "!who"})
        assert await bot.until("who") == "!who -> nobody shows"
        await until(lambda: len(sent(server, "lobby")) == 2)
    assert sent(server, "lobby")[-1] == {"from": "bot", "text": "nobody shows"}


@pytest.mark.parametrize("name", BOTS)
def test_an_example_is_short_and_says_how_to_run_it(name: str) -> None:
    text = (EXAMPLES / f"{name}.py").read_text()
    assert len(text.splitlines()) <= LONGEST
    assert f"python -m supabase_rt.examples.{name}" in text.split('"""')[1]
    assert "supabase-rt serve" in text.split('"""')[1]


def test_without_a_project_a_bot_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUPABASE_KEY")
    done = subprocess.run(
        [sys.executable, "-m", "supabase_rt.examples.chat_relay"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("set SUPABASE_URL and SUPABASE_KEY")
