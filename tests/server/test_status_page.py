"""The status page: its access, its live view and its forms."""

from __future__ import annotations

import io
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from supabase_rt.server import Happening, LocalRealtime
from tests.support.waiting import until

from .kit import as_page, wire

PROTOCOL = "supabase-rt.inspector"
ROUTES = (("GET", "rows"), ("POST", "rows"), ("POST", "broadcast"))


def token_of(server: LocalRealtime) -> str:
    """Returns the token in the address of the page."""
    return server.inspector_url.partition("#token=")[2]


@asynccontextmanager
async def opened(
    server: LocalRealtime, *protocols: str
) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """The socket of the page."""
    offered = protocols or (PROTOCOL, token_of(server))
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{server.url}/inspector/socket", protocols=offered) as ws,
    ):
        yield ws


async def told(ws: aiohttp.ClientWebSocketResponse, what: str) -> Any:
    """Returns the next message of a kind that the page gets."""
    while True:
        kind, about = await ws.receive_json(timeout=10)
        if kind == what:
            return about


# -- who may open it -----------------------------------------------------------------------


async def test_the_page_itself_holds_no_secret(server: LocalRealtime) -> None:
    async with aiohttp.ClientSession() as session, session.get(f"{server.url}/") as response:
        text, headers = await response.text(), response.headers
    assert "eyJ" not in text
    assert "srt_" not in text
    assert "Set-Cookie" not in headers
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "Access-Control-Allow-Origin" not in headers


async def test_the_address_has_a_token_in_its_fragment_that_is_good_while_the_server_is_there(
    server: LocalRealtime,
) -> None:
    address = server.inspector_url
    assert re.fullmatch(rf"{re.escape(server.url)}/#token=srt_page_[\w-]{{43}}", address)
    await server.restart()
    assert server.inspector_url == address
    async with opened(server) as ws:
        await told(ws, "state")
    async with LocalRealtime() as other:
        assert token_of(other) != token_of(server)


async def test_no_key_opens_what_the_page_does(server: LocalRealtime) -> None:
    body = {"table": "t", "record": {"id": 1}, "topic": "t", "event": "e", "payload": {}}
    half = token_of(server)[:-1]
    wrong = ("", "nonsense", server.anon_key, server.service_key, half, f"{token_of(server)}x", "ä")
    async with aiohttp.ClientSession() as session:
        for method, route in ROUTES:
            url = f"{server.url}/inspector/{route}"
            for key in wrong:
                for headers in (
                    {"Authorization": f"Bearer {key}"},
                    {"Authorization": f"Basic {token_of(server)}"},
                    {"Cookie": f"token={token_of(server)}"},
                    {},
                ):
                    async with session.request(method, url, json=body, headers=headers) as found:
                        assert found.status == 401
                        assert "open the one that the server printed" in await found.text()
                        assert found.headers["Cache-Control"] == "no-store"
                        assert found.headers["X-Content-Type-Options"] == "nosniff"
            async with session.request(method, f"{url}?token={token_of(server)}") as found:
                assert found.status == 401


async def test_no_key_opens_the_socket_of_the_page(server: LocalRealtime) -> None:
    for offered in (
        (PROTOCOL,),
        (PROTOCOL, server.service_key),
        (PROTOCOL, token_of(server)[:-1]),
        (token_of(server),),
    ):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with opened(server, *offered):
                pass
        assert refused.value.status == 401
    assert not server.backend.activity.watched


async def test_the_token_is_not_answered(server: LocalRealtime) -> None:
    async with aiohttp.ClientSession() as session:
        for offered in ((PROTOCOL, token_of(server)), (token_of(server), PROTOCOL)):
            url = f"{server.url}/inspector/socket"
            async with session.ws_connect(url, protocols=offered) as ws:
                assert ws.protocol == PROTOCOL
        headers = {"Sec-WebSocket-Protocol": f"{PROTOCOL}, {token_of(server)}"}
        async with session.get(f"{server.url}/inspector/socket", headers=headers) as response:
            assert response.status == 400
            assert token_of(server) not in await response.text() + repr(response.headers)


async def test_a_key_of_the_service_is_told_nothing_of_others(server: LocalRealtime) -> None:
    """The topic that the page once used is an ordinary one."""
    async with wire(server, server.service_key) as client:
        topic = "realtime:supabase-rt:inspector"
        assert (await client.join(topic, private=True))[4]["status"] == "ok"
        assert not server.backend.activity.watched


# -- what it is told -----------------------------------------------------------------------


