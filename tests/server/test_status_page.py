"""What the status page is handed, and who is told what happens."""

from __future__ import annotations

import re
from typing import Any

import aiohttp
import pytest

from supabase_rt.server import Happening, LocalRealtime
from supabase_rt.server.auth import Tokens
from tests.support.waiting import until

from .kit import Wire, wire

TOPIC = "realtime:supabase-rt:inspector"


async def fetch(server: LocalRealtime, **headers: str) -> tuple[str, Any]:
    """The key in the page, and the headers of the answer."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{server.url}/", headers=named) as response,
    ):
        assert response.status == 200
        found = re.search(r'<meta name="key" content="([^"]*)">', await response.text())
        assert found is not None
        return found[1], response.headers


async def told(client: Wire, event: str) -> Any:
    """The next thing of a kind that the page is told."""
    while True:
        frame = await client.recv()
        if frame[3] == "broadcast" and frame[4]["event"] == event:
            return frame[4]["payload"]


async def test_a_page_on_this_machine_is_handed_a_token_for_half_a_day() -> None:
    secret = "another-secret-of-more-than-32-bytes"
    async with LocalRealtime(jwt_secret=secret) as server:
        key, headers = await fetch(server)
        claims = Tokens(secret).verify(key, 0).claims
        assert claims["role"] == "service_role"
        assert claims["exp"] - claims["iat"] == 12 * 3600
        assert key != server.service_key
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Frame-Options"] == "DENY"
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert "Access-Control-Allow-Origin" not in headers


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example:80"},
        {"Host": "192.168.1.5:54321"},
        {"Host": "localhost:99999999"},
        {"Host": "localhost:b:c"},
        {"X_Forwarded_For": "203.0.113.5"},
        {"Forwarded": "for=203.0.113.5"},
        {"Via": "1.1 proxy"},
    ],
)
async def test_a_page_from_elsewhere_is_handed_no_key(
    server: LocalRealtime, headers: dict[str, str]
) -> None:
    assert (await fetch(server, **headers))[0] == ""


@pytest.mark.parametrize("host", ["localhost", "localhost:54321", "127.0.0.1", "[::1]:1"])
async def test_the_names_of_this_machine_are_known(server: LocalRealtime, host: str) -> None:
    assert (await fetch(server, Host=host))[0] != ""


async def test_only_the_service_is_told_what_happens() -> None:
    async with LocalRealtime(policy=lambda role, claims, topic: True) as server:
        for key in (server.anon_key, server.token("authenticated", "u")):
            async with wire(server, key) as client:
                reply = await client.join(TOPIC, private=True)
                assert reply[4]["status"] == "error"
                # A public channel of this name is one like any other.
                assert (await client.join(TOPIC))[4]["status"] == "ok"
        assert not server.backend.activity.watched


async def test_what_happens_is_told_while_somebody_listens(server: LocalRealtime) -> None:
    async with wire(server, server.service_key) as page:
        assert (await page.join(TOPIC, private=True))[4]["status"] == "ok"
        state = await told(page, "state")
        assert [socket["inspector"] for socket in state["sockets"]] == [True]
        # Nobody puts words into its mouth, not even the service.
        await page.send("1", "2", TOPIC, "broadcast", {"event": "state", "payload": {}})
        async with wire(server) as client:
            await client.join(postgres_changes=[{"event": "*", "schema": "public", "table": "t"}])
            await client.ask("1", "3", "realtime:room", "presence", {"event": "track"})
            await client.send("1", "4", "realtime:room", "broadcast", {"event": "e", "payload": 5})
            await until(lambda: len(server.received) == 5)
            server.insert("t", {"id": 1})
            server.broadcast("room", "long", {"text": "x" * 3_000})
            server.broadcast("room", "bytes", b"\x00\x01")
            found: list[Any] = []
            while len(found) < 7:
                found += await told(page, "events")
            (_, mine) = (await told(page, "state"))["sockets"]
        assert [each["kind"] for each in found] == [
            *("connect", "join", "presence", "broadcast", "change", "broadcast", "broadcast")
        ]
        assert (found[3]["event"], found[3]["content"], found[3]["connection"]) == ("e", "5", 2)
        assert (found[4]["topic"], found[4]["content"]) == ("public.t", '{"id": 1}')
        assert found[5]["content"].endswith("characters)")
        assert found[6]["content"] == "2 bytes: 00 01"
        assert mine["channels"] == [
            {"topic": "room", "private": False, "role": "anon", "changes": ["* public t"]}
        ]
        assert not re.search("eyJ", repr(found) + repr(mine)), "a token"
    server.broadcast("room", "e", {})
    await until(lambda: not server.backend.activity.watched)


async def test_rows_are_inserted_for_the_service_only(server: LocalRealtime) -> None:
    url = f"{server.url}/inspector/rows"
    good = {"table": "other.t", "record": {"id": 1}}
    async with aiohttp.ClientSession() as session:

        async def post(key: str, body: Any) -> tuple[int, Any]:
            headers = {"Authorization": f"Bearer {key}"}
            async with session.post(url, json=body, headers=headers) as response:
                return response.status, await response.json()

        for key in ("", "nonsense", server.anon_key):
            assert await post(key, good) == (401, {"error": "Unauthorized"})
            async with session.get(url, headers={"Authorization": f"Bearer {key}"}) as response:
                assert response.status == 401
        assert await post(server.service_key, good) == (200, {"row": {"id": 1}})
        server.table("strict", {"id": "int4"})
        wrong: list[Any] = [[], {"table": "t"}, {"table": "t", "record": 5}, {"record": {}}]
        for bad in wrong:
            assert (await post(server.service_key, bad))[0] == 400
        headers = {"Authorization": f"Bearer {server.service_key}"}
        async with session.get(url, headers=headers) as response:
            assert await response.json() == {"tables": ["other.t", "public.strict"]}


async def test_an_onlooker_that_fails_harms_nobody(
    server: LocalRealtime, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[str] = []

    def fails(found: Happening) -> None:
        raise RuntimeError("cannot look")

    ends = [server.watch(fails), server.watch(lambda found: seen.append(found.kind))]
    async with wire(server) as client:
        await client.join()
    await until(lambda: "disconnect" in seen)
    assert seen == ["connect", "join", "leave", "disconnect"]
    assert caplog.text.count("an onlooker failed on join") == 1
    for end in (*ends, *ends):
        end()
    assert not server.backend.activity.watched


async def test_the_page_can_be_left_out() -> None:
    async with (
        LocalRealtime(status_page=False) as server,
        aiohttp.ClientSession() as session,
        session.get(f"{server.url}/") as response,
    ):
        assert response.status == 404
        async with wire(server, server.service_key) as client:
            assert (await client.join(TOPIC, private=True))[4]["status"] == "error"
