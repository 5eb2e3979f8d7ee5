"""``supabase-rt gen types`` on the command line."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from pathlib import Path

import pytest

from supabase_rt.cli import main

from ...support.peers import closed_port, http_peer
from ..gen_types.test_openapi import document
from .kit import PYTHON

DESCRIBED = document({"id": {"format": "bigint", "type": "integer"}}, ["id"])


@pytest.fixture(autouse=True)
def nothing_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SUPABASE_URL", "SUPABASE_KEY", "SUPABASE_DB_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def described(tmp_path: Path) -> str:
    path = tmp_path / "openapi.json"
    path.write_text(json.dumps(DESCRIBED))
    return str(path)


def test_from_a_file_to_standard_output(described: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gen", "types", "--from-file", described]) == 0
    assert "class TRow(DataClassJsonMixin):" in capsys.readouterr().out


def test_a_module_is_utf_8_whatever_the_terminal_takes(tmp_path: Path) -> None:
    path = tmp_path / "openapi.json"
    path.write_text(json.dumps(document({"größe_日": {"type": "integer"}}, [])))
    words = [*PYTHON, "gen", "types", "--from-file", str(path)]
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(words, capture_output=True, env=environment, timeout=30, check=True)
    assert "größe_日: int" in done.stdout.decode()


def test_check_passes_until_the_schema_has_moved(
    described: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "types" / "rows.py"
    words = ["gen", "types", "--from-file", described, "-o", str(output)]
    assert main([*words, "--check"]) == 1
    assert "not there yet" in capsys.readouterr().err
    assert main(words) == 0
    assert main([*words, "--check"]) == 0
    more = document({"id": {"format": "bigint"}, "v": {"format": "text"}}, ["id"])
    Path(described).write_text(json.dumps(more))
    before = output.read_text()
    assert main([*words, "--check"]) == 1
    said = capsys.readouterr()
    assert "+    v: str | None" in said.out
    assert "out of date" in said.err
    assert output.read_text() == before


async def test_from_a_project_with_the_key_in_the_headers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with http_peer(status=200, body=json.dumps(DESCRIBED)) as peer:
        words = ["gen", "types", "--url", peer.url, "--key", "the-key", "--schema", "shop"]
        assert await asyncio.to_thread(main, words) == 0
    assert "'shop'" in capsys.readouterr().out.replace('"', "'")
    (request,) = peer.requests
    assert request["path"] == "/rest/v1/"
    assert request["headers"]["Authorization"] == "Bearer the-key"
    assert request["headers"]["Accept-Profile"] == "shop"


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (401, "{}", "secret (service) key"),
        (404, "", "is --url the project"),
        (406, "{}", "'public' is not exposed"),
        (200, "<html>", "not with JSON"),
        (200, "{}", "no OpenAPI description"),
    ],
)
async def test_what_a_project_may_answer_instead(
    status: int, body: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with http_peer(status=status, body=body) as peer:
        call = ["gen", "types", "--url", peer.url, "--key", "the-key"]
        assert await asyncio.to_thread(main, call) == 1
    said = capsys.readouterr().err
    assert words in said
    assert "the-key" not in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "where is the schema?"),
        (["--url", "http://127.0.0.1:1"], 2, "needs a key"),
        (["--url", "http://x", "--db", "postgresql://x"], 2, "give one of"),
        (["--check"], 2, "name it with --output"),
        (["--from-file", "/nowhere/x.json"], 1, "cannot read"),
        (["--url", f"http://127.0.0.1:{closed_port()}", "--key", "k"], 1, "cannot be reached"),
        (["--url", "nonsense", "--key", "k"], 1, "cannot be reached"),
    ],
)
def test_wrong_words_are_answered_in_one_line(
    words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["gen", "types", *words]) == code
    err = capsys.readouterr().err
    assert said in err
    assert err.startswith("supabase-rt gen types: ")


def test_no_tables_at_all_are_a_mistake_and_overwrite_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = tmp_path / "openapi.json", tmp_path / "rows.py"
    source.write_text('{"definitions": {}}')
    target.write_text("# rows of yesterday")
    assert main(["gen", "types", "--from-file", str(source), "-o", str(target)]) == 1
    assert "there are no tables in public" in capsys.readouterr().err
    assert target.read_text() == "# rows of yesterday"


def test_only_names_a_table_that_is_there(
    described: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["gen", "types", "--from-file", described, "--only", "u"]) == 1
    assert "no table 'u'; the tables: t" in capsys.readouterr().err
