"""The recordings access_token, jwt_errors and private_channel: who may join, and for how long."""

from __future__ import annotations

from typing import Any

import pytest

from supabase_rt import (
    AuthError,
    ConnectionFailed,
    RealtimeChannel,
    RealtimeClient,
    ReconnectPolicy,
    Refused,
)
from supabase_rt.types import ChannelOptions

from ...support.recorder import ClientEvents, Recorder, Statuses
from ...support.waiting import until
from .player import play
from .recordings import Step, load

AUTHENTICATED = "JWT:authenticated:sub"
NOTES = {"event": "*", "schema": "public", "table": "private_notes"}


# -- tokens that change ------------------------------------------------------------------


def of_topic(*topics: str) -> Any:
    """Play only the frames on these topics."""

    def skip(step: Step) -> bool:
        text = step.about.get("text", "")
        return bool(text) and not any(f'"realtime:{topic}"' in text for topic in topics)

    return skip


async def test_a_new_token_reaches_the_joined_channel_and_what_it_may_see() -> None:
    async with play("access_token", skip=of_topic("tok")) as player:
        client = player.client("A")
        client.set_auth("JWT:anon")
        channel = client.channel("tok", {"config": {"broadcast": {"self": True}}})
        notes, system = Recorder(), Recorder()
        channel.on("postgres_changes", NOTES, notes).on("system", {}, system)
        await channel.subscribe()
        client.set_auth(AUTHENTICATED)
        await notes.count(1)
        # Neither gets an answer: the server ignores a text that is no JWT, and a token that it
        # knows.
        client.set_auth("sb_publishable_x")
        client.set_auth(AUTHENTICATED)
        client.set_auth(AUTHENTICATED)
        await player.end()
        assert [change.new["note"] for change in notes.seen] == ["after refresh"]
        assert [message.message for message in system.seen] == ["Subscribed to PostgreSQL"] * 2
        assert channel.state == "joined"
        assert player.extra() == {}


ENDED_BY_A_TOKEN = [
    ("tok-expired", AUTHENTICATED, "Token has expired 60 seconds ago", "InvalidJWTToken"),
    ("tok-malformed", "not-a-jwt", "The token provided is not a valid JWT", "MalformedJWT"),
    ("tok-badsignature", "JWT:anon#badly signed", ":signature_error", "JwtSignatureError"),
    (
        "tok-norole",
        "JWT:norole",
        "Fields `role` and `exp` are required in JWT",
        "InvalidJWTToken",
    ),
]


@pytest.mark.parametrize(("topic", "token", "text", "code"), ENDED_BY_A_TOKEN)
async def test_a_token_that_the_server_will_not_have_ends_the_channel_until_the_next(
    topic: str, token: str, text: str, code: str
) -> None:
    async with play("access_token", skip=of_topic(topic)) as player:
        client = player.client("A")
        events = ClientEvents(client)
        client.set_auth("JWT:anon")
        statuses = Statuses()
        channel = client.channel(topic)
        await channel.subscribe(statuses)
        client.set_auth(token)
        await statuses.are("SUBSCRIBED", "CHANNEL_ERROR")
        await player.end()
        error = statuses.errors[1]
        assert isinstance(error, AuthError)
        assert (error.code, error.retryable) == (code, False)
        assert text in str(error)
        assert channel.state == "errored"
        assert events.errors == [error]
        with pytest.raises(AuthError):
            await channel

        assert player.extra() == {}
        client.set_auth("JWT:another")
        await until(lambda: player.extra() == {"A": [(f"realtime:{topic}", "phx_join")]})
        assert player.frames("A")[-1].payload["access_token"] == "JWT:another"
        assert player.frames("A")[-1].payload["version"].startswith("supabase-rt/")


async def test_a_token_that_runs_out_is_replaced_by_the_callback_before_the_rejoin() -> None:
    async with play("access_token", skip=of_topic("short")) as player:
        tokens = iter([AUTHENTICATED, "JWT:fresh", "JWT:never asked for"])
        client = player.client(
            "A",
            access_token=lambda: next(tokens),
            reconnect=ReconnectPolicy(initial_backoff=0.001, jitter=0.0),
        )
        statuses = Statuses()
        await client.channel("short").subscribe(statuses)
        await player.end()
        await statuses.are("SUBSCRIBED", "CHANNEL_ERROR")
        assert isinstance(statuses.errors[1], AuthError)
        await until(lambda: player.extra() == {"A": [("realtime:short", "phx_join")]})
        assert player.frames("A")[-1].payload["access_token"] == "JWT:fresh"


# -- refused at the handshake ------------------------------------------------------------


def handshakes() -> list[tuple[str, int]]:
    """The fault of a token, and the status that the server gave it."""
    found, status = [], 0
    for step in load("jwt_errors").steps:
        if step.direction == "http_resp":
            status = step.about["status"]
        elif step.direction == "check" and " -> HTTP " in step.about["what"]:
            found.append((step.about["what"].partition(" -> ")[0], status))
    return found


HANDSHAKES = handshakes()


def only_handshake(wanted: int) -> Any:
    count = -1

    def skip(step: Step) -> bool:
        nonlocal count
        count += step.direction == "http_req"
        return not step.direction.startswith("http") or count != wanted

    return skip


def test_all_refused_handshakes_are_recorded_here() -> None:
    assert [status for _, status in HANDSHAKES] == [401] * 6 + [404, 403]


