"""The command line itself: finding commands, and exit codes."""

from __future__ import annotations

import argparse
import dataclasses
import os
import subprocess
import sys
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from supabase_rt import __version__
from supabase_rt._printable import printable
from supabase_rt.cli import main
from supabase_rt.cli.command import Command, CommandFailed
from supabase_rt.cli.commands import find_commands
from supabase_rt.cli.commands.serve import settings
from supabase_rt.cli.conninfo import without_password
from supabase_rt.cli.dataclass_arguments import add_field_options, field_values
from supabase_rt.cli.program import make_parser
from supabase_rt.server import Settings

from .kit import PYTHON, command

WITHOUT_SERVER = """
import sys
sys.modules["jwt"] = None
from supabase_rt.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_every_command_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    names = [found.name for found in find_commands()]
    assert "serve" in names
    for name in names:
        with pytest.raises(SystemExit) as ended:
            main([*name.split(), "--help"])
        assert ended.value.code == 0
        assert f"usage: supabase-rt {name}" in capsys.readouterr().out


def test_commands_may_have_two_words() -> None:
    def configure(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--out")

    def fail(options: argparse.Namespace) -> int:
        raise AssertionError("not this one")

    types = Command("gen types", "rows as classes", configure, lambda options: 7)
    keys = Command("gen keys", "keys", fail, fail)  # type: ignore[arg-type]
    words = ["gen", "types", "--out", "x"]
    options = make_parser([types, keys], words).parse_args(words)
    assert options.command is types
    assert options.out == "x"


def test_serve_takes_the_delays_of_the_real_server() -> None:
    words = ["serve", "--realistic", "--connect-error-delay=0.5", "--max-joins-per-second=none"]
    options = make_parser(find_commands(), words).parse_args(words)
    found = Settings(**settings(options))
    assert (found.join_error_delay, found.connect_error_delay) == (5.0, 0.5)
    assert found.max_joins_per_second is None
    plain = make_parser(find_commands(), words).parse_args(["serve"])
    assert Settings(**settings(plain)) == Settings()


def test_the_version_and_the_exit_codes() -> None:
    assert command("--version").stdout == f"supabase-rt {__version__}\n"
    nothing = command()
    assert nothing.returncode == 2
    assert "serve     run a Realtime server on this machine" in nothing.stderr
    assert "gen types: write dataclasses" in nothing.stderr
    assert "invalid choice: 'sreve'" in command("sreve").stderr


def test_an_interrupt_is_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(options: argparse.Namespace) -> int:
        raise KeyboardInterrupt

    found = [Command("wait", "waits", lambda parser: None, interrupted)]
    monkeypatch.setattr("supabase_rt.cli.program.find_commands", lambda: found)
    assert main(["wait"]) == 130


def test_a_failure_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(options: argparse.Namespace) -> int:
        raise CommandFailed("cannot", code=3)

    found = [Command("try", "tries", lambda parser: None, fails)]
    monkeypatch.setattr("supabase_rt.cli.program.find_commands", lambda: found)
    assert main(["try"]) == 3
    assert capsys.readouterr().err == "supabase-rt try: cannot\n"


def run_in_shell(tail: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", "-c", f'"$@" {tail}', "sh", *PYTHON, "doctor", "--url=http://127.0.0.1:1"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**os.environ, "SUPABASE_KEY": "key"},
    )


def test_a_closed_stream_is_one_that_nobody_reads() -> None:
    done = run_in_shell("<&- >&-")
    assert (done.returncode, done.stderr) == (1, "")


def test_what_the_encoding_of_a_terminal_lacks_is_escaped() -> None:
    done = command("doctor", "--url=http://127.0.0.1:1", "--key=x", PYTHONIOENCODING="latin-1")
    assert done.returncode == 1
    assert done.stderr == ""
    assert "\\u2192 is the server running?" in done.stdout


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a disk that is always full")
def test_a_full_disk_is_said_in_one_line() -> None:
    done = run_in_shell(">/dev/full")
    assert done.returncode == 1
    assert done.stderr == "supabase-rt doctor: cannot write: No space left on device\n"


def test_without_the_servers_packages_the_line_to_install_them_is_said() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_SERVER, "serve"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("supabase-rt: ")
    assert done.stderr.endswith("pip install 'supabase-rt[server]'\n")
    assert done.stderr.count("\n") == 1


def parse(cls: type, *words: str) -> dict[str, object]:
    parser = argparse.ArgumentParser()
    add_field_options(parser.add_argument_group(), cls)
    return field_values(parser.parse_args(words), cls)


def test_every_setting_of_the_server_has_an_option() -> None:
    assert parse(Settings) == {}
    given = parse(
        Settings,
        "--max-channels-per-client=5000",
        "--presence-limit=7/1.5",
        "--strict-tables",
        "--no-private-only",
        "--idle-timeout=0.5",
    )
    assert given == {
        "max_channels_per_client": 5000,
        "presence_limit": (7, 1.5),
        "strict_tables": True,
        "private_only": False,
        "idle_timeout": 0.5,
    }
    assert parse(Settings, "--presence-limit=none") == {"presence_limit": None}
    parser = argparse.ArgumentParser()
    add_field_options(parser.add_argument_group(), Settings)
    options = {name for action in parser._actions for name in action.option_strings}
    for field in dataclasses.fields(Settings):
        assert "--" + field.name.replace("_", "-") in options


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:se@c:ret@host/x", "postgresql://me:***@host/x"),
        ("postgresql://me@host/x?password=secret&a=b", "postgresql://me@host/x?password=***&a=b"),
        ("host=h password = 'a b' user=me", "host=h password = *** user=me"),
        (
            "postgresql://postgres@/postgres?host=%2Ftmp",
            "postgresql://postgres@/postgres?host=%2Ftmp",
        ),
        (r"host=h password=my\ secret user=me", "host=h password=*** user=me"),
        (r"password='it\'s \\' user=me", "password=*** user=me"),
        ("password=one\nuser=me", "password=***\nuser=me"),
        ("host=h sslpassword = 'a b'user=me", "***"),
        ("host='a password=b' password=c", "host='a password=b' password=***"),
        ("host=a=b password=://secret", "host=a=b password=***"),
        ("service=s passfile=/p user=me", "service=s passfile=/p user=me"),
        (
            "oauth_client_secret=a\\ b scram_client_key=c",
            "oauth_client_secret=*** scram_client_key=***",
        ),
        ("postgresql://me:a%40b@host/x", "postgresql://me:***@host/x"),
        ("postgresql://me:a/b@host/x", "postgresql://me:***@host/x"),
        ("postgres://:secret@host", "postgres://:***@host"),
        (
            "postgresql://me@host/x?p%61ssword=a%26b&sslpassword=c",
            "postgresql://me@host/x?p%61ssword=***&sslpassword=***",
        ),
        ("postgresql://me@h1:1,h2:2/x?password=a'b", "postgresql://me@h1:1,h2:2/x?password=***"),
        ("host=h password=my secret", "***"),
        ("host=h password='my secret", "host=h password=***"),
        ("postgresql://me@host/x?password=a=b", "postgresql://me@host/x?password=***"),
    ],
)
def test_a_password_is_not_shown(url: str, shown: str) -> None:
    assert without_password(url) == shown


SECRETS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=4)


@given(SECRETS, st.booleans(), st.sampled_from(["password", "sslpassword", "oauth_client_secret"]))
def test_no_password_that_libpq_reads_is_shown(secret: str, in_url: bool, word: str) -> None:
    given = {"host": "h", word: secret, "user": "me"}
    if in_url:
        text = f"postgresql://me@h/x?{word}={quote(secret, safe='')}"
    else:
        text = make_conninfo(**given)
    assert conninfo_to_dict(text)[word] == secret
    left = conninfo_to_dict(without_password(text))
    assert (left["host"], left[word], left["user"]) == ("h", "***", "me")


@pytest.mark.parametrize("words", [["serve", "--db"], ["gen", "types", "--db"]])
@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:letmein/5x8w@127.0.0.1:1/x",
        "postgresql://me:letmein@5x8w@127.0.0.1:1/x",
        "postgresql://me:letmein 5x8w@127.0.0.1:1/x",
        "postgresql://me:letmein%5x8w@127.0.0.1:1/x",
        "host=127.0.0.1 port=1 password=letmein 5x8w",
        "host=127.0.0.1 port=1 password='letmein 5x8w",
        r"host=127.0.0.1 port=1 password=letmein\ 5x8w",
    ],
)
def test_an_error_about_a_database_url_quotes_nothing_of_a_password(
    words: list[str], url: str
) -> None:
    ended = command(*words, url)
    assert ended.returncode == 1
    assert ended.stderr
    assert "letmein" not in ended.stdout + ended.stderr
    assert "5x8w" not in ended.stdout + ended.stderr


def test_what_others_sent_cannot_steer_the_terminal() -> None:
    assert printable("room\x1b[2J\n\u202e ok é") == "room\\x1b[2J\\n\\u202e ok é"
