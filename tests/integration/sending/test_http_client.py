"""Broadcast over HTTP: the requests, and the meaning of each answer."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from supabase_rt import RealtimeChannel, RealtimeClient, RealtimeError, SendError, TimedOut
from supabase_rt.server import LocalRealtime

from ...support.clients import MakeClient
from ...support.peers import HttpPeer, closed_port, http_peer
from ...support.recorder import ClientEvents, Recorder
from ...support.waiting import our_tasks, turns, until

MESSAGE = {"type": "broadcast", "event": "x", "payload": {"n": 1}}


def channel_of(peer: HttpPeer, topic: str = "room", **options: Any) -> RealtimeChannel:
    client = RealtimeClient(
        f"{peer.url}/realtime/v1", params={"apikey": "the-key"}, timeout=2, **options
    )
    return client.channel(topic, {"config": {"private": True}})


async def failed(peer: HttpPeer, **options: Any) -> Any:
    with pytest.raises(RealtimeError) as caught:
        await channel_of(peer).http_send("x", {"n": 1}, **options)
    return caught.value


# -- http_send ---------------------------------------------------------------------------


@pytest.mark.conformance("CM23", "CM37", "CM44")
async def test_what_http_send_asks() -> None:
    async with http_peer() as peer:
        channel = channel_of(peer, "room:1/2 ä", headers={"X-Mine": "yes"})
        assert await channel.http_send("ev ent", {"n": 1}) == {"success": True}
    (request,) = peer.requests
    assert request["method"] == "POST"
    assert request["path"] == "/realtime/v1/api/broadcast/room%3A1%2F2%20%C3%A4/events/ev%20ent"
    assert request["query"] == {"apikey": "the-key", "vsn": "2.0.0", "private": "true"}
    assert json.loads(request["body"]) == {"n": 1}
    headers = request["headers"]
    assert headers["apikey"] == "the-key"
    assert headers["Content-Type"] == "application/json"
    assert headers["X-Mine"] == "yes"
    assert "Authorization" not in headers


@pytest.mark.conformance("CM24")
async def test_the_token_is_that_of_the_moment() -> None:
    async with http_peer() as peer:
        client = RealtimeClient(peer.url, params={"apikey": "key"})
        channel = client.channel("room")
        for token in ("first", "second"):
            client.set_auth(token)
            await channel.http_send("x", [1])
    found = [request["headers"]["Authorization"] for request in peer.requests]
    assert found == ["Bearer first", "Bearer second"]
    assert "private" not in peer.requests[0]["query"]


@pytest.mark.conformance("CM42", "CM43")
@pytest.mark.parametrize("payload", [b"\x00\x01", bytearray(b"\x00\x01"), memoryview(b"\x00\x01")])
async def test_bytes_go_as_they_are(payload: Any) -> None:
    async with http_peer() as peer:
        await channel_of(peer).http_send("x", payload)
    assert peer.requests[0]["headers"]["Content-Type"] == "application/octet-stream"
    assert peer.requests[0]["body"] == b"\x00\x01"


@pytest.mark.conformance("NX5")
@pytest.mark.parametrize(
    ("options", "query"),
    [
        ({"persist": True}, {"persist": "true"}),
        ({"persist": {"ttl": 60}}, {"persist[ttl]": "60"}),
        ({"opts": {"persist": True}}, {"persist": "true"}),
        ({"persist": False}, {}),
    ],
)
async def test_persist_is_in_the_query(options: dict[str, Any], query: dict[str, str]) -> None:
    async with http_peer() as peer:
        await channel_of(peer).http_send("x", 0, **options)
    found = peer.requests[0]["query"]
    assert {name: value for name, value in found.items() if name.startswith("persist")} == query


@pytest.mark.parametrize(
    ("status", "retryable"),
    [
        *((status, False) for status in (200, 400, 401, 403, 413, 415, 422)),
        *((status, True) for status in (408, 425, 429, 500, 503)),
    ],
)
async def test_every_other_status_is_a_send_error(status: int, retryable: bool) -> None:
    async with http_peer(status=status, body='{"message": "the words"}') as peer:
        error = await failed(peer)
    assert isinstance(error, SendError)
    assert (error.status, error.code, error.retryable) == (status, f"HTTP{status}", retryable)
    assert str(error) == "the words"
    assert error.hint


@pytest.mark.conformance("CM41")
async def test_a_404_says_which_server_is_needed() -> None:
    async with http_peer(status=404, body="") as peer:
        error = await failed(peer)
    assert str(error).startswith("httpSend() requires Realtime server v2.97.0 or newer")
    assert "2.97.0" in error.hint


@pytest.mark.conformance("CM39", "CM40")
@pytest.mark.parametrize(
    ("body", "text"),
    [
        ('{"error": "one", "message": "two"}', "one"),
        ('{"message": "two"}', "two"),
        ('{"errors": {"payload": ["too large"]}}', '{"payload":["too large"]}'),
        ('{"error": {"code": 5}}', "Bad Request"),
        ('{"other": 1}', "Bad Request"),
        ("[1]", "Bad Request"),
        ("<html>", "Bad Request"),
        (b"\xff", "Bad Request"),
        ("", "Bad Request"),
    ],
)
async def test_the_words_of_the_body_or_of_the_status(body: str | bytes, text: str) -> None:
    async with http_peer(status=400, body=body) as peer:
        assert str(await failed(peer)) == text


async def test_a_status_without_a_reason() -> None:
    async with http_peer(status=400, reason="") as peer:
        assert str(await failed(peer)) == "HTTP 400"


@pytest.mark.conformance("CM29-CM30", "CM33-CM34")
async def test_no_answer_in_time() -> None:
    async with http_peer(hang=True) as peer:
        error = await failed(peer, timeout=0.02)
    assert isinstance(error, TimedOut)
    assert isinstance(error, TimeoutError)
    assert "within 0.02 s" in str(error)


async def test_nobody_there() -> None:
    peer = HttpPeer(url=f"http://127.0.0.1:{closed_port()}")
    error = await failed(peer)
    assert isinstance(error, SendError)
    assert error.retryable
    assert error.status is None
    assert error.__cause__ is None
    assert error.__context__ is None


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        (("x", None), {}, ValueError),
        (("", {}), {}, ValueError),
        ((5, {}), {}, ValueError),
        (("x", {}), {"opts": {"timeout": 0}}, ValueError),
        (("x", {}), {"opts": {"timeOut": 1}}, ValueError),
        (("x", {}), {"timeout": -1}, ValueError),
        (("x", {}), {"persist": "yes"}, ValueError),
        (("x", {}), {"persist": {"tll": 5}}, ValueError),
        (("x", {}), {"persist": {"ttl": -5}}, ValueError),
        (("x", object()), {}, TypeError),
        (("x", {"a": {1, 2}.__iter__()}), {}, TypeError),
    ],
)
async def test_bad_arguments_raise_at_the_call(
    arguments: tuple[Any, ...], options: dict[str, Any], error: type[Exception]
) -> None:
    async with http_peer() as peer:
        with pytest.raises(error):
            channel_of(peer).http_send(*arguments, **options)
    assert peer.requests == []


@pytest.mark.conformance("NX6")
async def test_a_public_channel_cannot_store() -> None:
    async with http_peer() as peer:
        public = RealtimeClient(peer.url, params={"apikey": "key"}).channel("room")
        with pytest.raises(ValueError, match="cannot store a message on a public channel"):
            public.http_send("x", {}, persist=True)


async def test_the_payload_is_that_of_the_call() -> None:
    payload = {"n": 1}
    async with http_peer() as peer:
        sending = channel_of(peer).http_send("x", payload)
        payload["n"] = 2
        await sending
    assert json.loads(peer.requests[0]["body"]) == {"n": 1}


async def test_a_failure_that_nobody_awaits_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    async with http_peer(status=403) as peer:
        client = RealtimeClient(peer.url, params={"apikey": "key"})
        events = ClientEvents(client)
        client.channel("room").http_send("x", {})
        await events.some("error")
        assert await client.disconnect() == "ok"
    assert [error.code for error in events.errors if isinstance(error, SendError)] == ["HTTP403"]
    assert caplog.text.count("a call that nobody awaits failed") == 1


# -- names and payloads that would lead elsewhere ------------------------------------------


@pytest.mark.parametrize("topic", [".", ".."])
@pytest.mark.parametrize("event", [".", "..", "x"])
async def test_dots_lead_to_no_other_address(
    server: LocalRealtime, make_client: MakeClient, topic: str, event: str
) -> None:
    async with http_peer() as peer:
        await channel_of(peer, topic).http_send(event, {})
    escaped = topic.replace(".", "%2E"), event.replace(".", "%2E")
    path = "/realtime/v1/api/broadcast/{}/events/{}".format(*escaped)
    assert peer.requests[0]["path"] == path
    got = Recorder()
    channel = make_client().channel(topic).on("broadcast", {"event": event}, got)
    await channel.subscribe()
    await channel.http_send(event, {"n": 1})
    await got.count(1)


PUBLIC = {"config": {"private": False}}
PRIVATE = {"config": {"private": True}}


@pytest.mark.parametrize("mine", [PRIVATE, PUBLIC])
@pytest.mark.parametrize("flag", [True, False, "true", None])
async def test_a_payload_does_not_decide_who_reads_it(
    server: LocalRealtime, make_client: MakeClient, mine: Any, flag: Any
) -> None:
    got: dict[bool, Recorder] = {True: Recorder(), False: Recorder()}
    for private, recorder in got.items():
        client = make_client(access_token=lambda: server.service_key)
        channel = client.channel("room", {"config": {"private": private}})
        await channel.on("broadcast", {"event": "*"}, recorder).subscribe()
    sender = make_client(access_token=lambda: server.service_key)
    await sender.set_auth()
    channel = sender.channel("room", mine)
    assert await channel.http_send("x", {"n": 1, "private": flag}) == {"success": True}
    assert await channel.http_send("x", {"n": 2}) == {"success": True}
    private = mine is PRIVATE
    await got[private].count(2)
    payloads = [dict(each.payload) for each in got[private].seen]
    assert sorted(payload["n"] for payload in payloads) == [1, 2]
    assert {"n": 1, "private": flag} in [
        {key: payload[key] for key in ("n", "private") if key in payload} for payload in payloads
    ]
    assert got[not private].seen == []


@pytest.mark.parametrize("key", ["private", "persist"])
async def test_flags_in_a_payload_go_where_they_are_none(key: str) -> None:
    async with http_peer() as peer:
        await channel_of(peer).http_send("x", {key: False, "n": 1})
        await channel_of(peer).http_send("x", {"deep": {key: False}})
        await channel_of(peer).http_send("x", [key])
    batch, *single = [request["path"].removeprefix("/realtime/v1") for request in peer.requests]
    assert (batch, single) == ("/api/broadcast", ["/api/broadcast/room/events/x"] * 2)
    message = {"topic": "room", "event": "x", "payload": {key: False, "n": 1}, "private": True}
    assert json.loads(peer.requests[0]["body"]) == {"messages": [message]}


@pytest.mark.parametrize("key", ["private", "persist"])
async def test_what_the_batch_endpoint_cannot_store_is_refused_at_the_call(key: str) -> None:
    async with http_peer() as peer:
        with pytest.raises(ValueError, match="cannot be stored over HTTP"):
            channel_of(peer).http_send("x", {key: 1}, persist=True)
    assert peer.requests == []


async def test_without_a_connection_no_session_stays_open(client: RealtimeClient) -> None:
    assert await client.channel("room").http_send("x", {}) == {"success": True}
    await turns()
    assert our_tasks() == []
    assert client._parts.connection.http is None


@pytest.mark.conformance("RT7", "RT8", "SJ15")
async def test_a_session_of_the_users_is_used_and_must_be_open() -> None:
    async with http_peer() as peer:
        async with aiohttp.ClientSession(headers={"X-Mine": "yes"}) as session:
            channel = channel_of(peer, session=session)
            await channel.http_send("x", {})
            assert await channel.send(MESSAGE) == "ok"
        with pytest.raises(SendError) as caught:
            await channel.http_send("x", {})
        assert await channel.send(MESSAGE) == "error"
    assert [request["headers"]["X-Mine"] for request in peer.requests] == ["yes", "yes"]
    assert caught.value.code == "SessionClosed"
    assert not caught.value.retryable


async def test_http_send_reaches_the_subscribers(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    got = Recorder()
    client = make_client()
    channel = client.channel("room").on("broadcast", {"event": "*"}, got)
    await channel.subscribe()
    await channel.http_send("x", {"n": 1})
    await channel.http_send("y", b"\x01")
    await got.count(2)
    assert got.seen[0].payload["n"] == 1
    assert got.seen[1].payload == b"\x01"


# -- the fallback of send ----------------------------------------------------------------


@pytest.mark.conformance("NX10")
async def test_what_the_fallback_asks(caplog: pytest.LogCaptureFixture) -> None:
    lines: list[Any] = []
    async with http_peer() as peer:
        channel = channel_of(peer, logger=lambda *args: lines.append(args))
        assert await channel.send(MESSAGE) == "ok"
    (request,) = peer.requests
    assert request["path"] == "/realtime/v1/api/broadcast"
    assert request["query"] == {"apikey": "the-key", "vsn": "2.0.0"}
    assert json.loads(request["body"]) == {
        "messages": [{"topic": "room", "event": "x", "payload": {"n": 1}, "private": True}]
    }
    warning = "Realtime send() is automatically falling back to REST API."
    assert warning in caplog.text
    assert lines[0][:1] == ("channel",)
    assert lines[0][1].startswith(warning)


@pytest.mark.conformance("CM21")
@pytest.mark.parametrize(
    ("status", "result"),
    [(200, "ok"), (202, "ok"), (204, "ok"), (401, "error"), (404, "error"), (500, "error")],
)
async def test_the_fallback_never_raises(status: int, result: str) -> None:
    async with http_peer(status=status) as peer:
        assert await channel_of(peer).send(MESSAGE) == result


@pytest.mark.conformance("CM19", "CM20", "CM22")
async def test_the_fallback_times_out_or_fails() -> None:
    async with http_peer(hang=True) as peer:
        assert await channel_of(peer).send(MESSAGE, {"timeout": 0.02}) == "timed out"
    assert await channel_of(peer).send(MESSAGE) == "error"


async def test_bytes_fall_back_to_the_endpoint_of_the_event() -> None:
    message = {**MESSAGE, "payload": b"\x01"}
    async with http_peer() as peer:
        assert await channel_of(peer).send(message) == "ok"
        assert peer.requests[0]["path"] == "/realtime/v1/api/broadcast/room/events/x"
        assert peer.requests[0]["body"] == b"\x01"
        peer.status = 403
        assert await channel_of(peer).send(message) == "error"
        peer.hang = True
        assert await channel_of(peer).send(message, timeout=0.02) == "timed out"


@pytest.mark.conformance("NX4")
async def test_a_message_to_store_does_not_fall_back(caplog: pytest.LogCaptureFixture) -> None:
    async with http_peer() as peer:
        assert await channel_of(peer).send(MESSAGE, persist=True) == "error"
    assert peer.requests == []
    assert "the batch endpoint cannot store a message" in caplog.text


async def test_a_message_without_payload_has_none_in_the_fallback() -> None:
    async with http_peer() as peer:
        assert await channel_of(peer).send({"type": "broadcast", "event": "x"}) == "ok"
    (message,) = json.loads(peer.requests[0]["body"])["messages"]
    assert message == {"topic": "room", "event": "x", "private": True}


@pytest.mark.conformance("CM16")
async def test_the_fallback_reaches_the_subscribers_while_we_join(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    got = Recorder()
    await make_client().channel("room").on("broadcast", {"event": "*"}, got).subscribe()
    sender = make_client().channel("room").subscribe()
    assert await sender.send(MESSAGE) == "ok"
    await got.count(1)
    await sender
    assert got.values() == [1]
    assert "broadcast" not in [each.event for each in server.received]


async def test_a_request_under_way_when_the_client_closes_is_waited_for(
    make_client: MakeClient,
) -> None:
    async with http_peer(hang=True) as peer:
        client = make_client(peer.url)
        sending = asyncio.ensure_future(asyncio.wait_for(client.channel("r").send(MESSAGE), 5))
        await until(lambda: peer.requests)
        closing = client.disconnect()
        await turns()
        assert not closing.done()
        peer.released.set()
        await closing
        assert await sending == "ok"
