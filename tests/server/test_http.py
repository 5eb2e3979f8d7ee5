"""Broadcast over HTTP, as recorded."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from supabase_rt.server import LocalRealtime

from .kit import wire

BATCH = "/api/broadcast"


@pytest.fixture
async def server() -> AsyncIterator[LocalRealtime]:
    async with LocalRealtime(max_payload_size=200) as found:
        yield found


async def post(
    server: LocalRealtime, path: str, key: str | None = None, **about: Any
) -> tuple[int, str]:
    headers = {"Authorization": f"Bearer {server.anon_key if key is None else key}"}
    headers |= about.pop("headers", {})
    async with (
        aiohttp.ClientSession() as session,
        session.post(server.url + path, headers=headers, **about) as response,
    ):
        return response.status, await response.text()


def message(**about: Any) -> dict[str, Any]:
    return {"topic": "http", "event": "e1", "payload": {"x": 1}, **about}


async def test_a_body_that_says_it_is_compressed_is_not_unpacked(server: LocalRealtime) -> None:
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    status, _ = await post(server, BATCH, data=b"\x1f\x8b nonsense", headers=headers)
    assert status == 400


@pytest.mark.parametrize("prefix", ["", "/realtime/v1"])
async def test_a_batch(server: LocalRealtime, prefix: str) -> None:
    async with wire(server) as client:
        await client.join("realtime:http")
        body = {"messages": [message(), message(event="e2", private=False, id="abc")]}
        assert await post(server, prefix + BATCH, json=body) == (202, "")
        first = {"event": "e1", "payload": {"x": 1}, "type": "broadcast"}
        assert await client.recv() == [None, None, "realtime:http", "broadcast", first]
        assert (await client.recv())[4]["meta"] == {"id": "abc"}


async def test_who_may_post(server: LocalRealtime) -> None:
    unauthorized = (401, '{"message":"Unauthorized"}')
    body = {"messages": [message()]}
    for path in (BATCH, BATCH + "/http/events/e"):
        assert await post(server, path, key="nope", json=body) == unauthorized
        assert await post(server, path, headers={"Authorization": ""}, json=body) == unauthorized
        key = {"Authorization": "", "apikey": server.anon_key}
        assert await post(server, path, headers=key, json=body) == (202, "")


@pytest.mark.parametrize(
    ("body", "errors"),
    [
        ({}, '["can\'t be blank"]'),
        ({"messages": []}, '["can\'t be blank"]'),
        ([1], '["can\'t be blank"]'),
        (
            {"messages": [{"topic": "http"}]},
            '[{"payload":["can\'t be blank"],"event":["can\'t be blank"]}]',
        ),
        ({"messages": [message(payload="str"), message()]}, '[{"payload":["is invalid"]},{}]'),
        (
            {"messages": [message(payload={"x": "y" * 300})]},
            '[{"payload":["Payload size exceeds tenant limit"]}]',
        ),
        (
            {"messages": [message(topic="", event=3)]},
            '[{"event":["is invalid"],"topic":["can\'t be blank"]}]',
        ),
    ],
)
async def test_batches_that_are_not_accepted(server: LocalRealtime, body: Any, errors: str) -> None:
    assert await post(server, BATCH, json=body) == (422, f'{{"errors":{{"messages":{errors}}}}}')


async def test_bodies_that_are_not_json(server: LocalRealtime) -> None:
    kind = {"Content-Type": "application/json"}
    for path in (BATCH, BATCH + "/http/events/e"):
        assert (await post(server, path, data=b"{", headers=kind))[0] == 400


async def test_private_batches_are_skipped_in_silence(server: LocalRealtime) -> None:
    user = server.token("authenticated")
    async with wire(server, user) as client:
        await client.join("realtime:http", private=True)
        body = {"messages": [message(private=True)]}
        assert await post(server, BATCH, json=body) == (202, "")
        body["messages"][0]["payload"] = {"x": 2}
        assert await post(server, BATCH, key=user, json=body) == (202, "")
        assert (await client.recv())[4]["payload"] == {"x": 2}


@pytest.mark.parametrize("prefix", ["", "/realtime/v1"])
async def test_single_messages(server: LocalRealtime, prefix: str) -> None:
    path = prefix + "/api/broadcast/http/events/"
    async with wire(server) as new, wire(server, vsn="1.0.0") as old:
        await new.join("realtime:http")
        join = {"topic": "realtime:http", "event": "phx_join", "payload": {"config": {}}, "ref": 1}
        await old.ws.send_json(join)
        assert (await old.recv())["ref"] == 1
        assert await post(server, path + "single", json={"z": 1}) == (202, "")
        assert await new.recv() == bytes.fromhex(
            "040d0600017265616c74696d653a6874747073696e676c657b227a223a317d"
        )
        assert (await old.recv())["payload"] == {
            "event": "single",
            "payload": {"z": 1},
            "type": "broadcast",
        }
        binary = {"Content-Type": "application/octet-stream"}
        assert await post(server, path + "bin", data=b"\0\1\xff", headers=binary) == (202, "")
        assert await new.recv() == bytes.fromhex("040d0300007265616c74696d653a6874747062696e0001ff")
        assert await post(server, path + "list", json=[1]) == (202, "")
        assert (await new.recv()).endswith(b'list{"_json":[1]}')
        assert await post(server, path + "empty", headers={"Content-Type": "application/json"}) == (
            202,
            "",
        )
        assert (await new.recv()).endswith(b"empty{}")
        assert [(await old.recv())["payload"]["event"] for _ in range(2)] == ["list", "empty"]


async def test_topics_and_events_are_percent_decoded(server: LocalRealtime) -> None:
    async with wire(server) as client:
        await client.join("realtime:a/b c")
        assert (await post(server, "/api/broadcast/a%2Fb%20c/events/x%2Fy", json={}))[0] == 202
        assert (await client.recv()).endswith(b"realtime:a/b cx/y{}")


async def test_single_messages_that_are_not_accepted(server: LocalRealtime) -> None:
    path = "/api/broadcast/http/events/e"
    plain = {"Content-Type": "text/plain"}
    media = "Unsupported Media Type. Use application/json or application/octet-stream"
    assert await post(server, path, data="x", headers=plain) == (415, f'{{"error":"{media}"}}')
    assert await post(server, path, json={"x": "y" * 300}) == (
        422,
        '{"errors":{"payload":["Payload size exceeds tenant limit"]}}',
    )
    refused = (403, '{"message":"Unauthorized"}')
    assert await post(server, path + "?private=true", json={}) == refused
    assert await post(server, path, json={"private": True}) == refused
    user = server.token("authenticated")
    assert await post(server, path + "?private=true", key=user, json={}) == (202, "")


async def test_names_that_are_blank_or_too_long(server: LocalRealtime) -> None:
    blank = "can't be blank"
    assert await post(server, "/api/broadcast/%20/events/%09", json={}) == (
        422,
        f'{{"errors":{{"topic":["{blank}"],"event":["{blank}"]}}}}',
    )
    assert (await post(server, BATCH, json={"messages": [message(topic=" ")]}))[0] == 422
    path = f"/api/broadcast/http/events/{'n' * 256}"
    assert await post(server, path, json={}) == (202, "")
    async with wire(server) as client:
        # It is a problem only for a client that gets binary frames.
        await client.join("realtime:http")
        assert (await post(server, path, json={}))[0] == 500
        assert await client.beats()


async def test_what_the_caller_accepts(server: LocalRealtime) -> None:
    for accept, status in (("text/html", 406), ("text/html, application/json;q=0.5", 422)):
        headers = {"Accept": accept}
        assert (await post(server, BATCH, json={}, headers=headers))[0] == status


async def test_the_other_routes(server: LocalRealtime) -> None:
    async with aiohttp.ClientSession() as session:
        for path in ("/api/ping", "/realtime/v1/api/ping"):
            async with session.get(server.url + path) as response:
                assert response.headers["Content-Type"] == "application/json; charset=utf-8"
                assert await response.text() == '{"message":"Success"}'
        async with session.get(server.url + "/healthcheck") as response:
            assert await response.text() == "ok"
        async with session.options(server.url + BATCH) as response:
            assert response.headers["Access-Control-Allow-Origin"] == "*"


@pytest.mark.parametrize("depth", range(930, 1000, 3))
async def test_a_body_nested_as_deeply_as_can_be_is_sent_or_refused(depth: int) -> None:
    async with LocalRealtime() as server, wire(server) as client:
        end = server.watch(lambda found: None)
        await client.join("realtime:http")
        nested = "[" * depth + "]" * depth
        one = f'{{"topic": "http", "event": "e", "payload": {{"x": {nested}}}}}'
        for path, body in (
            (BATCH, f'{{"messages": [{one}]}}'),
            ("/api/broadcast/http/events/e", f'{{"x": {nested}}}'),
        ):
            headers = {"Content-Type": "application/json"}
            status, _ = await post(server, path, data=body, headers=headers)
            assert status in (202, 400)
        end()
        assert server.open_connections == 1