@pytest.mark.parametrize("number", range(len(HANDSHAKES)), ids=[name for name, _ in HANDSHAKES])
async def test_a_refused_handshake_is_raised_with_its_status_and_is_final(number: int) -> None:
    async with play("jwt_errors", skip=only_handshake(number)) as player:
        client = RealtimeClient(player.url(), params={"apikey": "JWT:wrong"})
        with pytest.raises(ConnectionFailed) as caught:
            await client.connect()
        error = caught.value
        assert error.status == HANDSHAKES[number][1]
        assert error.code == f"HTTP{error.status}"
        assert not error.retryable
        assert error.hint
        assert "JWT:wrong" not in str(error)
        assert client.connection_state() == "closed"
        await client.wait_closed()


async def test_a_refused_handshake_closes_a_subscribed_channel_for_good() -> None:
    async with play("jwt_errors", skip=only_handshake(1)) as player:
        client = RealtimeClient(player.url(), params={"apikey": "JWT:wrong"})
        statuses = Statuses()
        client.channel("room").subscribe(statuses)
        await statuses.are("CHANNEL_ERROR", "CLOSED")
        assert isinstance(statuses.errors[0], ConnectionFailed)
        await client.disconnect()


# -- refused at the join -----------------------------------------------------------------

REFUSED_JOINS = {
    "j-expired": (AUTHENTICATED, "InvalidJWTToken"),
    "j-malformed": ("not-a-jwt", "MalformedJWT"),
    "j-wrongsignature": ("JWT:anon", "JwtSignatureError"),
    "j-norole": ("JWT:norole", "InvalidJWTToken"),
    "j-noexp": ("JWT:anon", "InvalidJWTToken"),
}


async def test_a_refused_join_is_raised_with_the_servers_code_and_rests() -> None:
    def handshake(step: Step) -> bool:
        return step.direction.startswith("http")

    async with play("jwt_errors", skip=handshake) as player:
        client = player.client("A")
        reasons = [
            reply["response"]["reason"] for reply in player.recording.payloads("A", "phx_reply")
        ]
        for (topic, (token, code)), reason in zip(REFUSED_JOINS.items(), reasons, strict=True):
            client.set_auth(token)
            channel, statuses = client.channel(topic), Statuses()
            await refusal(channel, statuses, code, reason)
            assert channel.state == "errored"
            channel.teardown()
            assert statuses.names == ["CHANNEL_ERROR", "CLOSED"]
        await player.end()
        assert player.extra() == {}


async def refusal(channel: RealtimeChannel, statuses: Statuses, code: str, reason: str) -> None:
    """Subscribe to a topic that the server refuses for good."""
    with pytest.raises(Refused) as caught:
        await channel.subscribe(statuses)
    error = caught.value
    assert (error.code, str(error)) == (code, reason)
    assert error.response == {"reason": reason}
    assert error.topic == channel.topic
    assert not error.retryable
    assert error.hint
    assert statuses.errors == [error]


# -- private channels --------------------------------------------------------------------


async def test_private_channels_admit_relay_and_refuse_by_policy() -> None:
    async with play("private_channel") as player:
        a, b, c = player.client("A"), player.client("B"), player.client("C")
        d = player.client("D")
        heard, twin = Recorder(), Recorder()
        events = ClientEvents(a)
        a.set_auth(AUTHENTICATED)
        options: Any = {"private": True, "presence": {"enabled": True, "key": "a"}}
        options["broadcast"] = {"ack": True, "self": False}
        room_a = a.channel("private-room", {"config": options})
        statuses = Statuses()
        await room_a.subscribe(statuses)
        # B sends no token, so the key of its socket serves as the token.
        room_b = b.channel("private-room", {"config": {"private": True, "presence": {"key": "b"}}})
        room_b.on("broadcast", {"event": "e"}, heard).on("presence", {"event": "*"}, Recorder())
        await room_b.subscribe()
        assert await room_a.send(message({"p": 1})) == "ok"
        assert await room_a.track({"k": "v"}) == "ok"

        private: ChannelOptions = {"config": {"private": True}}
        no_right = "Unauthorized: You do not have permissions to read from this Channel topic: "
        for token, topic in (("JWT:anon", "private-room"), (AUTHENTICATED, "other-room")):
            c.set_auth(token)
            channel = c.channel(topic, private)
            await refusal(channel, Statuses(), "Unauthorized", no_right + topic)
            channel.teardown()
        public = c.channel("private-room").on("broadcast", {"event": "*"}, twin)
        await public.subscribe()
        assert await room_a.send(message({"p": 2})) == "ok"

        d.set_auth(AUTHENTICATED)
        options = {"private": True, "presence": {"enabled": True}}
        options["broadcast"] = {"ack": True, "self": True}
        read_only = d.channel("read-only-room", {"config": options})
        await read_only.subscribe()
        assert await read_only.send(message({}), timeout=0.02) == "timed out"
        assert await read_only.track({"a": 1}) == "error"

        a.set_auth("JWT:anon")
        await statuses.are("SUBSCRIBED", "CHANNEL_ERROR")
        await a.disconnect()
        await until(lambda: room_b.presence_state() == {})
        await player.end()

        assert [event.payload for event in heard.seen] == [{"p": 1}, {"p": 2}]
        assert twin.seen == []
        error = statuses.errors[1]
        assert "You do not have permissions to read from this Channel topic" in str(error)
        assert events.errors == [error]
        assert room_a.state == "errored"
        assert player.extra() == {}


def message(payload: dict[str, Any]) -> dict[str, Any]:
    return {"type": "broadcast", "event": "e", "payload": payload}
