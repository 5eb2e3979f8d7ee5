"""Broadcasts between sessions of both vsn, public and private, as recorded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from supabase_rt.server._machine.server_state import Backend
from supabase_rt.server.activity import Happening
from supabase_rt.server.tokens import Rights

from .kit import START, World, payload_of

OK = {"status": "ok", "response": {}}
CHAT = {"type": "broadcast", "event": "chat", "payload": {"msg": "hi", "n": 1}}
TOPIC = "realtime:v2"


def kind3(ref: str, event: bytes, metadata: bytes, encoding: int, body: bytes) -> bytes:
    topic = TOPIC.encode()
    lengths = [3, 1, len(ref), len(topic), len(event), len(metadata), encoding]
    return bytes(lengths) + b"1" + ref.encode() + topic + event + metadata + body


def test_ack_and_self() -> None:
    world = World()
    both, neither = world.client("1.0.0"), world.client("1.0.0")
    both.join(broadcast={"ack": True, "self": True})
    neither.join(broadcast={"ack": False, "self": False})
    relayed = {"topic": "realtime:room", "event": "broadcast", "payload": CHAT, "ref": None}
    own, ack = both.push("realtime:room", "broadcast", CHAT)
    assert own == relayed
    assert ack == {"topic": "realtime:room", "event": "phx_reply", "payload": OK, "ref": "2"}
    assert neither.heard() == [relayed]
    assert neither.push("realtime:room", "broadcast", CHAT) == []
    assert both.heard() == [relayed]


def test_a_broadcast_that_is_too_large() -> None:
    world = World(max_payload_size=100)
    client, other = world.client(), world.client()
    client.join(broadcast={"ack": True})
    other.join()
    reply = client.push("realtime:room", "broadcast", {"event": "big", "payload": "x" * 100})
    assert payload_of(reply[0]) == {"status": "error", "response": "payload_size_exceeded"}
    assert other.heard() == []


def test_a_payload_that_is_no_object_is_ignored() -> None:
    client = World().client()
    client.join(broadcast={"ack": True})
    assert client.push("realtime:room", "broadcast", "not-a-map") == []


def test_a_push_of_kind_0_is_passed_on_as_kind_2() -> None:
    world = World()
    sender, new, old = world.client(), world.client(), world.client("1.0.0")
    sender.join(broadcast={"ack": True})
    new.join()
    old.join()
    pushed = b"\x00\x01\x01\x0d\x09" + b"12realtime:roombroadcast" + b"\x00\xff"
    assert sender.raw(pushed) == [["1", "2", "realtime:room", "phx_reply", OK]]
    assert new.heard() == [b"\x02\x0d\x09realtime:roombroadcast\x00\xff"]
    assert old.heard() == []


def test_frames_between_both_versions() -> None:
    world = World()
    a, b, c = world.client(), world.client(), world.client("1.0.0")
    a.join(TOPIC, broadcast={"ack": True})
    b.join(TOPIC)
    c.join(TOPIC)

    a.push(TOPIC, "broadcast", CHAT)
    assert b.heard() == [[None, None, TOPIC, "broadcast", CHAT]]
    assert payload_of(c.heard()[0]) == CHAT

    # Recorded, to the byte.
    sent = bytes.fromhex("0301020b0200013237377265616c74696d653a7632626a7b2279223a327d")
    assert a.raw(sent.replace(b"\x32\x37\x37", b"1\x37\x37", 1)) == [
        ["1", "77", TOPIC, "phx_reply", OK]
    ]
    assert b.heard() == [bytes.fromhex("040b0200017265616c74696d653a7632626a7b2279223a327d")]
    assert payload_of(c.heard()[0]) == {"type": "broadcast", "event": "bj", "payload": {"y": 2}}

    assert a.raw(kind3("78", b"bb", b"", 0, bytes(range(8))))[0][1] == "78"
    expected = bytes.fromhex("040b0200007265616c74696d653a763262620001020304050607")
    assert b.heard() == [expected]
    assert c.heard() == []

    # The sender's metadata is not passed on.
    a.raw(kind3("79", b"bm", b'{"store":true}', 1, b"{}"))
    assert b.heard() == [bytes.fromhex("040b0200017265616c74696d653a7632626d7b7d")]
    assert payload_of(c.heard()[0])["payload"] == {}

    # Invalid JSON: vsn 2.0.0 gets the bytes unchanged.
    a.raw(kind3("80", b"bad", b"", 1, b"{oops"))
    assert b.heard()[0].endswith(b"{oops")
    assert c.heard() == []


def policy(role: str, claims: Mapping[str, Any], sub_topic: str) -> Rights | bool:
    if sub_topic == "broken":
        raise RuntimeError("no such table")
    if role != "authenticated":
        return False
    rooms: dict[str, Rights | bool] = {
        "private-room": True,
        "read-only": Rights.read(),
        "presence-only": Rights(broadcast_read=False, broadcast_write=False),
    }
    return rooms.get(sub_topic, False)


DENIED = "Unauthorized: You do not have permissions to read from this Channel topic: "


def test_private_and_public_are_two_spaces() -> None:
    world = World(policy)
    user = world.token("authenticated", sub="u1")
    a, b, c = world.client(token=user), world.client(), world.client()
    a.join("realtime:private-room", private=True, broadcast={"ack": True})
    b.join("realtime:private-room", token=user, private=True)
    assert c.reason("realtime:private-room", private=True) == DENIED + "private-room"
    assert payload_of(c.join("realtime:private-room")[0])["status"] == "ok"
    assert a.push("realtime:private-room", "broadcast", CHAT)[0][4] == OK
    assert len(b.heard()) == 1
    assert c.heard() == []


@pytest.mark.parametrize("room", ["other", "broken"])
def test_no_right_to_read(room: str) -> None:
    world = World(policy)
    client = world.client(token=world.token("authenticated"))
    assert client.reason(f"realtime:{room}", private=True) == DENIED + room


def test_a_denied_broadcast_is_silence_and_a_denied_track_an_error() -> None:
    world = World(policy)
    client = world.client(token=world.token("authenticated"))
    client.join(
        "realtime:read-only",
        private=True,
        broadcast={"ack": True, "self": True},
        presence={"enabled": True},
    )
    assert client.push("realtime:read-only", "broadcast", CHAT) == []
    reply = client.push("realtime:read-only", "presence", {"event": "track", "payload": {}})
    assert payload_of(reply[0]) == {"status": "error", "response": {}}


def test_presence_alone_is_enough_to_join_where_it_is_enabled() -> None:
    world = World(policy)
    user = world.token("authenticated")
    client, sender = world.client(token=user), world.client(token=user)
    room = "realtime:presence-only"
    assert client.reason(room, private=True) == DENIED + "presence-only"
    wants: dict[str, Any] = {"private": True, "presence": {"enabled": True}}
    assert payload_of(client.join(room, **wants)[0])["status"] == "ok"
    sender.join(room, **wants)
    sender.push(room, "broadcast", CHAT)
    assert client.heard() == []
    wants["broadcast"] = {"replay": {"since": 0}}
    assert client.reason(room, **wants) == DENIED + "presence-only"


def test_the_default_policy() -> None:
    backend = Backend()
    for role, allowed in (("anon", False), ("authenticated", True), ("service_role", True)):
        token = backend.tokens.verify(backend.tokens.issue(role, now=START), START)
        assert backend.rights(token, "room").broadcast_write is allowed


# -- from the database side ------------------------------------------------------------------


def test_a_message_of_the_database_carries_its_id() -> None:
    world = World()
    v2, v1 = world.client(), world.client("1.0.0")
    v2.join()
    v1.join()
    assert world.backend.broadcast("room", "e", {"a": 1}, private=False, now=world.now) == 2
    seen = payload_of(v1.heard()[0])
    message_id = seen["meta"]["id"]
    assert seen == {
        "type": "broadcast",
        "event": "e",
        "payload": {"id": message_id, "a": 1},
        "meta": {"id": message_id},
    }
    body = f'{{"id":"{message_id}"}}{{"id":"{message_id}","a":1}}'.encode()
    assert v2.heard() == [b"\x04\x0d\x01\x2d\x01realtime:roome" + body]
    assert world.backend.broadcast("room", "b", b"\x00\xff", private=False, now=world.now) == 1
    assert v2.heard()[0].endswith(b"\x00\xff")
    assert world.backend.broadcast("room", "e", {"id": 7}, private=False, now=world.now) == 2
    assert payload_of(v1.heard()[0])["payload"] == {"id": 7}
    with pytest.raises(TypeError, match="dict or bytes, not list"):
        world.backend.broadcast("room", "e", [1], private=False, now=world.now)


def test_replay() -> None:
    world = World()
    user = world.token("authenticated")
    for number in range(30):
        world.backend.broadcast("room", f"e{number}", {"n": number}, private=True, now=world.now)
        world.now += 1
    world.backend.broadcast("room", "bin", b"\x01", private=True, now=world.now)
    v1, v2 = world.client("1.0.0", user), world.client("2.0.0", user)
    since = int((START + 25) * 1000)
    frames = v1.join(private=True, broadcast={"replay": {"since": since}})
    assert [payload_of(each).get("event") for each in frames] == [
        None,
        *(f"e{n}" for n in range(25, 30)),
    ]
    assert payload_of(frames[1])["meta"]["replayed"] is True
    reply, text, binary = v2.join(private=True, broadcast={"replay": {"since": 0, "limit": 2}})
    assert reply[3] == "phx_reply"
    assert text[:4] == ["1", None, "realtime:room", "broadcast"]
    assert (text[4]["event"], text[4]["payload"]["n"]) == ("e29", 29)
    assert binary[4] == 0
    assert binary.endswith(b'"replayed":true}\x01')
    everything = v2.join(private=True, broadcast={"replay": {"since": 0, "limit": 1000}})
    assert len([each for each in everything if each[3:4] != ["phx_close"]]) == 26


@pytest.mark.parametrize(
    "replay",
    [
        None,
        5,
        {},
        {"since": "x"},
        {"since": 1, "limit": None},
        {"since": -1},
        {"since": True},
        {"since": 10**15},
    ],
)
def test_replay_that_cannot_be(replay: Any) -> None:
    world = World()
    client = world.client(token=world.token("authenticated"))
    wanted = {"replay": replay}
    assert client.reason(broadcast=wanted) == (
        "UnableToReplayMessages: Replay is not allowed for public channels"
    )
    assert client.reason(private=True, broadcast=wanted) == (
        "UnableToReplayMessages: Replay params are not valid"
    )


def test_replication_ready() -> None:
    client = World().client()
    _, system, state = client.join(
        broadcast={"replication_ready": True}, presence={"enabled": "true"}
    )
    assert system[4] == {
        "message": "Replication connection established",
        "status": "ok",
        "extension": "system",
        "channel": "room",
    }
    assert state == ["1", None, "realtime:room", "presence_state", {}]


def test_an_onlooker_does_not_change_what_becomes_of_a_push_of_kind_0() -> None:
    world, seen = World(), list[Happening]()
    sender, other = world.client(), world.client()
    for client in (sender, other):
        client.join("realtime:v2")
    world.backend.activity.watch(seen.append)
    fields = b"1", b"2", TOPIC.encode(), b"broadcast"
    head = bytes([0, *map(len, fields)])
    assert sender.raw(head + b"".join(fields) + b"\0\xff") == []
    assert [frame[-2:] for frame in other.heard()] == [b"\0\xff"]
    assert [(each.kind, each.content) for each in seen] == [("broadcast", b"\0\xff")]
