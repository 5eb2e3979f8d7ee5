"""``listen``, ``send`` and ``presence`` on the command line."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from supabase_rt import create_client
from supabase_rt.cli import main
from supabase_rt.server import LocalRealtime

from ...support.recorder import Recorder
from .kit import PYTHON, TIMEOUT


@pytest.fixture
async def local(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LocalRealtime]:
    async with LocalRealtime() as server:
        monkeypatch.setenv("SUPABASE_URL", server.url)
        monkeypatch.setenv("SUPABASE_KEY", server.anon_key)
        monkeypatch.delenv("SUPABASE_TOKEN", raising=False)
        yield server


class Running:
    """A command in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    async def start(cls, *words: str) -> Running:
        pipe = asyncio.subprocess.PIPE
        return cls(await asyncio.create_subprocess_exec(*PYTHON, *words, stdout=pipe, stderr=pipe))

    async def until(self, pattern: str) -> str:
        """Returns the line on stderr that matches."""
        assert self.process.stderr is not None
        async with asyncio.timeout(TIMEOUT):
            while line := (await self.process.stderr.readline()).decode():
                if re.search(pattern, line):
                    return line
        raise AssertionError(f"ended without {pattern!r}")

    async def line(self) -> str:
        assert self.process.stdout is not None
        async with asyncio.timeout(TIMEOUT):
            return (await self.process.stdout.readline()).decode().rstrip("\n")

    async def end(
        self, number: signal.Signals | None = signal.SIGINT
    ) -> tuple[int | None, str, str]:
        if number is not None:
            self.process.send_signal(number)
        async with asyncio.timeout(TIMEOUT):
            out, err = await self.process.communicate()
        return self.process.returncode, out.decode(), err.decode()


