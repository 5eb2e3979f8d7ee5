"""Broadcasts, presence and system messages as handlers see them."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supabase_rt._payloads.base import Payload, json_shape
from supabase_rt._payloads.broadcast import Broadcast, read_broadcast
from supabase_rt._payloads.presence_events import PresenceJoin, PresenceLeave, PresenceSync
from supabase_rt._payloads.system_message import SystemMessage, read_system
from supabase_rt._wire.envelope import UserBroadcast
from supabase_rt._wire.serializer import decode_server_binary, decode_text
from supabase_rt.errors import DecodeError

# As a real server sent them.
TEXT_FRAME = (
    '{"ref":null,"payload":{"event":"db_event","meta":{"id":"7b4b7275-8d60-4d6c-9adf-4718b79632bf"'
    ',"replayed":true},"payload":{"hello":"db"},"type":"broadcast"},"event":"broadcast",'
    '"topic":"realtime:private-room"}'
)
CHAT_FRAME = (
    '{"ref":null,"payload":{"event":"chat","payload":{"msg":"hi","n":1},"type":"broadcast"},'
    '"event":"broadcast","topic":"realtime:room1"}'
)
BINARY_FRAME = bytes.fromhex(
    "0415092d007265616c74696d653a707269766174652d726f6f6d62696e5f6576656e747b226964223a226164383534"
    "6363352d343231612d346334382d396163302d653865386235373865666564227d00ff10"
)
SYSTEM_FRAME = (
    '{"ref":null,"payload":{"message":"Subscribed to PostgreSQL","status":"ok",'
    '"extension":"postgres_changes","channel":"pgc"},"event":"system","topic":"realtime:pgc"}'
)
DISCONNECT_FRAME = (
    '{"ref":null,"payload":{"message":"Server requested disconnect","status":"ok",'
    '"extension":"system"},"event":"system","topic":"realtime:srv"}'
)


def payload_of(frame: str) -> Any:
    return decode_text("1.0.0", frame).payload


def raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(value if isinstance(value, bytes) else json.dumps(value).encode())


CHAT = {"type": "broadcast", "event": "chat", "payload": {"msg": "hi", "n": 1}}
JOIN = {
    "event": "join",
    "key": "me",
    "currentPresences": [],
    "newPresences": [{"presence_ref": "F1", "name": "a"}],
}
LEAVE = {
    "event": "leave",
    "key": "me",
    "currentPresences": [{"presence_ref": "F2"}],
    "leftPresences": [{"presence_ref": "F1"}],
}
SYSTEM = {
    "extension": "postgres_changes",
    "status": "ok",
    "message": "Subscribed to PostgreSQL",
    "channel": "pgc",
}
EVERY: list[tuple[Payload, dict[str, Any]]] = [
    (Broadcast("broadcast", "chat", {"msg": "hi", "n": 1}), CHAT),
    (
        Broadcast("broadcast", None, [1], {"id": "x"}),
        {"type": "broadcast", "event": None, "payload": [1], "meta": {"id": "x"}},
    ),
    (PresenceSync(), {"event": "sync"}),
    (PresenceJoin("me", [], [{"presence_ref": "F1", "name": "a"}]), JOIN),
    (PresenceLeave("me", [{"presence_ref": "F2"}], [{"presence_ref": "F1"}]), LEAVE),
    (SystemMessage("postgres_changes", "ok", "Subscribed to PostgreSQL", "pgc"), SYSTEM),
    (
        SystemMessage("system", "ok", "Server requested disconnect"),
        {"extension": "system", "status": "ok", "message": "Server requested disconnect"},
    ),
]
every = pytest.mark.parametrize(("payload", "plain"), EVERY)


# -- what all have in common ------------------------------------------------------------------


@every
def test_a_payload_is_a_mapping_with_the_keys_of_js(payload: Payload, plain: Any) -> None:
    assert isinstance(payload, Mapping)
    assert dict(payload) == plain
    assert list(payload) == list(plain)
    assert len(payload) == len(plain)
    assert list(payload.items()) == list(plain.items())
    assert all(key in payload and payload[key] == plain[key] for key in plain)
    assert payload.get("no such key", 5) == 5
    assert "no such key" not in payload
    assert {**payload} == plain


@every
def test_a_payload_can_be_matched(payload: Payload, plain: Any) -> None:
    match payload:
        case {"event": "chat", "payload": {"msg": msg}}:
            assert (msg, plain) == ("hi", CHAT)
        case {"event": event, **rest}:
            assert {"event": event, **rest} == plain
        case {"extension": extension, "status": "ok"}:
            assert extension == plain["extension"]
        case _:
            raise AssertionError("not matched")


@every
def test_a_payload_equals_its_like_and_its_dict(payload: Payload, plain: Any) -> None:
    assert payload == type(payload).from_dict(plain)
    assert payload == plain
    assert plain == payload
    # Compared in both directions, because a struct has its own "!=".
    assert (payload != type(payload).from_dict(plain)) is False
    assert (payload != plain) is (plain != payload) is False
    assert payload != {**plain, "event": "other"}
    assert payload != {}
    assert payload != "text"
    for other, _ in EVERY:
        assert (payload == other) is (payload is other)


@every
def test_a_payload_goes_to_plain_data_and_back(payload: Payload, plain: Any) -> None:
    assert payload.to_dict() == plain
    assert list(payload.to_dict()) == list(plain)
    assert json.loads(payload.to_json()) == plain
    assert type(payload).from_json(payload.to_json()) == payload
    assert type(payload).from_json(payload.to_json().encode()) == payload


@every
def test_a_payload_can_be_copied_and_pickled(payload: Payload, plain: Any) -> None:
    for made in (
        copy.copy(payload),
        copy.deepcopy(payload),
        *(pickle.loads(pickle.dumps(payload, number)) for number in range(2, 6)),
    ):
        assert type(made) is type(payload)
        assert made == payload
        assert made == plain


@every
def test_a_payload_is_read_only(payload: Any, plain: Any) -> None:
    for name in [*payload._names.values(), "made_up"]:
        with pytest.raises(AttributeError):
            setattr(payload, name, 1)
        with pytest.raises(AttributeError):
            delattr(payload, name)
    assert not hasattr(payload, "__dict__")
    with pytest.raises(TypeError):
        payload["event"] = 1
    with pytest.raises(TypeError):
        hash(payload)
    assert payload == plain


@every
def test_a_payload_has_a_short_repr(payload: Payload, plain: Any) -> None:
    assert repr(payload).startswith(f"<{type(payload).__name__}")
    assert len(repr(payload)) < 150


def test_reprs_say_what_matters_and_stay_short() -> None:
    assert repr(EVERY[0][0]) == "<Broadcast 'chat' {'msg': 'hi', 'n': 1}>"
    assert repr(Broadcast("broadcast", "chat")) == "<Broadcast 'chat'>"
    assert repr(Broadcast("broadcast", "chat", 0)) == "<Broadcast 'chat' 0>"
    assert repr(Broadcast("broadcast", "b", b"123")) == "<Broadcast 'b' 3 bytes>"
    assert repr(EVERY[3][0]) == "<PresenceJoin 'me' [{'presence_ref': 'F1', 'name': 'a'}]>"
    assert repr(EVERY[5][0]) == "<SystemMessage postgres_changes ok: 'Subscribed to PostgreSQL'>"
    assert len(repr(Broadcast("broadcast", "x" * 10_000, None))) < 150
    assert len(repr(PresenceJoin("x" * 10_000, [], []))) < 150
    assert len(repr(SystemMessage("x" * 10_000, "y" * 10_000, "z" * 10_000))) <= 122


@given(st.recursive(st.binary() | st.text() | st.integers() | st.floats(), st.lists))
def test_a_repr_is_short_and_raises_nothing(payload: Any) -> None:
    nested: Any = {"a": payload}
    for _ in range(10):
        nested = {1: nested, "b": nested}
    for found in (payload, nested, {"n": 10**5000}):
        assert len(repr(Broadcast("broadcast", "x", found))) <= 122
        assert len(repr(PresenceLeave("x", [], [found]))) <= 122


def test_attributes_have_the_spelling_of_python() -> None:
    join = PresenceJoin("me", [{"a": 1}], [{"b": 2}])
    assert (join.event, join.key) == ("join", "me")
    assert (join.current_presences, join.new_presences) == ([{"a": 1}], [{"b": 2}])
    leave = PresenceLeave(key="me", current_presences=[], left_presences=[{"b": 2}])
    assert (leave.event, leave.key) == ("leave", "me")
    assert (leave.current_presences, leave.left_presences) == ([], [{"b": 2}])
    assert PresenceSync().event == "sync"
    assert PresenceJoin(key="a", current_presences=[], new_presences=[]).key == "a"


def test_the_other_spelling_is_answered_with_the_right_one() -> None:
    join: Any = EVERY[3][0]
    with pytest.raises(AttributeError, match="in Python it is 'new_presences'"):
        join.newPresences
    with pytest.raises(KeyError, match="'newPresences'"):
        join["new_presences"]
    with pytest.raises(KeyError, match=r"^'leftPresences'$"):
        join["leftPresences"]
    assert join.get("new_presences") is None


@pytest.mark.parametrize("cls", list(dict.fromkeys(type(payload) for payload, _ in EVERY)))
@pytest.mark.parametrize("bad", [None, 1, "text", [], [["event", "sync"]]])
def test_what_is_no_object_is_refused(cls: type[Payload], bad: Any) -> None:
    with pytest.raises(ValueError):
        cls.from_dict(bad)
    with pytest.raises(ValueError):
        cls.from_json(json.dumps(bad))
    with pytest.raises(ValueError):
        cls.from_json("{")


@pytest.mark.parametrize(
    ("cls", "bad"),
    [
        (Broadcast, {**CHAT, "event": 1}),
        (Broadcast, {**CHAT, "type": None}),
        (PresenceSync, {"event": "join"}),
        (PresenceJoin, LEAVE),
        (PresenceLeave, JOIN),
        (PresenceJoin, {**JOIN, "key": 1}),
        (PresenceJoin, {**JOIN, "newPresences": {}}),
        (PresenceLeave, {**LEAVE, "currentPresences": None}),
        (PresenceLeave, {"event": "leave", "key": "me"}),
        (SystemMessage, {**SYSTEM, "message": 1}),
        (SystemMessage, {**SYSTEM, "channel": 1}),
        (SystemMessage, {"extension": "system"}),
    ],
)
def test_values_of_the_wrong_type_are_refused(cls: type[Payload], bad: Any) -> None:
    with pytest.raises(ValueError):
        cls.from_dict(bad)


def test_keys_that_are_not_known_are_ignored() -> None:
    assert Broadcast.from_dict({**CHAT, "more": 1}) == CHAT
    assert PresenceSync.from_dict({}) == PresenceSync()


def test_what_is_given_out_is_a_copy() -> None:
    join = PresenceJoin("me", [], [{"name": "a"}])
    join.to_dict()["newPresences"][0]["name"] = "b"
    assert join.new_presences == [{"name": "a"}]


# -- broadcast --------------------------------------------------------------------------------


def test_a_text_broadcast_is_read() -> None:
    found = read_broadcast(payload_of(CHAT_FRAME))
    assert (found.type, found.event, found.payload) == ("broadcast", "chat", {"msg": "hi", "n": 1})
    assert found.meta is None
    assert "meta" not in found
    assert found == CHAT
    with pytest.raises(KeyError, match="meta"):
        found["meta"]


def test_the_meta_of_a_replayed_broadcast_is_read() -> None:
    found = read_broadcast(payload_of(TEXT_FRAME))
    assert found.meta == {"id": "7b4b7275-8d60-4d6c-9adf-4718b79632bf", "replayed": True}
    assert found["meta"]["replayed"] is True
    assert found.to_dict() == json.loads(TEXT_FRAME)["payload"]


def test_a_binary_broadcast_is_bytes() -> None:
    found = read_broadcast(decode_server_binary(BINARY_FRAME).payload)
    assert found.payload == b"\x00\xff\x10"
    assert found["payload"] == b"\x00\xff\x10"
    assert found.event == "bin_event"
    assert found.meta == {"id": "ad854cc5-421a-4c48-9ac0-e8e8b578efed"}
    assert repr(found) == "<Broadcast 'bin_event' 3 bytes>"


def test_the_json_of_a_binary_broadcast_is_decoded() -> None:
    found = read_broadcast(UserBroadcast("chat", True, b"", b'{"msg":"hi","n":1}'))
    assert found == CHAT
    assert "meta" not in found


def test_bytes_go_to_json_as_marked_base64_and_back() -> None:
    found = Broadcast("broadcast", "b", b"\x00\xff\x10")
    plain = {"type": "broadcast", "event": "b", "payload": "AP8Q", "encoding": "base64"}
    assert found.to_dict() == plain
    assert json.loads(found.to_json()) == plain
    assert Broadcast.from_json(found.to_json()) == found
    assert Broadcast.from_dict(plain).payload == b"\x00\xff\x10"
    assert found == {"type": "broadcast", "event": "b", "payload": b"\x00\xff\x10"}
    assert found != Broadcast("broadcast", "b", "AP8Q")


@pytest.mark.parametrize(
    "bad",
    [
        {"payload": "AP8Q", "encoding": "hex"},
        {"payload": 1, "encoding": "base64"},
        {"payload": "?", "encoding": "base64"},
        {"payload": "AP8", "encoding": "base64"},
    ],
)
def test_a_malformed_binary_payload_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="payload"):
        Broadcast.from_dict({"event": "b", **bad})


@pytest.mark.parametrize("event", ["missing", None, 5, ["x"]])
def test_an_event_that_is_no_text_is_none(event: Any) -> None:
    plain = {"payload": 1} if event == "missing" else {"event": event, "payload": 1}
    for found in (read_broadcast(raw(plain)), read_broadcast(plain)):
        assert found.event is None
        assert found.payload == 1
        assert found.type == "broadcast"


def test_whatever_a_sender_put_into_an_envelope_is_read() -> None:
    found = read_broadcast(raw({"type": 5, "event": "x", "meta": None, "more": 1}))
    assert found == {"type": "broadcast", "event": "x", "payload": None}
    assert read_broadcast({"type": "other", "event": "x"}).type == "other"


def test_a_frame_that_only_json_reads_is_read() -> None:
    assert read_broadcast(raw(b'{"event":"x","payload":"\\ud800"}')).payload == "\ud800"
    assert read_broadcast(raw(b'{"event":"x","payload":1e400}')).to_dict()["payload"] == "Infinity"
    assert read_broadcast({"event": "x", "payload": float("nan")}).to_dict()["payload"] == "NaN"
    assert read_broadcast({"payload": [-float("inf")]}).to_dict()["payload"] == ["-Infinity"]


@pytest.mark.parametrize("bad", [None, 1, "text", [], ["broadcast", "x", 1, None], True])
def test_a_broadcast_that_is_no_object_is_a_decode_error(bad: Any) -> None:
    with pytest.raises(DecodeError, match="no object"):
        read_broadcast(bad)
    with pytest.raises(DecodeError, match="no object"):
        read_broadcast(raw(bad))


def test_a_broadcast_that_is_no_json_is_a_decode_error() -> None:
    with pytest.raises(DecodeError):
        read_broadcast(raw(b"{"))
    with pytest.raises(DecodeError):
        read_broadcast(UserBroadcast("x", True, b"", b"{")).payload


def test_a_payload_is_decoded_once_and_only_when_read() -> None:
    # Decoding at once would raise, because the payload is not UTF-8.
    found = read_broadcast(raw(b'{"event":"x","payload":["\xff"]}'))
    assert found.event == "x"
    assert repr(found) == "<Broadcast 'x' unreadable: DecodeError>"
    with pytest.raises(DecodeError):
        found.payload
    good = read_broadcast(raw({"payload": [1], "meta": {}}))
    assert good.payload is good.payload
    assert good.meta is good.meta


@pytest.mark.parametrize("event", ["chat", ""])
def test_an_unread_broadcast_can_be_copied_and_pickled(event: str) -> None:
    unread = read_broadcast(raw({"event": event, "payload": [1], "meta": {"id": "x"}}))
    for made in (copy.copy(unread), copy.deepcopy(unread), pickle.loads(pickle.dumps(unread))):
        assert made == unread


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(json_values | st.binary(), json_values, st.none() | st.text())
def test_every_broadcast_survives_its_dict_and_its_json(
    payload: Any, meta: Any, event: str | None
) -> None:
    found = Broadcast("broadcast", event, payload, meta)
    assert Broadcast.from_dict(found.to_dict()) == found
    assert Broadcast.from_json(found.to_json()) == found
    assert found == found.to_dict()


@given(st.binary(), json_values)
def test_no_broadcast_raises_anything_but_a_decode_error(text: bytes, value: Any) -> None:
    frames: list[Any] = [raw(text), value, UserBroadcast("x", True, text, text)]
    for frame in [*frames, UserBroadcast("x", False, b"", text)]:
        try:
            found = read_broadcast(frame)
            assert dict(found).keys() >= {"type", "event", "payload"}
        except DecodeError:
            pass


# -- system -----------------------------------------------------------------------------------


def test_a_system_message_is_read() -> None:
    found = read_system(payload_of(SYSTEM_FRAME))
    assert found == SYSTEM
    assert (found.extension, found.status) == ("postgres_changes", "ok")
    assert (found.message, found.channel) == ("Subscribed to PostgreSQL", "pgc")


def test_a_message_about_the_whole_socket_has_no_channel() -> None:
    found = read_system(payload_of(DISCONNECT_FRAME))
    assert found.channel is None
    assert "channel" not in found
    assert read_system(json.loads(DISCONNECT_FRAME)["payload"]) == found


@pytest.mark.parametrize("bad", [None, 1, [], {}, {**SYSTEM, "status": 1}, {"message": "x"}])
def test_a_malformed_system_message_is_a_decode_error(bad: Any) -> None:
    with pytest.raises(DecodeError, match="system"):
        read_system(bad)
    with pytest.raises(DecodeError, match="system"):
        read_system(raw(bad))


def test_a_system_message_with_half_a_character_is_read_like_any_other() -> None:
    """Found by fuzzing: it ended the connection. JSON may carry lone surrogates, in keys too."""
    text = '{"extension":"system","status":"ok","message":"\\ud800","channel\\udc00":"x"}'
    found = read_system(msgspec.Raw(text.encode()))
    assert (found.message, found.channel) == ("\ud800", None)
    with pytest.raises(DecodeError, match="no text"):
        read_system(msgspec.Raw(text.replace("status", "status\\ud800").encode()))
    with pytest.raises(DecodeError, match="channel"):
        read_system({**SYSTEM, "channel": 1})


@every
def test_to_dict_and_to_json_are_what_dataclasses_json_makes(payload: Payload, plain: Any) -> None:
    shape = json_shape(type(payload)).dataclass(**payload._plain())
    assert payload.to_dict() == shape.to_dict()
    assert list(payload.to_dict()) == list(shape.to_dict())
    assert payload.to_json() == shape.to_json()


def test_what_json_cannot_carry_is_converted_by_dataclasses_json() -> None:
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    found = json.loads(Broadcast.from_dict({"event": "x", "payload": moment}).to_json())
    assert found["payload"] == moment.timestamp()


# -- loading ----------------------------------------------------------------------------------


def test_dataclasses_json_is_loaded_only_to_read_plain_data() -> None:
    """The import takes a quarter of a second, during which a converting handler stops the loop."""
    script = (
        "import sys\n"
        "from supabase_rt._payloads.presence_events import PresenceSync\n"
        "names = 'dataclasses_json', 'marshmallow'\n"
        "assert not any(name in sys.modules for name in names)\n"
        "sync = PresenceSync()\n"
        "assert sync == {'event': 'sync'}\n"
        "assert not any(name in sys.modules for name in names)\n"
        "assert sync.to_dict() == {'event': 'sync'}\n"
        'assert sync.to_json() == \'{"event": "sync"}\'\n'
        "assert not any(name in sys.modules for name in names)\n"
        "PresenceSync.from_dict(sync.to_dict())\n"
        "assert all(name in sys.modules for name in names)\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True, timeout=30)
