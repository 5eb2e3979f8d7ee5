"""Every recorded frame of the server passes the decoder, and no part of it is lost."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from supabase_rt._payloads.broadcast import read_broadcast
from supabase_rt._payloads.postgres_change import PostgresChange
from supabase_rt._payloads.postgres_data import read_postgres_changes
from supabase_rt._payloads.system_message import read_system
from supabase_rt._protocol.channel.presence_state import PresenceState
from supabase_rt._wire.envelope import Message, UserBroadcast
from supabase_rt._wire.json_codec import plain
from supabase_rt._wire.serializer import (
    decode_client_binary,
    decode_server_binary,
    decode_text,
    encode_client_binary,
    encode_text,
    encode_user_broadcast,
    payload_object,
)
from supabase_rt.errors import DecodeError

from .frames import CUT_OFF, read
from .recordings import FOLDER, NAMES, Recording, load

ALL = pytest.mark.parametrize("name", NAMES)


def exact(text: str | bytes) -> Any:
    """JSON with the numbers as they are written."""
    return json.loads(text, parse_float=Decimal)


def texts(recording: Recording) -> list[tuple[str, str]]:
    """Protocol and text frame, of sockets and of long polling."""
    found = [
        (recording.vsn(step.conn), step.about["text"])
        for step in recording.of("recv")
        if "text" in step.about
    ]
    for step in recording.of("http_resp"):
        body = step.about["body"]
        polled = json.loads(body).get("messages") if body.startswith('{"messages"') else None
        found += [("2.0.0", text) for text in polled or []]
    return found


def binaries(recording: Recording, direction: str = "recv") -> list[bytes]:
    return [
        bytes.fromhex(step.about["hex"]) for step in recording.of(direction) if "hex" in step.about
    ]


def envelope(vsn: str, text: str) -> list[Any]:
    """The five fields, by the standard library."""
    found = exact(text)
    if vsn == "2.0.0":
        assert len(found) == 5
        return list(found)
    assert found.keys() == {"ref", "payload", "event", "topic"}
    return [None, found["ref"], found["topic"], found["event"], found["payload"]]


@ALL
def test_no_field_of_a_text_frame_is_lost(name: str) -> None:
    for vsn, text in texts(load(name)):
        message = decode_text(vsn, text.encode())
        assert isinstance(message.payload, msgspec.Raw)
        payload = bytes(message.payload).decode()
        assert payload in text
        found = [message.join_ref, message.ref, message.topic, message.event, exact(payload)]
        assert found == envelope(vsn, text)
        again = encode_text(vsn, message)
        assert again == text if vsn == "2.0.0" else exact(again) == exact(text)


@ALL
def test_no_byte_of_a_binary_frame_is_lost(name: str) -> None:
    for data in binaries(load(name)):
        assert data[0] == 4
        message = decode_server_binary(data)
        frame = message.payload
        assert isinstance(frame, UserBroadcast)
        assert encode_user_broadcast(message.topic, frame) == data
        payload = payload_object(message)
        assert payload["event"] == frame.event
        if frame.is_json:
            assert payload["payload"] == json.loads(data[-len(frame.body) :])
        else:
            assert data.endswith(payload["payload"])
        assert dict(read_broadcast(frame)) == payload


@ALL
def test_readers_take_every_payload_and_keep_every_key(name: str) -> None:
    presence = PresenceState()
    for vsn, text in texts(load(name)):
        message = decode_text(vsn, text.encode())
        payload = envelope(vsn, text)[4]
        READERS[message.event](message, payload, presence)


def check_reply(message: Message, payload: Any, _: PresenceState) -> None:
    assert payload.keys() == {"status", "response"}
    assert plain(message.payload) == payload


def check_end(message: Message, payload: Any, _: PresenceState) -> None:
    assert plain(message.payload) == payload
    assert message.ref is not None


def check_system(message: Message, payload: Any, _: PresenceState) -> None:
    assert dict(read_system(message.payload)) == payload


def check_broadcast(message: Message, payload: Any, _: PresenceState) -> None:
    assert dict(read_broadcast(message.payload)) == payload


def check_change(message: Message, payload: Any, _: PresenceState) -> None:
    found = read_postgres_changes(message.payload)
    data = payload["data"]
    assert found.ids == payload["ids"]
    assert payload.keys() == {"ids", "data"}
    assert exact(msgspec.json.encode(found.data)) == {
        **dict.fromkeys(found.data.__struct_fields__),
        **data,
    }
    # The exact text of a number is lost in the JSON types; "python" keeps it.
    data = json.loads(json.dumps(data, default=float))
    change = PostgresChange(found.data, "raw")
    assert change == {
        "schema": data["schema"],
        "table": data["table"],
        "commit_timestamp": data["commit_timestamp"],
        "eventType": data["type"],
        "new": data.get("record", {}),
        "old": data.get("old_record", {}),
        "errors": data["errors"],
    }


def check_presence_state(message: Message, payload: Any, presence: PresenceState) -> None:
    list(presence.receive_state(plain(message.payload), message.topic))
    assert presence.list() == {key: shown(entry) for key, entry in payload.items()}


def check_presence_diff(message: Message, payload: Any, presence: PresenceState) -> None:
    # Members that leave must have joined before.
    list(presence.receive_state(payload["leaves"], message.topic))
    events = list(presence.receive_diff(plain(message.payload), message.topic))
    for kind, name in (("join", "joins"), ("leave", "leaves")):
        found = {event.key: event.changed for event in events if event.kind == kind}
        assert found == {key: shown(entry) for key, entry in payload[name].items()}


def shown(entry: Any) -> list[dict[str, Any]]:
    """The metas of a key as users see them."""
    hidden = ("phx_ref", "phx_ref_prev")
    return [
        {
            "presence_ref": meta["phx_ref"],
            **{key: value for key, value in meta.items() if key not in hidden},
        }
        for meta in entry["metas"]
    ]


READERS = {
    "phx_reply": check_reply,
    "phx_close": check_end,
    "phx_error": check_end,
    "system": check_system,
    "broadcast": check_broadcast,
    "postgres_changes": check_change,
    "presence_state": check_presence_state,
    "presence_diff": check_presence_diff,
}


# -- what clients wrote ------------------------------------------------------------------


@ALL
def test_what_clients_wrote_is_read_whole_by_the_servers_half(name: str) -> None:
    recording = load(name)
    for step in recording.of("send"):
        frame = read(step.raw)
        if frame is None:
            with pytest.raises(DecodeError):
                decode_text(recording.vsn(step.conn), step.about["text"])
        elif isinstance(frame.raw, str) and frame.payload is not CUT_OFF:
            message = decode_text(recording.vsn(step.conn), frame.raw)
            found = (message.topic, message.event, plain(message.payload), message.ref)
            assert found == (frame.topic, frame.event, frame.payload, frame.ref)
            assert message.join_ref == frame.join_ref
    for data in binaries(recording, "send"):
        message = decode_client_binary(data)
        assert payload_object(message)["event"] == message.payload.event
        if b"store" not in data:
            content = {"event": message.payload.event, "payload": body_of(message)}
            ours = Message(message.join_ref, message.ref, message.topic, "broadcast", content)
            assert encode_client_binary(ours) == data


def body_of(message: Message) -> Any:
    frame = message.payload
    return msgspec.Raw(frame.body) if frame.is_json else frame.body


# -- nothing forgotten -------------------------------------------------------------------


def test_the_table_beside_the_recordings_names_each_of_them_and_where_it_is_played() -> None:
    table = (FOLDER / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(\w+)` \| (\w+)", table, re.MULTILINE)
    assert sorted(name for name, _ in listed) == NAMES
    here = Path(__file__).parent
    tests = "".join(path.read_text(encoding="utf-8") for path in here.glob("test_*.py"))
    played = {name for name, how in listed if how == "replayed"}
    assert played == set(re.findall(r'\bplay\(\s*"(\w+)"', tests))
    assert {how for _, how in listed} == {"replayed", "decoded"}


def test_the_recordings_stay_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 600_000