async def call(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = await asyncio.to_thread(main, list(words))
    said = capsys.readouterr()
    return code, said.out, said.err


# -- listen --------------------------------------------------------------------------------


async def test_listen_shows_broadcasts_until_ctrl_c(local: LocalRealtime) -> None:
    listening = await Running.start("listen", "room")
    await listening.until("listening to room")
    local.broadcast("room", "cursor", {"x": 1})
    assert re.fullmatch(r'[\d:]{8} broadcast  cursor \{.*"x": 1.*\}', await listening.line())
    code, _, err = await listening.end()
    assert code == 0
    assert re.search(r"1 event in \d+ s", err)
    assert [each.topic for each in local.received if each.event == "phx_leave"] == ["realtime:room"]


async def test_listen_writes_json_lines_of_changes_for_pipes(local: LocalRealtime) -> None:
    listening = await Running.start("listen", "db", "--table", "todos", "--json", "--count", "2")
    await listening.until("Subscribed to PostgreSQL")
    local.insert("todos", {"id": 1, "t": "a\nb"})
    local.update("todos", {"id": 1, "t": "c"})
    first, second = [json.loads(await listening.line()) for _ in range(2)]
    assert first["type"] == "postgres_changes"
    assert first["payload"]["new"] == {"id": 1, "t": "a\nb"}
    assert second["payload"]["eventType"] == "UPDATE"
    code, out, _ = await listening.end(None)
    assert (code, out) == (0, "")


async def test_listen_shows_that_it_reconnects(local: LocalRealtime) -> None:
    listening = await Running.start("listen", "room", "--presence")
    await listening.until("listening to room")
    local.faults.cut()
    await listening.until("connected again")
    code, _, err = await listening.end(signal.SIGTERM)
    assert code == 0
    assert "1 reconnect" in err


async def test_listen_ends_where_nothing_will_ever_come(
    local: LocalRealtime, capsys: pytest.CaptureFixture[str]
) -> None:
    local.faults.refuse_next_join("Unauthorized: no", 9)
    code, out, err = await call(capsys, "listen", "secret", "--private")
    assert (code, out) == (1, "")
    assert "Unauthorized" in err


async def test_a_wrong_key_is_said_once(
    local: LocalRealtime, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = await call(capsys, "listen", "room", "--key", "wrong-key-of-mine")
    assert code == 1
    assert err.count("401") == 1
    assert "wrong-key-of-mine" not in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["room", "--event", "INSERT"], "--event goes with --table"),
        (["room", "--filter", "id=eq.1"], "--filter goes with --table"),
        (["room", "--schema", "shop"], "--schema goes with --table"),
        (["room", "--count", "0"], "1 or more"),
        (["db", "--table", "t", "--event", "CREATED"], "CREATED"),
    ],
)
async def test_wrong_words_are_answered(
    local: LocalRealtime, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    code, _, err = await call(capsys, "listen", *words)
    assert code == 2
    assert said in err


async def test_listen_ends_when_its_reader_has_seen_enough(local: LocalRealtime) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = await asyncio.create_subprocess_exec(
        *PYTHON, "listen", "room", stdout=writer, stderr=asyncio.subprocess.PIPE
    )
    os.close(writer)
    listening = Running(process)
    await listening.until("listening to room")
    local.broadcast("room", "cursor", {"x": 1})
    assert "1 event in" in await listening.until("event")
    assert process.stderr is not None
    assert await process.stderr.read() == b""
    assert await process.wait() == 0


async def test_what_others_send_cannot_steer_the_terminal(local: LocalRealtime) -> None:
    listening = await Running.start("listen", "room", "--count", "1")
    await listening.until("listening to room")
    local.broadcast("room", "\x1b[2Jevil", {"x": "\x1b]0;evil\x07"})
    assert "\x1b" not in await listening.line()
    assert (await listening.end(None))[0] == 0


# -- send ----------------------------------------------------------------------------------


@pytest.fixture
async def got(local: LocalRealtime) -> AsyncIterator[Recorder]:
    supabase = create_client(local.url, local.anon_key)
    found = Recorder()
    await supabase.channel("room").on("broadcast", {"event": "*"}, found).subscribe()
    yield found
    await supabase.realtime.disconnect()


async def test_send_over_the_socket_and_over_http(
    local: LocalRealtime, got: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = await call(capsys, "send", "room", "a", '{"x": 1}', "--json")
    assert (code, json.loads(out)) == (0, {"status": "ok"})
    code, out, err = await call(capsys, "send", "room", "b", '{"x": 2}', "--http")
    assert (code, out, err) == (0, "", "sent b to room\n")
    await got.count(2)
    assert [(each.event, each.payload) for each in got.seen] == [("a", {"x": 1}), ("b", {"x": 2})]


async def test_send_a_file_of_bytes(
    local: LocalRealtime, got: Recorder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sound"
    path.write_bytes(b"\x00\xff")
    code, _, _ = await call(capsys, "send", "room", "sound", f"@{path}", "--binary")
    assert code == 0
    await got.count(1)
    assert got.seen[0].payload == b"\x00\xff"


async def test_a_payload_that_is_too_large_is_said_to_be_so(
    local: LocalRealtime, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "large"
    path.write_bytes(bytes(3_100_000))
    code, _, err = await call(capsys, "send", "room", "a", f"@{path}", "--binary")
    assert code == 1
    assert "not sent: error (is it too large, with 3,100,000 bytes?" in err


async def test_a_number_that_json_does_not_have_is_not_sent_as_null(
    local: LocalRealtime, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = await call(capsys, "send", "room", "a", '{"x": NaN}')
    assert code == 2
    assert "the payload is not JSON: NaN" in err


async def test_what_was_not_taken_fails(
    local: LocalRealtime, capsys: pytest.CaptureFixture[str]
) -> None:
    local.faults.refuse_next_join("Unauthorized: no", 9)
    code, out, err = await call(capsys, "send", "secret", "a", "{}", "--private")
    assert (code, out) == (1, "")
    assert err.startswith("supabase-rt send: Unauthorized")


@pytest.mark.parametrize(
    ("payload", "said"), [("nonsense", "is not JSON"), ("@/nowhere/x", "cannot read /nowhere/x")]
)
async def test_a_payload_that_is_none(
    local: LocalRealtime, capsys: pytest.CaptureFixture[str], payload: str, said: str
) -> None:
    code, _, err = await call(capsys, "send", "room", "a", payload)
    assert code == 2
    assert said in err


# -- presence ------------------------------------------------------------------------------


async def test_presence_tracks_and_shows_the_state(
    local: LocalRealtime, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["presence", "lobby", "--track", '{"mood": "x"}', "--as", "anna", "--once", "--json"]
    code, out, _ = await call(capsys, *words)
    assert code == 0
    state: dict[str, Any] = json.loads(out)
    assert state["anna"][0]["mood"] == "x"


async def test_presence_follows_who_comes_and_goes(local: LocalRealtime) -> None:
    watching = await Running.start("presence", "lobby")
    assert await watching.line() == "0 present"
    supabase = create_client(local.url, local.anon_key)
    other = supabase.channel("lobby", {"config": {"presence": {"key": "ben", "enabled": True}}})
    await other.subscribe()
    await other.track({"n": 1})
    assert await watching.line() == "1 present"
    assert await watching.line() == "  ben {'n': 1}"
    await other.unsubscribe()
    assert await watching.line() == "0 present"
    code, _, _ = await watching.end()
    assert code == 0
    await supabase.realtime.disconnect()


@pytest.mark.parametrize("track", ["nonsense", "[1]"])
async def test_what_is_tracked_is_an_object(
    local: LocalRealtime, capsys: pytest.CaptureFixture[str], track: str
) -> None:
    code, _, err = await call(capsys, "presence", "lobby", "--track", track)
    assert code == 2
    assert "--track is" in err
