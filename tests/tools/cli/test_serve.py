"""``supabase-rt serve`` without a database."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys

import aiohttp
import pytest

from supabase_rt import Broadcast, RealtimeClient, Refused, create_client
from supabase_rt.cli import main
from tests.support.programs import run_program

from .kit import PYTHON, command, serving

SECRET = "a-secret-of-our-own-with-40-characters!!"


async def test_what_it_prints_is_enough_to_start_a_bot() -> None:
    async with serving() as server:
        start = server.lines.index("A bot to start with:") + 1
        bot = await run_program(
            "\n".join(server.lines[start:-1]), until="SUBSCRIBED", send=signal.SIGINT
        )
        assert bot.out.split() == ["SUBSCRIBED", "CLOSED"]
        await server.until("disconnect")
        code, out, err = await server.end()
    assert (code, out, err) == (0, "stopping ...\n", "")
    log = "\n".join(server.lines[server.lines.index("Ctrl+C ends it") + 1 :])
    assert [line.split()[3] for line in log.splitlines()] == [
        "connect",
        "join",
        "leave",
        "disconnect",
    ]
    assert "socket 1" in log
    assert "eyJ" not in log


async def test_the_log_tells_what_is_asked_and_what_becomes_of_it() -> None:
    async with serving(f"--jwt-secret={SECRET}", "--max-channels-per-client=1") as server:
        supabase = create_client(server.shown["URL"], server.shown["anon key"])
        got: list[Broadcast] = []
        async with supabase.realtime:
            room = supabase.channel("room", {"config": {"broadcast": {"self": True}}})
            await room.on("broadcast", {"event": "*"}, got.append).subscribe()
            await server.until("socket 1 +join +room$")
            with pytest.raises(Refused):
                await supabase.channel("one too many").subscribe()
            await server.until("socket 1 +refused +one too many ChannelRateLimitReached")
            await room.send({"type": "broadcast", "event": "hi", "payload": {"x": "unseen"}})
            await server.until(r"socket 1 +broadcast +room hi → 1$")
            await room.http_send("there", {"x": "unseen"})
            await server.until(r"broadcast +room there → 1$")
            await server.until(r"http +POST +/realtime/v1/api/broadcast/.* 202 Accepted$")
            room.track({"mood": "good"})
            await server.until(r"presence +room \+")
        stranger = RealtimeClient(server.shown["WebSocket"], params={"apikey": "wrong"})
        with pytest.raises(Exception, match="401"):
            await stranger.connect()
        await stranger.disconnect()
        await server.until("http +refused +/realtime/v1/websocket 401 Unauthorized$")
        assert not any("unseen" in line for line in server.lines)


async def test_a_quiet_server_says_nothing_more() -> None:
    async with serving("--quiet", SUPABASE_JWT_SECRET=SECRET) as server:
        supabase = create_client(server.shown["URL"], server.shown["anon key"])
        async with supabase.realtime:
            await supabase.channel("room").subscribe()
        assert await server.end(signal.SIGTERM) == (0, "stopping ...\n", "")
    assert not any(SECRET in line for line in server.lines)


async def test_a_public_address_is_warned_of() -> None:
    async with serving("--host=0.0.0.0") as server:
        assert any(line.startswith("careful: others can reach") for line in server.lines)
    async with serving("--host=127.0.0.2") as server:
        assert not any("careful" in line for line in server.lines)


async def test_the_address_that_it_prints_opens_the_status_page() -> None:
    async with serving("--allow-host=dev.example", "--allow-origin=https://app.example") as server:
        url, _, token = server.shown["Inspector"].partition("/#token=")
        assert url == server.shown["URL"]
        rows = f"{url}/inspector/rows"
        bearer = {"Authorization": f"Bearer {token}"}
        foreign = {"Host": "evil.example"}
        allowed = {"Host": "dev.example", "Origin": "https://app.example"}
        async with aiohttp.ClientSession() as session:
            for headers, status in (
                (bearer, 200),
                ({**bearer, **allowed}, 200),
                ({**bearer, **foreign}, 403),
                ({"Authorization": f"Bearer {server.shown['service key']}"}, 401),
            ):
                async with session.get(rows, headers=headers) as response:
                    assert response.status == status
        await server.until("http +refused +/inspector/rows 403 Forbidden: Host evil.example is not")
        assert not any(token in line for line in server.lines if "Inspector" not in line)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        pytest.param(["--port=70000"], 2, "'70000' is not a port from 0 to 65535", id="port"),
        pytest.param(["--host=192.0.2.1"], 1, "cannot listen at 192.0.2.1:54321", id="host"),
        pytest.param(["--jwt-secret=short"], 1, "must have at least 32 bytes", id="secret"),
        pytest.param(["--idle-timeout=soon"], 2, "'soon' is not a number", id="limit"),
        pytest.param(["--presence-limit=5"], 2, "not of the form CALLS/SECONDS", id="pair"),
        pytest.param(["--slot=mine"], 2, "--slot goes with --db", id="slot"),
        pytest.param(["--db=x", "--embedded-db"], 2, "not allowed with argument", id="two"),
        pytest.param(
            ["--db=postgresql://u:hidden@127.0.0.1:1/x"], 1, "cannot connect to the", id="no-db"
        ),
        pytest.param(["--db=postgresql:/u:hidden@h"], 1, "postgresql://USER:PASS", id="bad-url"),
        pytest.param(
            ["--db=postgresql://u:hid@hidden@h/x"], 1, "percent-encoded", id="bad-password"
        ),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        sys.exit(main(["serve", *words]))
    assert ended.value.code == code
    out, err = capsys.readouterr()
    last = err.splitlines()[-1]
    assert last.startswith("supabase-rt serve: ")
    assert said in last
    assert code == 2 or err.count("\n") == 1
    assert "hidden" not in err + out


def test_a_reader_that_has_seen_enough_ends_it() -> None:
    words = [*PYTHON, "serve", "--port=0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 0


def test_a_port_in_use_is_said_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = command("serve", f"--port={port}")
    assert done.returncode == 1
    assert done.stderr == (
        f"supabase-rt serve: 127.0.0.1:{port} is taken by another program; "
        "choose another --port, or 0 for a free one\n"
    )
