"""The Phoenix protocol in a session, as recorded, without sockets."""

from __future__ import annotations

from typing import Any

import pytest

from supabase_rt.server._machine.outgoing import Close

from .kit import World, payload_of

BOTH = pytest.mark.parametrize("vsn", ["1.0.0", "2.0.0"])
OK = {"status": "ok", "response": {}}
UNMATCHED = {"status": "error", "response": {"reason": "unmatched topic"}}
JOINED = {"status": "ok", "response": {"postgres_changes": []}}


def expect(vsn: str, join_ref: Any, ref: Any, topic: str, event: str, payload: Any) -> Any:
    if vsn == "2.0.0":
        return [join_ref, ref, topic, event, payload]
    return {"topic": topic, "event": event, "payload": payload, "ref": ref}


@BOTH
def test_a_heartbeat_is_answered_without_a_join_ref(vsn: str) -> None:
    client = World().client(vsn)
    assert client.push("phoenix", "heartbeat", {}) == [
        expect(vsn, None, "1", "phoenix", "phx_reply", OK)
    ]


@BOTH
def test_pushes_outside_of_any_channel(vsn: str) -> None:
    client = World().client(vsn)
    client.join_refs = {"realtime:x": "9", "foo:bar": "9"}
    for topic, event in (
        ("realtime:x", "broadcast"),
        ("phoenix", "nonsense"),
        ("phoenix", "phx_leave"),
    ):
        assert client.push(topic, event, {}, ref="2") == [
            expect(vsn, None, "2", topic, "phx_reply", UNMATCHED)
        ]
    assert client.push("foo:bar", "phx_join", {"config": {}}, ref="2") == [
        expect(vsn, None, "2", "foo:bar", "phx_reply", UNMATCHED)
    ]
    assert client.push("realtime:x", "phx_leave", {}, ref="3") == [
        expect(vsn, "9", "3", "realtime:x", "phx_reply", OK)
    ]


@BOTH
def test_leave_is_answered_and_then_closed(vsn: str) -> None:
    client = World().client(vsn)
    assert client.join() == [expect(vsn, "1", "1", "realtime:room", "phx_reply", JOINED)]
    assert client.push("realtime:room", "phx_leave", {}) == [
        expect(vsn, "1", "2", "realtime:room", "phx_reply", OK),
        expect(vsn, "1", "1", "realtime:room", "phx_close", {}),
    ]
    assert client.push("realtime:room", "broadcast", {})[0] == expect(
        vsn, None, "3", "realtime:room", "phx_reply", UNMATCHED
    )


def test_leave_with_another_join_ref_is_ignored() -> None:
    client = World().client()
    client.join()
    assert client.raw('["9","2","realtime:room","phx_leave",{}]') == []
    assert client.raw('[null,"2","realtime:room","phx_leave",{}]') == []
    assert "realtime:room" in client.session.channels


def test_a_join_without_join_ref_may_be_left_with_any() -> None:
    client = World().client()
    assert client.raw('[null,"4","realtime:room","phx_join",{"config":{}}]')[0][:2] == [None, "4"]
    assert client.raw('["4","5","realtime:room","presence",{}]') == [
        ["4", "5", "realtime:room", "phx_reply", OK]
    ]
    assert client.raw('["7","6","realtime:room","phx_leave",{}]') == [
        ["7", "6", "realtime:room", "phx_reply", OK],
        [None, None, "realtime:room", "phx_close", {}],
    ]


@BOTH
def test_a_second_join_is_answered_before_the_first_is_closed(vsn: str) -> None:
    client = World().client(vsn)
    client.push("realtime:dup", "phx_join", {"config": {}}, ref="6")
    assert client.push("realtime:dup", "phx_join", {"config": {}}, ref="7") == [
        expect(vsn, "7", "7", "realtime:dup", "phx_reply", JOINED),
        expect(vsn, "6", "6", "realtime:dup", "phx_close", {}),
    ]
    assert client.push("realtime:dup", "nonsense", {"a": 1}) == []
    assert client.push("realtime:dup", "presence", {"no": "event"}, ref="10") == [
        expect(vsn, "7", "10", "realtime:dup", "phx_reply", OK)
    ]


