"""Text from others cannot control a terminal or forge a log record."""

from __future__ import annotations

import ast
import asyncio
import io
import json
import logging
import pickle
import traceback
import unicodedata
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

import supabase_rt
from supabase_rt import (
    Broadcast,
    ConnectionLost,
    PostgresChange,
    RealtimeError,
    Refused,
    SendError,
    SystemMessage,
    create_client,
    errors,
)
from supabase_rt._printable import LONGEST, get_logger, printable, printable_lines
from supabase_rt.cli import main
from supabase_rt.server import LocalRealtime

from ..support.clients import MakeClient
from ..support.peers import RawPeer, http_peer, raw_peer
from ..support.raw_output import HOSTILE, RawOutput, found_raw
from ..support.waiting import until
from ..tools.cli.kit import PYTHON, command, serving

PACKAGE = Path(supabase_rt.__file__).parent
WIRE = HOSTILE.replace("\ud800", "")
"""The characters that JSON in UTF-8 can contain without an escape."""
ARGUMENT = HOSTILE.replace("\ud800", "\udcff")
"""An argument with a byte that is not UTF-8."""


# -- the function --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;pwned\x07", r"\x1b]0;pwned\x07"),
        ("\x9b31m\x7f", r"\x9b31m\x7f"),
        ("a\r\nERROR forged\tb", r"a\r\nERROR forged\tb"),
        ("\u202eevil\u2066\u2069", r"\u202eevil\u2066\u2069"),
        ("a\u2028b\u2029c\x85", r"a\u2028b\u2029c\x85"),
        ("a\u200bb\ufeffc", r"a\u200bb\ufeffc"),
        ("\ud800", r"\ud800"),
    ],
)
def test_what_steers_a_terminal_is_shown_as_an_escape(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize(
    "text", ["Привет, мир", "日本\u3000語", "👋🏽 café", "déjà\xa0: vu", "שלום", r"a\n"]
)
def test_words_of_any_script_stay_readable(text: str) -> None:
    assert printable(text) == text


@given(st.text(alphabet=st.characters()))
def test_of_any_text_one_harmless_line_remains_that_stays_as_it_is(text: str) -> None:
    shown = printable(text)
    assert printable(shown) == shown
    assert all(unicodedata.category(each) not in ("Cc", "Cf", "Cs", "Zl", "Zp") for each in shown)


def test_a_long_value_is_cut_and_says_so() -> None:
    for text in ("x" * 5_000_000, "\x1b" * 5_000_000):
        shown = printable(text)
        assert len(shown) == LONGEST
        assert shown.endswith("... (5,000,000 characters)")
        assert printable(shown) == shown


def test_of_several_lines_each_is_harmless() -> None:
    assert printable_lines("a\n\tb\x1b[2J\r\n") == "a\n\tb\\x1b[2J\\r\n"


# -- log records ---------------------------------------------------------------------------


@pytest.fixture
def log() -> Iterator[tuple[logging.Logger, io.StringIO]]:
    """Returns a logger of the package, and the output of an ordinary handler."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(
        logging.Formatter("%(levelname)s %(message)s|%(topic)s", defaults={"topic": ""})
    )
    logger = get_logger("supabase_rt.server")
    logger.addHandler(handler)
    yield logger, written
    logger.removeHandler(handler)


class Quoting:
    """A foreign object whose ``repr`` contains its text unchanged."""

    def __repr__(self) -> str:
        return f"<{HOSTILE}>"


@pytest.mark.parametrize("template", ["%s", "%r"])
@pytest.mark.parametrize("value", [HOSTILE, ValueError(HOSTILE), Quoting(), [Quoting()]])
def test_the_arguments_of_a_record_are_escaped(
    log: tuple[logging.Logger, io.StringIO], template: str, value: object
) -> None:
    logger, written = log
    logger.warning(template, value, extra={"topic": HOSTILE})
    logger.warning(template.replace("%", "%(about)"), {"about": value})
    assert found_raw(written.getvalue()) is None
    assert len(written.getvalue().splitlines()) == 2
    assert r"\x1b]0;pwned" in written.getvalue()


def test_the_text_of_a_record_without_arguments_is_escaped(
    log: tuple[logging.Logger, io.StringIO],
) -> None:
    logger, written = log
    logger.warning(HOSTILE)
    assert found_raw(written.getvalue()) is None
    assert len(written.getvalue().splitlines()) == 1


def test_honest_arguments_stay_the_objects_they_are(caplog: pytest.LogCaptureFixture) -> None:
    error = ValueError("plain")
    arguments = ("a topic", 3, error, None)
    get_logger("supabase_rt.server").warning("%s %d %r %s", *arguments)
    assert caplog.records[-1].args == arguments
    assert caplog.records[-1].args[2] is error


def test_no_line_of_a_traceback_looks_like_a_record(
    log: tuple[logging.Logger, io.StringIO],
) -> None:
    logger, written = log
    try:
        try:
            raise ValueError(f"quoting {HOSTILE}")
        except ValueError as exc:
            raise ExceptionGroup(HOSTILE, [RuntimeError("one\nERROR two")]) from exc
    except ExceptionGroup:
        logger.exception("it failed")
    assert found_raw(written.getvalue()) is None
    lines = written.getvalue().splitlines()
    assert [line for line in lines if line.startswith("ERROR")] == ["ERROR it failed|"]
    assert any("ERROR forged" in line for line in lines)


def test_an_honest_traceback_is_left_to_the_formatter(caplog: pytest.LogCaptureFixture) -> None:
    logger = get_logger("supabase_rt.server")
    try:
        raise ValueError("plain")
    except ValueError:
        logger.exception("it failed")
    own = "".join(traceback.format_exception(caplog.records[-1].exc_info[1]))  # type: ignore[index]
    assert caplog.records[-1].exc_text in (None, own.rstrip("\n"))


# -- errors --------------------------------------------------------------------------------


def test_every_error_says_its_message_and_its_hint_on_one_harmless_line() -> None:
    for name in errors.__all__:
        error = getattr(errors, name)(f"no: {HOSTILE}", hint=f"try {HOSTILE}")
        shown = "".join(traceback.format_exception(error))
        assert found_raw(shown) is None, name
        assert len(shown.splitlines()) == 2
        again = pickle.loads(pickle.dumps(error))
        assert (str(again), again.hint) == (str(error), error.hint)


def test_what_a_program_reads_of_an_error_is_as_it_came() -> None:
    assert ConnectionLost("x", reason=HOSTILE).reason == HOSTILE
    assert Refused("x", response={"reason": HOSTILE}).response == {"reason": HOSTILE}


def test_the_repr_of_what_arrives_is_one_harmless_line() -> None:
    change = {
        "schema": HOSTILE,
        "table": HOSTILE,
        "eventType": HOSTILE,
        "commit_timestamp": HOSTILE,
        "errors": [HOSTILE],
        "new": {HOSTILE: HOSTILE},
        "old": {},
    }
    system = {"extension": HOSTILE, "status": HOSTILE, "message": HOSTILE, "channel": HOSTILE}
    found = [
        PostgresChange.from_dict(change),
        SystemMessage.from_dict(system),
        Broadcast.from_dict({"type": "broadcast", "event": HOSTILE, "payload": {HOSTILE: HOSTILE}}),
    ]
    for each in found:
        assert found_raw(f"{each} {each!r}") is None
        assert "\n" not in f"{each} {each!r}"


# -- a hostile server ----------------------------------------------------------------------


def reply(join_ref: str, ref: str, topic: str, status: str, response: Any) -> bytes:
    payload = {"status": status, "response": response}
    return json.dumps([join_ref, ref, topic, "phx_reply", payload]).encode()


async def refusing(peer: RawPeer) -> None:
    """A server that sends hostile text in every message and in its close frame."""
    await peer.handshake()
    join_ref, ref, topic, *_ = json.loads((await peer.receive())[1])
    frames = [
        [None, None, topic, HOSTILE, {HOSTILE: HOSTILE}],
        [None, None, HOSTILE, "broadcast", {"event": HOSTILE}],
        [join_ref, None, topic, "system", {"status": HOSTILE, "message": HOSTILE}],
        [join_ref, HOSTILE, topic, "presence_state", HOSTILE],
        {HOSTILE: HOSTILE},
    ]
    for frame in frames:
        peer.text(json.dumps(frame).encode())
    peer.text(WIRE.encode())
    peer.text(reply(join_ref, ref, topic, "error", {"reason": f"Boom: {HOSTILE}"}))
    peer.frame(0x88, (4321).to_bytes(2, "big") + WIRE.encode())
    await peer.eof()


async def test_a_hostile_server_reaches_logs_and_errors_only_escaped(
    make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "supabase_rt")
    told: list[str] = []
    async with raw_peer(refusing) as url:
        client = make_client(
            url, logger=lambda kind, message, data: told.append(f"{kind} {message}")
        )
        client.on("error", lambda error: told.append(f"{error} {error!r} {error.hint}"))
        channel = client.channel("room")
        channel.on("broadcast", {"event": "*"}, lambda message: told.append(repr(message)))
        statuses: list[str] = []
        channel.subscribe(lambda status, error: statuses.append(f"{status} {error} {error!r}"))
        await until(lambda: any("Boom" in status for status in statuses))
        await until(lambda: any("4321" in record.getMessage() for record in caplog.records))
        await client.disconnect()
    for text in [*told, *statuses]:
        assert found_raw(text) is None, ascii(text)
        assert "\n" not in text, text
    assert any("pwned" in text for text in told)


async def test_the_answer_of_a_hostile_http_server_is_escaped(make_client: MakeClient) -> None:
    body = json.dumps({"message": f"no {HOSTILE}"})
    async with http_peer(status=400, body=body) as peer:
        client = make_client(peer.url.replace("http", "ws") + "/realtime/v1")
        with pytest.raises(SendError) as caught:
            await client.channel("room").http_send("x", {})
    shown = "".join(traceback.format_exception(caught.value))
    assert "pwned" in str(caught.value)
    assert found_raw(shown) is None


# -- commands ------------------------------------------------------------------------------


@pytest.fixture
async def local(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LocalRealtime]:
    async with LocalRealtime() as server:
        monkeypatch.setenv("SUPABASE_URL", server.url)
        monkeypatch.setenv("SUPABASE_KEY", server.anon_key)
        monkeypatch.delenv("SUPABASE_TOKEN", raising=False)
        yield server


async def call(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int | None, str]:
    """Runs a command; returns its exit code and its output."""

    def run() -> int | None:
        try:
            return main(list(words))
        except SystemExit as exc:
            return exc.code if isinstance(exc.code, int) else None

    code = await asyncio.to_thread(run)
    said = capsys.readouterr()
    return code, said.out + said.err


async def test_send_says_where_it_sent_to_on_one_line(
    local: LocalRealtime, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = await call(capsys, "send", "room", f"{WIRE}", "{}")
    assert (code, found_raw(said), len(said.splitlines())) == (0, None, 1)


@pytest.mark.parametrize(
    "words",
    [
        ["send", HOSTILE, "e", "{}"],
        ["send", "room", "e", ARGUMENT],
        ["send", "room", "e", f"@{WIRE}"],
        ["listen", HOSTILE],
        ["listen", "room", f"--{HOSTILE}"],
        ["listen", "room", "--count", HOSTILE],
        ["listen", "room", "--table", "t", "--event", WIRE],
        ["presence", "room", "--track", HOSTILE],
        ["presence", "room", "--timeout", HOSTILE],
        ["serve", "--port", HOSTILE],
        ["serve", f"--max-joins-per-second={HOSTILE}"],
        ["doctor", "--url", f"ftp://{WIRE}"],
        ["gen", "types", "--from-file", WIRE],
        ["gen", "types", "--url", f"http://127.0.0.1:1/{WIRE}"],
        ["gen", HOSTILE],
        [HOSTILE],
    ],
)
async def test_wrong_words_are_quoted_escaped(
    local: LocalRealtime, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    code, said = await call(capsys, *words)
    assert code not in (0, None)
    assert said
    assert found_raw(said) is None, ascii(said)
    assert not any(line.startswith("ERROR forged") for line in said.splitlines())


def test_serve_quotes_a_database_url_escaped() -> None:
    ended = command("serve", "--db", f"postgresql://u@127.0.0.1:1/{quote(WIRE)}")
    assert ended.returncode == 1
    assert "cannot connect" in ended.stderr
    assert found_raw(ended.stdout + ended.stderr) is None
    assert len(ended.stderr.splitlines()) == 1


async def test_gen_types_quotes_a_hostile_schema_escaped(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    about = {"type": "object", "properties": {HOSTILE: {"type": "integer"}, "a b": {}, "a-b": {}}}
    path = tmp_path / "openapi.json"
    path.write_text(json.dumps({"definitions": {HOSTILE: about, WIRE: about}}))
    for words in ([], ["--only", "x"], ["--only", HOSTILE], ["-o", str(tmp_path / WIRE)]):
        code, said = await call(capsys, "gen", "types", "--from-file", str(path), *words)
        assert said, words
        assert found_raw(said) is None, (words, code, ascii(said))
        assert not any(line.startswith("ERROR forged") for line in said.splitlines())


async def test_listen_and_presence_show_events_of_others_escaped(local: LocalRealtime) -> None:
    pipe = asyncio.subprocess.PIPE
    said = ""
    for words in (
        ["listen", "room", "--table", "t", "--broadcast", "*", "--presence", "--count", "3"],
        ["presence", "room", "--once"],
    ):
        process = await asyncio.create_subprocess_exec(*PYTHON, *words, stdout=pipe, stderr=pipe)
        other = create_client(local.url, local.anon_key)
        async with other.realtime:
            channel = other.channel("room", {"config": {"presence": {"key": WIRE}}})
            await channel.subscribe()
            if words[0] == "listen":
                assert process.stderr is not None
                while b"listening" not in (line := await process.stderr.readline()):
                    said += line.decode()
                local.insert("t", {WIRE: WIRE})
                await channel.send(
                    {"type": "broadcast", "event": WIRE, "payload": {HOSTILE: HOSTILE}}
                )
            await channel.track({WIRE: {"nested": [WIRE]}})
            out, err = await asyncio.wait_for(process.communicate(), 30)
        said += out.decode() + err.decode()
        assert "pwned" in out.decode()
    assert found_raw(said) is None, ascii(said)
    assert not any(line.startswith("ERROR forged") for line in said.splitlines())


async def accepting(peer: RawPeer) -> None:
    """A server that accepts a client and then sends hostile events."""
    await peer.handshake()
    join_ref, ref, topic, _, payload = json.loads((await peer.receive())[1])
    asked = payload["config"]["postgres_changes"]
    ids = [{**each, "id": number} for number, each in enumerate(asked, 1)]
    peer.text(reply(join_ref, ref, topic, "ok", {"postgres_changes": ids}))
    change = {
        "type": HOSTILE,
        "schema": "public",
        "table": "t",
        "commit_timestamp": HOSTILE,
        "columns": [],
        "record": {HOSTILE: HOSTILE},
        "errors": [HOSTILE],
    }
    for event, content in (
        ("system", {"extension": HOSTILE, "status": "ok", "message": HOSTILE, "channel": "x"}),
        ("system", {"extension": HOSTILE, "status": "error", "message": HOSTILE}),
        ("postgres_changes", {"ids": [1], "data": change}),
        ("postgres_changes", {"ids": [1], "data": {**change, "type": "INSERT"}}),
        ("broadcast", {"type": "broadcast", "event": HOSTILE, "payload": {HOSTILE: HOSTILE}}),
        ("presence_state", {HOSTILE: {"metas": [{"phx_ref": HOSTILE, HOSTILE: {"a": HOSTILE}}]}}),
    ):
        peer.text(json.dumps([None, None, topic, event, content]).encode())
    peer.frame(0x88, (4321).to_bytes(2, "big") + WIRE.encode())
    await peer.eof()


@pytest.mark.parametrize(
    ("server", "words"),
    [
        (accepting, ["listen", "r", "--table=t", "--broadcast=*", "--presence", "--count=4"]),
        (refusing, ["listen", "r"]),
        (accepting, ["presence", "r", "--once"]),
        (refusing, ["presence", "r"]),
        (refusing, ["send", "r", "e", "{}"]),
    ],
)
async def test_commands_show_what_a_hostile_server_says_escaped(
    server: Callable[[RawPeer], Awaitable[None]], words: list[str]
) -> None:
    pipe = asyncio.subprocess.PIPE
    async with raw_peer(server) as url:
        target = [f"--url={url.removesuffix('/realtime/v1').replace('ws', 'http')}", "--key=x.y.z"]
        command = [*PYTHON, *words, *target]
        process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)
        # The command is ended in any case, because some of them would run for ever.
        waiting = asyncio.create_task(process.communicate(), name="communicate")
        await asyncio.wait([waiting], timeout=4)
        if not waiting.done():
            process.terminate()
        out, err = await asyncio.wait_for(waiting, 30)
    said = out.decode() + err.decode()
    assert "pwned" in said
    assert found_raw(said) is None, ascii(said)
    assert not any(line.startswith("ERROR forged") for line in said.splitlines())
    assert "Traceback" not in said


def nest(depth: int) -> str:
    """Returns an object nested to the given depth."""
    return '{"k":' * depth + "1" + "}" * depth


async def test_serve_shows_what_its_clients_chose_escaped() -> None:
    nested: Any = WIRE
    for _ in range(30):
        nested = {WIRE: [nested]}
    async with serving("--no-status-page") as local:
        url, key = local.shown["URL"], local.shown["anon key"]
        async with aiohttp.ClientSession() as session:
            socket = f"{local.shown['WebSocket']}/websocket?apikey={key}&vsn=1.0.0"
            async with session.ws_connect(socket) as ws:
                for topic in (f"realtime:{WIRE}", "realtime:room"):
                    for event, payload in (
                        ("phx_join", {"config": {"presence": {"key": WIRE}}}),
                        ("broadcast", {"type": "broadcast", "event": WIRE, "payload": nested}),
                        ("presence", {"type": "presence", "event": "track", "payload": nested}),
                        ("presence", {"type": "presence", "event": WIRE, "payload": nested}),
                        (WIRE, {WIRE: nested}),
                        ("access_token", {"access_token": WIRE}),
                        ("phx_leave", {}),
                    ):
                        message = {"topic": topic, "event": event, "payload": payload}
                        await ws.send_json({**message, "ref": "1", "join_ref": "1"})
                for depth in range(940, 1000, 4):
                    # Some of these depths can be read, but not written.
                    deep = f'{{"type": "presence", "event": "track", "payload": {nest(depth)}}}'
                    about = {"topic": f"realtime:{WIRE}{depth}", "ref": "1", "join_ref": "1"}
                    config = {"config": {"presence": {"key": "k", "enabled": True}}}
                    await ws.send_json({**about, "event": "phx_join", "payload": config})
                    text = json.dumps({**about, "event": "presence", "payload": None})
                    await ws.send_str(text.replace("null", deep))
                await ws.send_str(WIRE)
                await ws.close(code=4000, message=WIRE.encode())
            for path in (f"/rest/v1/{WIRE}", f"/realtime/v1/{WIRE}"):
                await session.get(f"{url}{path}", headers={"apikey": key})
            messages = [{"topic": WIRE, "event": WIRE, "payload": {}}]
            send = f"{url}/realtime/v1/api/broadcast"
            await session.post(send, json={"messages": messages}, headers={"apikey": key})
        for line in (
            f"GET /{WIRE} HTTP/1.1\r\n\r\n",
            f"{WIRE} / HTTP/1.1\r\n\r\n",
            "GET / H\x1b\r\n\r\n",
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
            writer.write(f"{line}\r\n\r\n".encode())
            await reader.read()
            writer.close()
        code, out, err = await local.end()
    said = "\n".join(local.lines) + out + err
    assert code == 0
    assert "pwned" in out
    assert found_raw(said) is None, ascii(said)
    assert not any(line.startswith("ERROR forged") for line in said.splitlines())


# -- nothing new goes round it -------------------------------------------------------------


def places(*names: str) -> set[str]:
    """Returns the modules that use one of these names, with or without a dot."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            text = ast.unparse(node) if isinstance(node, ast.Name | ast.Attribute) else ""
            if text in names:
                found.add(str(path.relative_to(PACKAGE)))
    return found


def test_loggers_are_made_in_one_place() -> None:
    """Commands and the demo only add handlers to the package's logger."""
    made = places("logging.getLogger", "logging.Logger.manager")
    assert made == {
        "_printable.py",
        "cli/connection_arguments.py",
        "cli/commands/serve.py",
        "examples/demo.py",
    }


def test_commands_print_with_the_screen() -> None:
    printing = places("print", "sys.stdout.write", "sys.stderr.write", "sys.stdout.buffer")
    assert {path for path in printing if not path.startswith("examples/")} == {"cli/output.py"}


def test_every_own_exception_that_ends_in_a_terminal_escapes_its_message() -> None:
    from supabase_rt.cli.command import CommandFailed
    from supabase_rt.cli.gen_types import SchemaError
    from supabase_rt.server import DatabaseProblem

    for kind in (RealtimeError, CommandFailed, SchemaError, DatabaseProblem):
        assert str(kind(HOSTILE)) == printable(HOSTILE)


@pytest.mark.raw_output("on purpose")
@pytest.mark.parametrize("said", [HOSTILE, "\x1b[31mred", "a\u202eb", "\x9b2J"])
def test_the_watch_over_the_suite_sees_what_is_said_raw(said: str) -> None:
    watch = RawOutput()
    watch.emit(logging.LogRecord("supabase_rt", 30, "", 0, "%s", (said,), None))
    assert watch.told
    watch.told.clear()
    watch.see("stdout", f"x {said}")
    watch.see("stdout", "an honest line\n\tand another, ключ")
    assert len(watch.told) == 1


@pytest.mark.raw_output("the report of the tests within")
def test_the_watch_fails_a_test_that_says_it(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import logging, pytest
        def test_honest(): print("ключ\\n\\ttab"), logging.getLogger("supabase_rt").critical("ключ")
        def test_print(): print("\\x1b[31m")
        def test_log(): logging.getLogger("supabase_rt.new").critical("a\\u202eb")
        def test_forge(): logging.getLogger("supabase_rt.new").critical("a\\nERROR b")
        @pytest.mark.raw_output("on purpose")
        def test_exempt(): print("\\x1b[31m")
        """
    )
    pytester.makeini("[pytest]\nmarkers = raw_output(why): exempt")
    found = pytester.runpytest_inprocess("-p", "tests.support.raw_output", "-p", "no:asyncio")
    found.assert_outcomes(passed=5, errors=3)