async def test_what_happens_is_told_while_somebody_listens(server: LocalRealtime) -> None:
    async with opened(server) as page:
        assert (await told(page, "state"))["sockets"] == []
        # The server ignores all that the page sends.
        await page.send_str("[]")
        async with wire(server) as client:
            await client.join(postgres_changes=[{"event": "*", "schema": "public", "table": "t"}])
            await client.ask("1", "3", "realtime:room", "presence", {"event": "track"})
            await client.send("1", "4", "realtime:room", "broadcast", {"event": "e", "payload": 5})
            await until(lambda: len(server.received) == 3)
            server.insert("t", {"id": 1})
            server.broadcast("room", "long", {"text": "x" * 3_000})
            server.broadcast("room", "bytes", b"\x00\x01")
            found: list[Any] = []
            while len(found) < 7:
                found += await told(page, "events")
            (mine,) = (await told(page, "state"))["sockets"]
        assert [each["kind"] for each in found] == [
            *("connect", "join", "presence", "broadcast", "change", "broadcast", "broadcast")
        ]
        assert (found[3]["event"], found[3]["content"], found[3]["connection"]) == ("e", "5", 1)
        assert (found[4]["topic"], found[4]["content"]) == ("public.t", '{"id": 1}')
        assert found[5]["content"].endswith("characters)")
        assert found[6]["content"] == "2 bytes: 00 01"
        assert mine["channels"] == [
            {"topic": "room", "private": False, "role": "anon", "changes": ["* public t"]}
        ]
        assert not re.search("eyJ|srt_", repr(found) + repr(mine)), "a token"
    await until(lambda: not server.backend.activity.watched)


async def test_every_open_page_is_told(server: LocalRealtime) -> None:
    async with opened(server) as one:
        async with opened(server) as two:
            for page in (one, two):
                await told(page, "state")
            server.broadcast("room", "first", {})
            for page in (one, two):
                assert (await told(page, "events"))[0]["event"] == "first"
        server.broadcast("room", "second", {})
        assert (await told(one, "events"))[0]["event"] == "second"


async def test_a_page_that_does_not_read_loses_old_events_and_keeps_nobody(
    server: LocalRealtime,
) -> None:
    async with opened(server) as page:
        await told(page, "state")
        for number in range(500):
            server.broadcast("room", str(number), {})
        events = [each["event"] for each in await told(page, "events")]
        assert events == [str(number) for number in range(300, 500)]


async def test_an_open_page_does_not_hold_up_the_end(server: LocalRealtime) -> None:
    async with opened(server) as page:
        await told(page, "state")
        await server.restart()
        message = await page.receive(timeout=5)
        assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1012)


# -- what it does --------------------------------------------------------------------------


async def test_rows_are_inserted_for_the_page(server: LocalRealtime) -> None:
    url = f"{server.url}/inspector/rows"
    async with aiohttp.ClientSession(headers=as_page(server)) as session:

        async def post(body: Any) -> tuple[int, Any]:
            async with session.post(url, json=body) as response:
                return response.status, await response.json()

        good = {"table": "other.t", "record": {"id": 1}}
        assert await post(good) == (200, {"row": {"id": 1}})
        server.table("strict", {"id": "int4"})
        wrong: list[Any] = [[], {"table": "t"}, {"table": "t", "record": 5}, {"record": {}}]
        for bad in wrong:
            assert (await post(bad))[0] == 400
        async with session.get(url) as response:
            assert await response.json() == {"tables": ["other.t", "public.strict"]}


async def test_a_broadcast_of_the_page_goes_to_the_topic_on_its_side(
    server: LocalRealtime,
) -> None:
    url = f"{server.url}/inspector/broadcast"
    async with (
        aiohttp.ClientSession(headers=as_page(server)) as session,
        wire(server) as public,
        wire(server, server.service_key) as private,
    ):
        await public.join()
        await private.join(private=True)

        async def post(body: Any) -> tuple[int, Any]:
            async with session.post(url, json=body) as response:
                return response.status, await response.json()

        for client, is_private in ((public, False), (private, True)):
            message = {"topic": "room", "event": "e", "payload": {"to": is_private}}
            assert await post({**message, "private": is_private}) == (200, {"reached": 1})
            frame = await client.recv()
            assert frame[3] == "broadcast"
            assert frame[4] == {"type": "broadcast", "event": "e", "payload": {"to": is_private}}
        wrong: list[Any] = [5, {}, {"topic": "", "event": "e"}, {"topic": "t", "event": 5}]
        for bad in wrong:
            assert (await post(bad))[0] == 400
        large = b'{"topic": "t", "event": "e", "payload": "%s"}' % (b"x" * 3_000_500)
        async with session.post(url, data=io.BytesIO(large)) as found:
            assert found.status == 422


@pytest.mark.parametrize("depth", range(940, 1010, 3))
async def test_a_broadcast_that_is_nested_too_deeply_is_refused_in_words(
    server: LocalRealtime, depth: int
) -> None:
    body = f'{{"topic": "room", "event": "e", "payload": {"[" * depth}{"]" * depth}}}'
    async with (
        wire(server) as client,
        aiohttp.ClientSession(headers=as_page(server)) as session,
    ):
        await client.join()
        async with session.post(f"{server.url}/inspector/broadcast", data=body) as found:
            assert found.status in (200, 400)
            assert "error" in await found.json() or found.status == 200


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
    async with LocalRealtime(status_page=False) as server, aiohttp.ClientSession() as session:
        for path in ("/", "/inspector/rows", "/inspector/socket"):
            async with session.get(f"{server.url}{path}") as response:
                assert response.status == 404
        with pytest.raises(RuntimeError, match="no status page"):
            assert server.inspector_url