def test_a_refused_second_join_closes_the_first_too() -> None:
    client = World().client()
    client.join()
    reply, close = client.join(token="nope")
    assert payload_of(reply)["status"] == "error"
    assert close == ["1", "1", "realtime:room", "phx_close", {}]
    assert client.session.channels == {}


def test_a_push_with_a_stale_join_ref_is_processed() -> None:
    client = World().client()
    client.join(broadcast={"ack": True})
    assert client.raw('["0","9","realtime:room","broadcast",{"event":"x"}]') == [
        ["1", "9", "realtime:room", "phx_reply", OK]
    ]


@pytest.mark.parametrize(
    "data",
    [
        "this is not json",
        "{}",
        "[]",
        '["1","2","realtime:room","broadcast"]',
        '["1","2",3,"broadcast",{}]',
        b"",
        b"\x07\x01",
        b"\x03\xff\x00\x00\x00\x00\x01ab",
        b"\x03\x00\x00\x00\x00\x01\x01{",
    ],
)
def test_a_malformed_frame_is_dropped(data: str | bytes) -> None:
    world = World()
    client = world.client()
    assert client.raw(data) == []
    assert world.backend.malformed == 1
    assert len(client.push("phoenix", "heartbeat", {})) == 1


def test_vsn_1_takes_a_binary_frame_of_json() -> None:
    client = World().client("1.0.0")
    data = b'{"topic":"phoenix","event":"heartbeat","payload":{},"ref":"1"}'
    assert len(client.raw(data)) == 1
    assert client.raw("[]") == []


def test_a_join_without_config_is_a_subscription_by_topic() -> None:
    world = World()
    client = world.client()
    reply, system = client.push("realtime:public:todos:id=eq.1", "phx_join", {})
    entry = payload_of(reply)["response"]["postgres_changes"][0]
    assert {k: v for k, v in entry.items() if k != "id"} == {
        "schema": "public",
        "table": "todos",
        "filter": "id=eq.1",
    }
    assert payload_of(system)["message"] == "Subscribed to PostgreSQL"


@pytest.mark.parametrize(
    "payload",
    [None, "x", {"config": [1]}, {"config": {"broadcast": True}}, {"config": {"broadcast": "x"}}],
)
def test_payloads_that_break_the_join(payload: Any) -> None:
    client = World().client()
    reply = client.push("realtime:bad", "phx_join", payload)[0]
    reason = payload_of(reply)["response"]["reason"]
    assert reason == "UnknownErrorOnChannel: no function clause matching in Access.get/3"


@pytest.mark.parametrize(
    "config",
    [
        {"presence": 5, "postgres_changes": "y"},
        {"presence": {"key": None, "enabled": 1}, "broadcast": None},
        {"postgres_changes": [None, 3]},
        {"private": "no", "broadcast": {"ack": 1}},
    ],
)
def test_fields_that_are_not_understood_fall_back(config: Any) -> None:
    client = World().client()
    assert payload_of(client.join(**config)[0]) == JOINED


def test_a_null_config_is_an_empty_one() -> None:
    client = World().client()
    assert payload_of(client.push("realtime:x", "phx_join", {"config": None})[0]) == JOINED


def test_refusals_of_a_join() -> None:
    world = World(max_channels_per_client=1, private_only=True)
    client = world.client(token=world.token("service_role"))
    assert client.reason("realtime:") == "TopicNameRequired: You must provide a topic name"
    assert client.reason() == "PrivateOnly: This project only allows private channels"
    client.join("realtime:one", private="TRUE")
    assert client.reason("realtime:two", private=True) == (
        "ChannelRateLimitReached: Too many channels"
    )
    world.backend.faults.refuse_next_join("ConnectionRateLimitReached: Too many connected users", 2)
    for _ in range(2):
        assert client.reason().startswith("ConnectionRateLimitReached")


def test_a_refusal_may_close_the_socket() -> None:
    world = World()
    client = world.client()
    world.backend.faults.refuse_next_join("ClientJoinRateLimitReached: x", close=1001)
    assert client.join()[1] == Close(1001)


