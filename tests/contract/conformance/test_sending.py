"""Rows about sending and tokens that no other test covers; against the local server."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from supabase_rt import RealtimeChannel, RealtimeClient, RealtimeError
from supabase_rt._connection.access_tokens import AccessTokens
from supabase_rt.server import LocalRealtime
from supabase_rt.types import ChannelOptions

from ...support.clients import MakeClient
from ...support.peers import HttpPeer, http_peer
from ...support.recorder import Recorder
from ...support.waiting import turns, until

MESSAGE = {"type": "broadcast", "event": "x", "payload": {"n": 1}}
ACK: ChannelOptions = {"config": {"broadcast": {"ack": True, "self": True}}}
PRIVATE: ChannelOptions = {"config": {"private": True, "broadcast": {"ack": True, "self": True}}}


def pushed(server: LocalRealtime, event: str) -> list[Any]:
    return [each.payload for each in server.received if each.event == event]


def over_http(peer: HttpPeer, token: str | None = None, **options: Any) -> RealtimeChannel:
    """A public channel that was never subscribed."""
    client = RealtimeClient(f"{peer.url}/realtime/v1", params={"apikey": "the-key"}, **options)
    if token:
        client.set_auth(token)
    return client.channel("topic")


# -- over the socket ---------------------------------------------------------------------


@pytest.mark.conformance("CM15", "realtime.channel.broadcast")
async def test_a_joined_channel_sends_the_whole_message(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    channel = await make_client(vsn="1.0.0").channel("room").subscribe()
    assert await channel.send({**MESSAGE, "more": [1]}) == "ok"
    await until(lambda: pushed(server, "broadcast"))
    assert pushed(server, "broadcast") == [{**MESSAGE, "more": [1]}]


@pytest.mark.conformance("CM15", "PU4", "PC60", "CR13")
async def test_requests_have_the_clients_timeout_by_default(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    channel = await make_client(timeout=1).channel("room", ACK).subscribe(timeout=10)
    server.faults.stall()
    calls = [channel.send(MESSAGE), channel.track({"n": 1})]
    assert [await call for call in calls] == ["timed out"] * 2
    server.faults.resume()


@pytest.mark.conformance("CR12", "CR14")
async def test_track_and_untrack_take_a_timeout(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    channel = await client.channel("room").subscribe()
    server.faults.stall()
    assert await channel.track({"n": 1}, {"timeout": 0.02}) == "timed out"
    assert await channel.untrack({"timeout": 0.02}) == "timed out"
    server.faults.resume()


@pytest.mark.conformance(
    "SI1",
    "realtime.configuration.binary_protocol",
    "realtime.subscriptions.broadcast_self",
    "realtime.subscriptions.private_channel",
)
@pytest.mark.parametrize("vsn", ["1.0.0", "2.0.0"])
async def test_there_and_back_on_a_private_channel(
    server: LocalRealtime, make_client: MakeClient, vsn: str
) -> None:
    client = make_client(vsn=vsn)
    client.set_auth(server.token())
    got = Recorder()
    channel = client.channel("room", PRIVATE).on("broadcast", {"event": "x"}, got)
    await channel.subscribe()
    assert await channel.send(MESSAGE) == "ok"
    await got.count(1)
    assert got.seen[0].payload == {"n": 1}


# -- over HTTP ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "authorization"),
    [
        pytest.param(None, None, marks=pytest.mark.conformance("CM17")),
        pytest.param("the-token", "Bearer the-token", marks=pytest.mark.conformance("CM18")),
    ],
)
async def test_the_fallback_to_http(token: str | None, authorization: str | None) -> None:
    async with http_peer() as peer:
        assert await over_http(peer, token).send(MESSAGE) == "ok"
    (request,) = peer.requests
    assert (request["method"], request["path"]) == ("POST", "/realtime/v1/api/broadcast")
    assert request["query"] == {"apikey": "the-key", "vsn": "2.0.0"}
    assert json.loads(request["body"]) == {
        "messages": [{"topic": "topic", "event": "x", "payload": {"n": 1}, "private": False}]
    }
    headers = request["headers"]
    assert (headers["apikey"], headers["Content-Type"]) == ("the-key", "application/json")
    assert headers.get("Authorization") == authorization


@pytest.mark.conformance("CM35-CM36", "realtime.channel.broadcast_http")
@pytest.mark.parametrize("token", [None, "the-token"])
async def test_a_public_http_send_has_no_private_flag_and_the_bare_payload(
    token: str | None,
) -> None:
    async with http_peer() as peer:
        assert await over_http(peer, token).http_send("event", {"n": 1}) == {"success": True}
    (request,) = peer.requests
    assert request["path"] == "/realtime/v1/api/broadcast/topic/events/event"
    assert request["query"] == {"apikey": "the-key", "vsn": "2.0.0"}
    assert json.loads(request["body"]) == {"n": 1}


@pytest.mark.conformance("CM38")
async def test_http_send_ends_at_the_clients_timeout() -> None:
    async with http_peer(hang=True) as peer:
        with pytest.raises(TimeoutError):
            await over_http(peer, timeout=0.05).http_send("x", 1)


@pytest.mark.conformance("CM31-CM32")
@pytest.mark.parametrize("token", [None, "the-token"])
async def test_http_send_refused_with_an_error_in_the_body(token: str | None) -> None:
    async with http_peer(status=500, body='{"error": "the words"}') as peer:
        with pytest.raises(RealtimeError) as caught:
            await over_http(peer, token).http_send("x", 1)
    assert str(caught.value) == "the words"


@pytest.mark.conformance("CM25-CM26", "CM27-CM28")
async def test_http_send_says_that_it_needs_a_payload() -> None:
    async with http_peer() as peer:
        channel = over_http(peer)
        with pytest.raises(ValueError, match=r"^Payload is required for httpSend\(\)$"):
            channel.http_send("x", None)
        with pytest.raises(TypeError, match="payload"):
            channel.http_send("x")  # type: ignore[call-arg]
    assert peer.requests == []


@pytest.mark.parametrize(
    ("private", "payload"),
    [
        pytest.param(False, {"n": 1}, marks=pytest.mark.conformance("SI6")),
        pytest.param(True, {"n": 1}, marks=pytest.mark.conformance("SI7")),
        pytest.param(True, b"\x00\xff", marks=pytest.mark.conformance("SI8")),
    ],
)
async def test_what_is_sent_over_http_arrives(
    server: LocalRealtime, client: RealtimeClient, private: bool, payload: Any
) -> None:
    client.set_auth(server.token())
    got = Recorder()
    channel = client.channel("room", {"config": {"private": private}})
    await channel.on("broadcast", {"event": "x"}, got).subscribe()
    assert await channel.http_send("x", payload) == {"success": True}
    await got.count(1)
    assert got.seen[0].payload == payload


# -- tokens ------------------------------------------------------------------------------


def tokens_of_joins(server: LocalRealtime) -> list[Any]:
    return [payload.get("access_token") for payload in pushed(server, "phx_join")]


@pytest.mark.parametrize(
    ("callback", "topic"),
    [
        pytest.param(False, "room", marks=pytest.mark.conformance("AR1")),
        pytest.param(True, "room", marks=pytest.mark.conformance("AR2")),
        pytest.param(False, "other", marks=pytest.mark.conformance("AR3")),
    ],
)
async def test_a_token_survives_the_channel(
    server: LocalRealtime, make_client: MakeClient, callback: bool, topic: str
) -> None:
    token = server.token()
    client = make_client(access_token=(lambda: token) if callback else None)
    if not callback:
        client.set_auth(token)
    first = await client.channel("room").subscribe()
    await client.remove_channel(first)
    second = await client.channel(topic).subscribe()
    assert second is not first
    assert tokens_of_joins(server) == [token, token]
    assert len(pushed(server, "phx_leave")) == 1


@pytest.mark.conformance("AU7", "SJ7")
async def test_the_callback_stays_in_charge_after_a_token_by_hand(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    by_callback, by_hand = server.token(sub="callback"), server.token(sub="hand")
    client = make_client(access_token=lambda: by_callback)
    await client.set_auth(by_hand)
    assert client.access_token_value == by_hand
    await client.set_auth()
    assert client.access_token_value == by_callback


@pytest.mark.conformance("AU8")
async def test_an_overtaken_asking_that_ends_first_leaves_the_newest_in_place() -> None:
    releases = [asyncio.Event(), asyncio.Event()]
    asked: list[int] = []
    used: list[str | None] = []

    async def fetch() -> str:
        number = len(asked)
        asked.append(number)
        await releases[number].wait()
        return f"token {number}"

    source = AccessTokens(fetch, 5.0, used.append, lambda error: None)
    first = source.refresh()
    second = source.refresh(anew=True)
    assert first is not None
    assert second is not None
    await until(lambda: len(asked) == 2)
    releases[0].set()
    await turns()
    assert not first.done()  # the caller waits until a token is in use
    assert source.refresh() is second  # as by connect(): the newest call is under way
    releases[1].set()
    await asyncio.gather(first, second)
    assert (used, len(asked)) == (["token 1"], 2)
    await source.aclose()


@pytest.mark.conformance("AU9")
async def test_a_callback_that_sets_a_token_itself_is_out_of_date(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    answers: list[str] = []
    inner = server.token(sub="inner")

    async def fetch() -> str:
        answers.append(server.token(sub=f"outer {len(answers)}"))
        if len(answers) == 1:
            client.set_auth(inner)
        return answers[-1]

    client = make_client(access_token=fetch)
    await client.set_auth()
    assert client.access_token_value == inner
    await client.connect()
    assert client.access_token_value == answers[1]
