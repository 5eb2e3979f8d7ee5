"""``supabase-rt doctor`` names the fault of each broken set-up, and no fault of a sound one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from supabase_rt.cli import main
from supabase_rt.server import LocalRealtime

from ...support.peers import closed_port, http_peer

TIMEOUT = ["--timeout", "3"]


@pytest.fixture(autouse=True)
def nothing_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SUPABASE_URL", "SUPABASE_KEY", "SUPABASE_TOKEN", "SUPABASE_DB_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
async def local() -> AsyncIterator[LocalRealtime]:
    async with LocalRealtime(strict_tables=True, policy=lambda *about: True) as server:
        server.table("todos", {"id": "int8"})
        yield server


class Found:
    """Returns the results of the doctor, by the name of the check."""

    def __init__(self, code: int, out: str) -> None:
        self.code = code
        self.results = [json.loads(line) for line in out.splitlines()]
        self.by_name = {each["name"]: each for each in self.results}

    def failing(self) -> list[str]:
        return [each["name"] for each in self.results if each["state"] == "fail"]

    def said(self, name: str) -> str:
        return f"{self.by_name[name]['text']} {self.by_name[name]['remedy']}"


class Doctor:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    async def __call__(self, url: str, key: str, *words: str) -> Found:
        call = ["doctor", "--json", "--url", url, "--key", key, *TIMEOUT, *words]
        code = await asyncio.to_thread(main, call)
        found = self._capsys.readouterr()
        assert found.err == ""
        return Found(code, found.out)


@pytest.fixture
def doctor(capsys: pytest.CaptureFixture[str]) -> Doctor:
    return Doctor(capsys)


async def test_a_sound_set_up_is_well(local: LocalRealtime, doctor: Doctor) -> None:
    found = await doctor(local.url, local.anon_key, "--table", "todos", "--private", "room")
    assert (found.code, found.failing()) == (0, [])
    assert [each["name"] for each in found.results] == [
        "url",
        "dns",
        "tcp",
        "key",
        "websocket",
        "heartbeat",
        "join",
        "broadcast",
        "changes",
        "private",
    ]


# -- the broken set-ups ------------------------------------------------------------------------


async def test_a_url_that_is_none(doctor: Doctor) -> None:
    found = await doctor("nonsense", "k")
    assert found.failing() == ["url"]
    assert "https://<ref>.supabase.co" in found.said("url")


async def test_a_name_that_is_none(doctor: Doctor) -> None:
    """No host can ever have a name in ``.invalid``."""
    found = await doctor("http://nobody.invalid", "sb_publishable_x")
    assert found.failing() == ["dns"]
    assert "paused" in found.said("dns")


async def test_nobody_at_the_port(doctor: Doctor) -> None:
    found = await doctor(f"http://127.0.0.1:{closed_port()}", "sb_publishable_x")
    assert found.failing() == ["tcp"]
    assert "supabase-rt serve" in found.said("tcp")


async def test_tls_where_there_is_none(local: LocalRealtime, doctor: Doctor) -> None:
    found = await doctor(local.url.replace("http://", "https://"), local.anon_key)
    assert found.failing() == ["tls"]
    assert "http://" in found.said("tls")


async def test_another_server_than_realtime(doctor: Doctor) -> None:
    async with http_peer(status=404) as peer:
        found = await doctor(peer.url, "sb_publishable_x")
    assert found.failing() == ["websocket"]
    assert "404" in found.said("websocket")


async def test_a_key_of_another_project(local: LocalRealtime, doctor: Doctor) -> None:
    async with LocalRealtime(jwt_secret="x" * 40) as other:
        found = await doctor(local.url, other.anon_key)
    assert found.failing() == ["websocket"]
    assert "key was not accepted" in found.said("websocket")


async def test_an_expired_key(local: LocalRealtime, doctor: Doctor) -> None:
    found = await doctor(local.url, local.token("anon", expires_in=-300))
    assert found.failing() == ["key", "websocket"]
    assert "expired 5 minutes ago" in found.said("key")


async def test_a_key_that_is_none(local: LocalRealtime, doctor: Doctor) -> None:
    found = await doctor(local.url, "letmein")
    assert found.failing() == ["key", "websocket"]
    assert "letmein" not in json.dumps(found.results)


async def test_too_many_users(local: LocalRealtime, doctor: Doctor) -> None:
    local.faults.refuse(429)
    found = await doctor(local.url, local.anon_key)
    assert found.failing() == ["websocket"]
    assert "429" in found.said("websocket")


async def test_a_link_that_swallows_frames(local: LocalRealtime, doctor: Doctor) -> None:
    local.faults.delay(30)
    found = await doctor(local.url, local.anon_key)
    assert found.failing() == ["heartbeat"]
    assert "proxy" in found.said("heartbeat")


async def test_public_channels_switched_off(doctor: Doctor) -> None:
    async with LocalRealtime(private_only=True) as server:
        found = await doctor(server.url, server.anon_key)
    assert "join" in found.failing()
    assert "private channels only" in found.said("join")


async def test_a_table_outside_the_publication(local: LocalRealtime, doctor: Doctor) -> None:
    found = await doctor(local.url, local.anon_key, "--table", "secrets")
    assert found.failing() == ["changes"]
    assert "supabase_realtime" in found.said("changes")


async def test_a_private_topic_without_a_policy(doctor: Doctor) -> None:
    def nobody(*about: Any) -> bool:
        return False

    async with LocalRealtime(policy=nobody) as server:
        found = await doctor(server.url, server.anon_key, "--private", "members")
    assert found.failing() == ["private"]
    assert "realtime.messages" in found.said("private")


# -- what it prints ------------------------------------------------------------------------


async def test_a_person_reads_lines_with_remedies(
    local: LocalRealtime, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["doctor", "--url", local.url, "--key", local.anon_key, "--table", "secrets", *TIMEOUT]
    assert await asyncio.to_thread(main, words) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("ok   url ")
    assert any(line.startswith("fail changes") for line in lines)
    assert any(line.lstrip().startswith("→ ") for line in lines)
    assert lines[-1] == "1 to mend"
    assert local.anon_key not in "".join(lines)


@pytest.mark.parametrize(
    ("words", "said"), [([], "Give --url"), (["--url", "http://127.0.0.1:1"], "give --key")]
)
def test_what_is_missing_is_said(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", *words]) == 2
    assert said in capsys.readouterr().err
