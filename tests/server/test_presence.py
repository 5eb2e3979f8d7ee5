"""Presence through sessions, as recorded."""

from __future__ import annotations

from typing import Any

import pytest

from .kit import Client, World, payload_of

OK = {"status": "ok", "response": {}}
ROOM = "realtime:room"


def track(client: Client, payload: Any, event: str = "track") -> list[Any]:
    message = {"type": "presence", "event": event, "payload": payload}
    return client.push(ROOM, "presence", message)


def test_state_and_diffs() -> None:
    world = World()
    alice, bob = world.client(), world.client()
    assert alice.join(presence={"key": "alice", "enabled": True})[1] == [
        "1", None, ROOM, "presence_state", {},
    ]  # fmt: skip
    reply, diff = track(alice, {"status": "online"})
    assert reply == ["1", "2", ROOM, "phx_reply", OK]
    assert diff[:4] == [None, None, ROOM, "presence_diff"]
    meta = diff[4]["joins"]["alice"]["metas"][0]
    assert meta == {"phx_ref": meta["phx_ref"], "status": "online"}
    assert len(meta["phx_ref"]) == 16
    assert diff[4]["leaves"] == {}

    assert bob.join(presence={"key": "bob", "enabled": True})[1][4] == {"alice": {"metas": [meta]}}
    track(bob, {"status": "busy"})
    first = alice.heard()[0][4]["joins"]["bob"]["metas"][0]
    track(bob, {"status": "away"}, "TRACK")
    update = alice.heard()[0][4]
    second = update["joins"]["bob"]["metas"][0]
    assert second["phx_ref_prev"] == first["phx_ref"]
    assert second["status"] == "away"
    assert update["leaves"] == {"bob": {"metas": [first]}}

    bob.heard()
    assert [each[3] for each in track(bob, {"status": "away"})] == ["phx_reply"]
    assert alice.heard() == []
    bob.push(ROOM, "presence", {"event": "untrack"})
    assert alice.heard()[0][4] == {"joins": {}, "leaves": {"bob": {"metas": [second]}}}
    assert bob.push(ROOM, "presence", {"event": "untrack"})[-1][4] == OK


def test_members_of_one_key_are_grouped() -> None:
    world = World()
    one, two = world.client(), world.client()
    for client in (one, two):
        client.join(presence={"key": "me", "enabled": True})
        track(client, {"phx_ref": "forged"})
    refs = [meta["phx_ref"] for meta in one.session.backend.hub.presence_state(
        ("room", False))["me"]["metas"]]  # fmt: skip
    assert len(set(refs)) == 2
    assert "forged" not in refs


def test_presence_that_was_not_asked_for() -> None:
    world = World()
    client, listener = world.client("1.0.0"), world.client()
    listener.join()
    assert len(client.join(presence={"key": ""})) == 1
    _, diff = track(client, {"x": 1})
    (key,) = payload_of(diff)["joins"]
    assert len(key) == 36
    # On a public channel all members get the diffs.
    assert len(listener.heard()) == 1
    reply = track(client, "notamap")
    assert payload_of(reply[0]) == {
        "status": "error",
        "response": {"reason": "Presence track payload must be a map"},
    }
    assert payload_of(track(client, None, "bogus")[0]) == {"status": "error", "response": {}}


def test_a_private_channel_hears_presence_only_when_enabled() -> None:
    world = World()
    user = world.token("authenticated")
    active, idle = world.client(token=user), world.client(token=user)
    active.join(private=True, presence={"key": 7, "enabled": True})
    idle.join(private=True)
    assert "7" in track(active, {})[1][4]["joins"]
    assert idle.heard() == []
    track(idle, {})
    idle.heard()
    assert track(active, {"a": 1})[-1][:4] == [None, None, ROOM, "presence_diff"]
    # The channel itself pushes it, so it has a join_ref.
    (diff,) = idle.heard()
    assert diff[:4] == ["1", None, ROOM, "presence_diff"]


def test_the_tenant_may_enable_presence_for_all() -> None:
    client = World(presence_enabled=True).client()
    assert client.join(presence={"enabled": False})[1][3] == "presence_state"


def test_the_limit_on_presence_calls() -> None:
    world = World()
    client = world.client("1.0.0")
    client.join()
    for number in range(5):
        track(client, {"n": number})
    # As recorded, calls with an invalid shape are not counted.
    track(client, "notamap")
    track(client, {}, "bogus")
    system, close = track(client, {"n": 5})
    assert payload_of(system) == {
        "message": "Client presence rate limit exceeded",
        "status": "error",
        "extension": "system",
        "channel": "room",
    }
    assert close == {"topic": ROOM, "event": "phx_close", "payload": {}, "ref": "1"}
    # A new join starts a new count, and so does a new window.
    client.join()
    for _ in range(5):
        client.push(ROOM, "presence", {"event": "untrack"})
    world.now += 30
    assert len(client.push(ROOM, "presence", {"event": "untrack"})) == 1
    for _ in range(4):
        client.push(ROOM, "presence", {"event": "untrack"})
    assert payload_of(client.push(ROOM, "presence", {"event": "untrack"})[0])["status"] == "error"


@pytest.mark.parametrize("limit", [None, (1000, 1.0)])
def test_the_limit_can_be_lifted(limit: Any) -> None:
    client = World(presence_limit=limit).client()
    client.join()
    for number in range(20):
        assert track(client, {"n": number})[0][4] == OK


def test_a_track_payload_that_is_too_large() -> None:
    client = World(max_payload_size=50).client()
    client.join()
    system, close = track(client, {"x": "y" * 60})
    assert system[4]["message"] == "Track message size exceeded"
    assert close[3] == "phx_close"