def test_an_undecided_join_blocks_its_socket_and_no_other() -> None:
    world = World(join_error_delay=5.0)
    client, other = world.client(), world.client()
    client.join("realtime:good")
    other.join("realtime:good")
    assert client.join("realtime:") == []
    assert client.push("phoenix", "heartbeat", {}, ref="hb") == []
    assert client.join("realtime:") == []
    other.push("realtime:good", "broadcast", {"event": "x"})
    assert client.heard() == []
    assert len(other.push("phoenix", "heartbeat", {})) == 1
    world.advance(4.9)
    assert client.heard() == []
    world.advance(0.1)
    reply, broadcast, heartbeat = client.heard()
    assert payload_of(reply)["response"]["reason"].startswith("TopicNameRequired")
    assert broadcast == [None, None, "realtime:good", "broadcast", {"event": "x"}]
    assert heartbeat[1] == "hb"
    # The delay of the second refused join starts only now.
    world.advance(4.9)
    assert client.heard() == []
    world.advance(0.2)
    assert len(client.heard()) == 1


def test_silence_of_the_client_closes_the_socket() -> None:
    world = World(idle_timeout=60.0)
    client = world.client()
    world.advance(50)
    client.push("phoenix", "heartbeat", {})
    world.advance(50)
    client.session.touch(world.now)
    world.advance(59)
    assert client.heard() == []
    world.advance(1)
    assert client.heard() == [Close(1000)]


def test_a_crash_of_one_channel_leaves_the_others(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    client = world.client()
    client.join("realtime:a")
    client.join("realtime:b")
    assert client.push("realtime:a", "presence", {"event": 5}) == [
        ["1", "1", "realtime:a", "phx_error", {"reason": "channel_crash"}]
    ]
    # The name is too long for a binary frame: the real server's process crashes.
    other = world.client()
    other.join("realtime:b")
    name = "n" * 300
    world.backend.broadcast("b", "fits", {}, private=False, now=world.now)
    assert len(client.heard()) == 1
    client.session.channels["realtime:b"].push = None  # type: ignore[assignment, method-assign]
    assert client.push("realtime:b", "broadcast", {"event": name})[0][3] == "phx_error"
    assert "channel realtime:b failed on broadcast" in caplog.text
    assert client.session.channels == {}


def test_the_end_of_a_session_leaves_everything() -> None:
    world = World()
    gone, left = world.client(), world.client()
    gone.join(presence={"enabled": True, "key": "gone"}, postgres_changes=[{"schema": "public"}])
    left.join(presence={"enabled": True})
    gone.push("realtime:room", "presence", {"event": "track", "payload": {"a": 1}})
    left.heard()
    gone.session.end()
    assert list(left.heard()[0][4]["leaves"]) == ["gone"]
    assert gone.session.deadline is None
    left.session.end()
    assert world.backend.hub.members(("room", False)) == []
    assert world.backend.hub.presence_state(("room", False)) == {}


def test_large_messages_are_not_remembered_by_the_thousand() -> None:
    world = World()
    client = world.client()
    client.join()
    payload = {"type": "broadcast", "event": "e", "payload": {"x": "x" * 2**20}}
    for _ in range(70):
        client.push("realtime:room", "broadcast", payload)
    last = client.push("realtime:room", "broadcast", {**payload, "payload": {}}, ref="last")
    backend = world.backend
    assert last == []
    assert backend.received[-1].ref == "last"
    assert sum(found.size for found in backend.received) <= 64 * 2**20
    assert list(backend.unexpected) == list(backend.received)
    assert len(backend.received) > 60


def test_what_was_received_can_be_looked_at() -> None:
    world = World()
    client = world.client()
    client.join()
    client.raw(bytes.fromhex("03010200020001313738") + b'bj{"y":2}')
    client.raw(bytes.fromhex("03010200020001313738") + b"bj{")
    joined, sent, garbage = world.backend.received
    assert (joined.connection, joined.event, joined.payload) == (1, "phx_join", {"config": {}})
    assert sent.payload == {"type": "broadcast", "event": "bj", "payload": {"y": 2}}
    assert garbage.payload.body == b"{"
