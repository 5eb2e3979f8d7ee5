"""broadcast, v2_framing, http_broadcast and db_broadcast_replay."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from supabase_rt import SendError
from supabase_rt.types import ChannelOptions

from ...support.recorder import Recorder, Statuses
from .player import play
from .recordings import Step


def broadcasts(payloads: list[Any]) -> list[dict[str, Any]]:
    """The payloads of handlers for recorded text broadcasts, in the order of JS keys."""
    keys = ("type", "event", "payload", "meta")
    return [{key: payload[key] for key in keys if key in payload} for payload in payloads]


async def test_acks_own_messages_and_the_size_limit() -> None:
    async with play("broadcast") as player:
        a, b = player.client("A"), player.client("B")
        options: ChannelOptions = {"config": {"broadcast": {"ack": True, "self": True}}}
        from_a, from_b = Recorder(), Recorder()
        room_a = a.channel("room1", options).on("broadcast", {"event": "chat"}, from_a)
        room_b = b.channel("room1").on("broadcast", {"event": "*"}, from_b)
        await room_a.subscribe()
        await room_b.subscribe()

        hi = {"type": "broadcast", "event": "chat", "payload": {"msg": "hi", "n": 1}}
        assert await room_a.send(hi) == "ok"
        yo = {"type": "broadcast", "event": "chat", "payload": {"msg": "yo"}}
        assert await room_b.send(yo) == "ok"
        big = {"type": "broadcast", "event": "big", "payload": {"d": "x" * 4_000_000}}
        assert await room_a.send(big) == "error"
        await player.end()

        assert from_a.seen == broadcasts(player.recording.payloads("A", "broadcast"))
        assert from_b.seen == broadcasts(player.recording.payloads("B", "broadcast"))
        assert [event.payload["msg"] for event in from_a.seen] == ["hi", "yo"]
        assert room_a.state == "joined"
        assert player.extra() == {}


def with_a_key_of_its_own(step: Step) -> bool:
    """A broadcast with metadata that the server ignores and that our API does not offer."""
    return "73746f7265" in step.about.get("hex", "")


async def test_both_protocols_on_one_topic_and_bytes_to_those_who_can_read_them() -> None:
    async with play("v2_framing", skip=with_a_key_of_its_own) as player:
        a, b, c = player.client("A"), player.client("B"), player.client("C")
        heard = {"b": Recorder(), "c": Recorder()}
        rows, people = Recorder(), Recorder()
        room_a = a.channel(
            "v2", {"config": {"broadcast": {"ack": True, "self": False}, "presence": {"key": "a"}}}
        )
        room_a.on("postgres_changes", {"event": "*", "schema": "public", "table": "messages"}, rows)
        room_a.on("presence", {"event": "*"}, people)
        await a.connect()
        a.send_heartbeat()
        await room_a.subscribe()
        for client, name in ((b, "b"), (c, "c")):
            await client.channel("v2").on("broadcast", {"event": "*"}, heard[name]).subscribe()

        for event, payload in (("t", {"x": 1}), ("bj", {"y": 2}), ("bb", bytes(range(8)))):
            message = {"type": "broadcast", "event": event, "payload": payload}
            assert await room_a.send(message) == "ok"
        await rows.count(1)
        assert await room_a.track({"k": 1}) == "ok"
        assert await room_a.unsubscribe() == "ok"
        await player.end()

        assert [(e.event, e.payload) for e in heard["b"].seen] == [
            ("t", {"x": 1}),
            ("bj", {"y": 2}),
            ("bb", bytes(range(8))),
            ("bm", {}),
        ]
        assert [(e.event, e.payload) for e in heard["c"].seen] == [
            ("t", {"x": 1}),
            ("bj", {"y": 2}),
            ("bm", {}),
        ]
        assert (
            rows.seen[0].new
            == player.recording.payloads("A", "postgres_changes")[0]["data"]["record"]
        )
        assert [event.event for event in people.seen] == ["sync", "join", "sync"]
        assert a.health().last_heartbeat_latency is not None
        assert [client.health().decode_errors for client in (a, b, c)] == [0, 0, 0]
        assert player.extra() == {}


# -- over HTTP ---------------------------------------------------------------------------


def not_in_our_api(step: Step) -> bool:
    """Requests without a key, messages or an event, or with another content type."""
    if step.direction != "http_req":
        return False
    body = step.about["body"]
    malformed = isinstance(body, dict) and body.get("messages") in (None, [], [{"topic": "http"}])
    per_event = "/events/" in step.about["path"]
    return (malformed and not per_event) or step.about["headers"].get(
        "Content-Type"
    ) == "text/plain"


async def test_broadcasts_over_http_are_those_recorded_and_reach_both_protocols(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, "supabase_rt.channel")
    async with play("http_broadcast", skip=not_in_our_api) as player:
        a, b, p = player.client("A"), player.client("B"), player.client("P")
        heard = {name: Recorder() for name in "abp"}
        everything = {"event": "*"}
        await a.channel("http").on("broadcast", everything, heard["a"]).subscribe()
        await b.channel("http").on("broadcast", everything, heard["b"]).subscribe()
        p.set_auth("JWT:authenticated:sub")
        private: ChannelOptions = {"config": {"private": True}}
        room = p.channel("private-room", private).on("broadcast", everything, heard["p"])
        await room.subscribe()

        # A client that is not connected: its sends go over HTTP, with the warning.
        sender = player.client("A", headers=None)
        sender.set_auth("JWT:anon")
        http = sender.channel("http")
        assert await http.send({"type": "broadcast", "event": "e1", "payload": {"x": 1}}) == "ok"
        assert await http.send({"type": "broadcast", "event": "e", "payload": "str"}) == "error"
        to_room = sender.channel("private-room", private)
        sender.set_auth("JWT:authenticated:sub")
        message = {"type": "broadcast", "event": "pe", "payload": {"y": 1}}
        assert await to_room.send(message) == "ok"
        sender.set_auth("JWT:anon")
        assert await to_room.send({**message, "payload": {"y": 2}}) == "ok"
        assert await http.http_send("single", {"z": 1}) == {"success": True}
        assert await http.http_send("bin", b"\x00\x01\xff") == {"success": True}
        await player.end()

        seen_by_a = [(event.event, event.payload) for event in heard["a"].seen]
        assert seen_by_a == [("e1", {"x": 1}), ("e2", {"x": 2}), ("single", {"z": 1})]
        seen_by_b = [(event.event, event.payload) for event in heard["b"].seen]
        assert seen_by_b == [*seen_by_a, ("bin", b"\x00\x01\xff")]
        assert [event.payload for event in heard["p"].seen] == [{"y": 1}]
        assert player.extra() == {}

    for recorded, ours in player.posts:
        for name, value in recorded["headers"].items():
            assert ours.request.headers[name] == value
        if ours.body == b"\x00\x01\xff":
            assert recorded["body"] == ours.body.hex()
        elif "/events/" in recorded["path"]:
            assert json.loads(ours.body) == recorded["body"]
        else:
            # JS always sends the flag for private; if it is left out, it means False. One message
            # each.
            wanted = {"private": False, **recorded["body"]["messages"][0]}
            assert json.loads(ours.body) == {"messages": [wanted]}
    warnings = [record.getMessage() for record in caplog.records]
    assert sum("automatically falling back to REST API" in text for text in warnings) == 4


async def test_refused_requests_end_as_error_or_raise_with_the_servers_words() -> None:
    def not_refused(step: Step) -> bool:
        if step.direction != "http_req":
            return step.direction != "http_resp"
        bad_token = step.about["headers"].get("Authorization") == "Bearer nope"
        return not bad_token and step.about["headers"].get("Content-Type") != "text/plain"

    async with play("http_broadcast", skip=not_refused) as player:
        sender = player.client("A", headers=None)
        sender.set_auth("nope")
        message = {"type": "broadcast", "event": "e", "payload": {}}
        assert await sender.channel("http").send(message) == "error"
        with pytest.raises(SendError) as caught:
            await sender.channel("http").http_send("bin", b"x")
        assert (caught.value.status, caught.value.code) == (415, "HTTP415")
        assert str(caught.value).startswith("Unsupported Media Type")
        assert not caught.value.retryable


# -- from the database, and again --------------------------------------------------------


async def test_the_database_broadcasts_and_a_later_member_has_it_replayed() -> None:
    def refused_by_our_api(step: Step) -> bool:
        text = step.about.get("text", "")
        written = step.direction == "send" and ("realtime:public" in text or '"since":"x"' in text)
        # The second of these joins replaces the earlier join of the socket.
        return written or "phx_close" in text

    async with play("db_broadcast_replay", skip=refused_by_our_api) as player:
        heard, statuses = {}, Statuses()
        ready = Recorder()
        since = {"since": 1795451723708}
        configs: dict[str, Any] = {
            "A": {"broadcast": {"replication_ready": True}},
            "B": {},
            "C": {"broadcast": {"replay": {**since, "limit": 10}}},
            "D": {"broadcast": {"replay": {**since, "limit": 2}}},
        }
        for conn, config in configs.items():
            client = player.client(conn)
            client.set_auth("JWT:authenticated:sub")
            heard[conn] = Recorder()
            options: Any = {"config": {"private": True, **config}}
            room = client.channel("private-room", options)
            room.on("broadcast", {"event": "*"}, heard[conn]).on("system", {}, ready)
            await room.subscribe(statuses)
        await player.end()

        for conn in ("A", "C"):
            assert heard[conn].seen == broadcasts(player.recording.payloads(conn, "broadcast"))
        assert ready.seen == player.recording.payloads("A", "system")
        assert ready.seen[0].message == "Replication connection established"
        names = [event.event for event in heard["B"].seen]
        assert names == ["db_event", "INSERT", "UPDATE", "DELETE", "bin_event"]
        for live, text in zip(heard["B"].seen, heard["A"].seen, strict=False):
            assert live == text
        assert heard["B"].seen[-1].payload == b"\x00\xff\x10"
        assert heard["B"].seen[0].meta == {"id": "7b4b7275-8d60-4d6c-9adf-4718b79632bf"}
        assert [event.meta["replayed"] for event in heard["D"].seen] == [True, True]
        assert heard["D"].seen[1].payload == b"\x00\xff\x10"
        assert statuses.names == ["SUBSCRIBED"] * 4
        assert player.extra() == {}


async def test_what_the_server_refuses_to_replay_raises_before_it_is_asked() -> None:
    async with play("db_broadcast_replay", skip=lambda step: True) as player:
        client = player.client("A")
        with pytest.raises(ValueError, match="must be a private channel"):
            client.channel("public", {"config": {"broadcast": {"replay": {"since": 1}}}})
        config: Any = {"private": True, "broadcast": {"replay": {"since": "x"}}}
        with pytest.raises(ValueError, match="since"):
            client.channel("private-room", {"config": config})


async def test_refused_joins_written_by_hand_leave_the_channel_to_join_again() -> None:
    """A join without the client's knowledge: the server closes the channel joined before."""

    def not_of_d(step: Step) -> bool:
        return step.conn in ("A", "B", "C")

    async with play("db_broadcast_replay", skip=not_of_d) as player:
        client = player.client("D")
        client.set_auth("JWT:authenticated:sub")
        statuses = Statuses()
        config: Any = {
            "private": True,
            "broadcast": {"replay": {"since": 1795451723708, "limit": 2}},
        }
        room = client.channel("private-room", {"config": config})
        await room.subscribe(statuses)
        for ref, topic, since in (("r2", "public", 1795451723708), ("r3", "private-room", "x")):
            payload: dict[str, Any] = {"config": {"broadcast": {"replay": {"since": since}}}}
            if ref == "r3":
                payload["config"]["private"] = True
                payload["access_token"] = "JWT:authenticated:sub"
            client.push(
                {
                    "topic": f"realtime:{topic}",
                    "event": "phx_join",
                    "payload": payload,
                    "ref": ref,
                    "join_ref": ref,
                }
            )
        await player.end()
        # The two replies have no request; the phx_close is that of the channel that the second join
        # replaced.
        assert client.health().stale_frames == 2
        assert statuses.names == ["SUBSCRIBED", "CHANNEL_ERROR"]
        assert room.state == "errored"
