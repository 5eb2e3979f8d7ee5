from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from supabase_rt._wire.envelope import Message, UserBroadcast
from supabase_rt._wire.json_codec import plain
from supabase_rt._wire.serializer import (
    SUPPORTED_VSNS,
    broadcast_object,
    decode_array,
    decode_client_binary,
    decode_server_binary,
    decode_text,
    encode_client,
    encode_client_binary,
    encode_text,
    encode_user_broadcast,
    is_binary,
    message_from_object,
    message_to_object,
    payload_object,
)
from supabase_rt.errors import DecodeError

VSNS = list(SUPPORTED_VSNS)


def told(message: Message) -> tuple[Any, ...]:
    """The message with its payload decoded, so that messages compare by value."""
    payload = payload_object(message)
    return message.join_ref, message.ref, message.topic, message.event, payload


def broadcast(payload: Any, **fields: Any) -> Message:
    given_fields = {"join_ref": "10", "ref": "1", "topic": "top", **fields}
    return Message(**given_fields, event="broadcast", payload=payload)


def user_event(payload: Any, **content: Any) -> dict[str, Any]:
    return {"type": "broadcast", "event": "user-event", "payload": payload, **content}


# -- text: SZ1 to SZ4 --------------------------------------------------------------------


@pytest.mark.conformance("SZ1-SZ4", "TR4")
def test_sz1_a_message_is_an_array_of_five() -> None:
    message = Message("0", "1", "t", "e", {"foo": 1})
    assert encode_text("2.0.0", message) == '["0","1","t","e",{"foo":1}]'


@pytest.mark.conformance("SZ1-SZ4")
def test_sz2_refs_left_out_are_null() -> None:
    assert encode_text("2.0.0", Message(None, None, "t", "e", {})) == '[null,null,"t","e",{}]'


@pytest.mark.conformance("SZ1-SZ4", "TR5")
def test_sz3_an_array_of_five_is_a_message() -> None:
    found = decode_text("2.0.0", '["0","1","t","e",{"foo":1}]')
    assert told(found) == ("0", "1", "t", "e", {"foo": 1})


@pytest.mark.conformance("SZ1-SZ4")
def test_sz4_null_refs_are_none() -> None:
    found = decode_text("2.0.0", b'[null,null,"t","e",{}]')
    assert told(found) == (None, None, "t", "e", {})


@pytest.mark.conformance("CF6")
def test_vsn_1_writes_objects_and_leaves_an_absent_join_ref_out() -> None:
    assert encode_text("1.0.0", Message("1", "2", "t", "e", {"a": 1})) == (
        '{"topic":"t","event":"e","payload":{"a":1},"ref":"2","join_ref":"1"}'
    )
    assert encode_text("1.0.0", Message(None, "2", "phoenix", "heartbeat", {})) == (
        '{"topic":"phoenix","event":"heartbeat","payload":{},"ref":"2"}'
    )


@pytest.mark.conformance("CF6")
def test_vsn_1_reads_objects_with_and_without_join_ref() -> None:
    text = '{"topic":"t","event":"phx_reply","payload":{"status":"ok"},"ref":"2"}'
    assert told(decode_text("1.0.0", text)) == (None, "2", "t", "phx_reply", {"status": "ok"})
    text = '{"ref":null,"join_ref":"1","payload":[],"event":"e","topic":"t","more":1}'
    assert told(decode_text("1.0.0", text)) == ("1", None, "t", "e", [])


def test_refs_may_be_numbers_as_the_peer_gave_them() -> None:
    assert told(decode_text("2.0.0", '[1,2,"t","e",{}]')) == (1, 2, "t", "e", {})


def test_elements_beyond_the_fifth_are_ignored() -> None:
    assert told(decode_text("2.0.0", '["1","2","t","e",{},"more",7]')) == ("1", "2", "t", "e", {})


@pytest.mark.parametrize("vsn", VSNS)
def test_letters_beyond_ascii_are_read(vsn: str) -> None:
    message = Message(None, None, "tä", "e", {"ö": "🙂"})
    assert told(decode_text(vsn, encode_text(vsn, message))) == told(message)


@pytest.mark.parametrize("vsn", VSNS)
def test_a_payload_stays_undecoded_until_it_is_read(vsn: str) -> None:
    text = encode_text(vsn, Message(None, None, "t", "e", {"n": 2**70}))
    found = decode_text(vsn, text)
    assert isinstance(found.payload, msgspec.Raw)
    assert plain(found.payload) == {"n": 2**70}


@pytest.mark.parametrize(
    ("text", "payload"),
    [("1e400", float("inf")), ('"\\ud800"', "\ud800"), ("Infinity", float("inf"))],
)
@pytest.mark.parametrize("vsn", VSNS)
def test_a_payload_only_the_standard_library_reads_is_read(
    vsn: str, text: str, payload: Any
) -> None:
    frame = {
        "1.0.0": f'{{"topic":"t","event":"e","payload":{text},"ref":null}}',
        "2.0.0": f'[null,null,"t","e",{text}]',
    }[vsn]
    assert told(decode_text(vsn, frame)) == (None, None, "t", "e", payload)


@pytest.mark.parametrize("vsn", VSNS)
@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "7",
        '"text"',
        "[]",
        '[null,null,"t","e"]',
        '[null,null,null,"e",{}]',
        '[null,null,"t",7,{}]',
        '[true,null,"t","e",{}]',
        '[null,[],"t","e",{}]',
        '[1.5,null,"t","e",{}]',
        '{"topic":"t","event":"e","ref":null}',
        '{"topic":"t","payload":{}}',
        '{"event":"e","payload":{}}',
        '{"topic":"t","event":"e","payload":{},"ref":{}}',
        '{"topic":"t","event":"e","payload":{},"join_ref":false}',
        '[null,null,"t","e",{"a":}]',
        b'[null,null,"t","e","\xff"]',
        '[null,null,"t","e","\ud800"]',
        '[null,null,"t","e",' + "[" * 10**5,
    ],
)
def test_text_that_is_no_message_is_a_decode_error(vsn: str, text: Any) -> None:
    with pytest.raises(DecodeError):
        decode_text(vsn, text)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('["0","1","t","e",{"foo":1}]', id="ascii"),
        pytest.param('[null,null,"tä","e",{"foo":"ö"}]', id="beyond-ascii"),
        pytest.param(f'["0","1","t","e",{{"foo":{10**400}}}]', id="huge-number"),
        pytest.param('["0","1","t","e",{"foo":1},6]', id="six-elements"),
        pytest.param("[" * 100_000, id="deep"),
        pytest.param('{"topic":"t"}', id="object"),
        pytest.param("no json", id="no-json"),
    ],
)
def test_the_readers_short_way_gives_what_the_long_one_does(text: str) -> None:
    def found(decode: Callable[[], Message]) -> object:
        try:
            return told(decode())
        except DecodeError as exc:
            return str(exc)

    frame = text.encode()
    assert found(lambda: decode_array(frame)) == found(lambda: decode_text("2.0.0", frame))


def test_an_object_is_what_encode_and_logger_see() -> None:
    assert message_to_object(Message(None, "1", "t", "e", {})) == {
        "topic": "t",
        "event": "e",
        "payload": {},
        "ref": "1",
    }
    assert message_to_object(Message("0", None, "t", "e", {}))["join_ref"] == "0"


def test_a_message_from_a_decoder_of_the_users_may_be_a_message_already() -> None:
    message = Message(None, None, "t", "e", {})
    assert message_from_object(message) is message


# -- client to server, kind 3: SZ5 to SZ20 -----------------------------------------------


@pytest.mark.conformance("SZ5")
def test_sz5_a_json_broadcast_without_metadata() -> None:
    assert encode_client_binary(broadcast(user_event({"a": "b"}))) == (
        b'\x03\x02\x01\x03\x0a\x00\x01101topuser-event{"a":"b"}'
    )


@pytest.mark.conformance("SZ6")
def test_sz6_lengths_are_those_of_utf8() -> None:
    message = broadcast({"event": "événement", "payload": {"a": "b"}})
    encoded = encode_client_binary(message)
    assert encoded == b"\x03\x02\x01\x03\x0b\x00\x01101top" + "événement".encode() + b'{"a":"b"}'
    found = decode_client_binary(encoded)
    assert found.payload.event == "événement"


@pytest.mark.conformance("SZ7", "NX7")
def test_sz7_only_the_allowed_keys_are_metadata() -> None:
    message = broadcast(user_event({"a": "b"}, persist=True, store=True))
    assert encode_client_binary(message) == (
        b'\x03\x02\x01\x03\x0a\x10\x01101topuser-event{"persist":true}{"a":"b"}'
    )


@pytest.mark.conformance("SZ8")
def test_sz8_refs_left_out_have_no_length() -> None:
    message = broadcast(user_event({"a": "b"}), join_ref=None, ref=None)
    assert encode_client_binary(message) == (b'\x03\x00\x00\x03\x0a\x00\x01topuser-event{"a":"b"}')


@pytest.mark.conformance("SZ9-SZ13", "SZ16-SZ20")
@pytest.mark.parametrize("payload", [{"a": 1}, b"\x01"])
@pytest.mark.parametrize(
    ("fields", "content", "name"),
    [
        ({"join_ref": "x" * 256}, {}, "joinRef"),
        ({"ref": "x" * 256}, {}, "ref"),
        ({"topic": "x" * 256}, {}, "topic"),
        ({}, {"event": "é" * 128}, "userEvent"),
        ({}, {"persist": {"x": "y" * 248}}, "metadata"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_sz9_to_13_and_16_to_20_a_field_over_255_bytes_is_refused(
    fields: dict[str, Any], content: dict[str, Any], name: str, payload: Any
) -> None:
    message = broadcast({**user_event(payload), **content}, **fields)
    with pytest.raises(ValueError, match=rf"^{name} length 2\d\d exceeds maximum of 255$"):
        encode_client_binary(message)


def test_a_field_of_255_bytes_is_fine() -> None:
    message = broadcast(user_event({}), topic="x" * 255)
    assert decode_client_binary(encode_client_binary(message)).topic == "x" * 255


@pytest.mark.conformance("SZ14")
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_sz14_a_binary_payload_travels_as_it_is(kind: Any) -> None:
    assert is_binary(kind(b"\x01\x04"))
    assert encode_client_binary(broadcast(user_event(kind(b"\x01\x04")))) == (
        b"\x03\x02\x01\x03\x0a\x00\x00101topuser-event\x01\x04"
    )


@pytest.mark.conformance("SZ15")
def test_sz15_a_binary_payload_without_refs() -> None:
    message = broadcast(user_event(b"\x01\x04"), join_ref=None, ref=None)
    assert encode_client_binary(message) == b"\x03\x00\x00\x03\x0a\x00\x00topuser-event\x01\x04"


def test_the_worked_bytes_of_the_protocol() -> None:
    message = Message(
        "1", "7", "realtime:room1", "broadcast", {"event": "cursor", "payload": {"x": 1}}
    )
    assert encode_client_binary(message) == bytes.fromhex(
        "03 01 01 0e 06 00 01 31 37 72 65 61 6c 74 69 6d 65 3a 72 6f 6f 6d 31"
        "63 75 72 73 6f 72 7b 22 78 22 3a 31 7d"
    )
    message = Message(
        "1", "8", "realtime:room1", "broadcast", {"event": "blob", "payload": b"\xca\xfe"}
    )
    assert encode_client_binary(message) == bytes.fromhex(
        "03 01 01 0e 04 00 00 31 38 72 65 61 6c 74 69 6d 65 3a 72 6f 6f 6d 31 62 6c 6f 62 ca fe"
    )
    frame = UserBroadcast("cursor", True, b"", b'{"x":1}')
    assert encode_user_broadcast("realtime:room1", frame) == bytes.fromhex(
        "04 0e 06 00 01 72 65 61 6c 74 69 6d 65 3a 72 6f 6f 6d 31"
        "63 75 72 73 6f 72 7b 22 78 22 3a 31 7d"
    )


@pytest.mark.parametrize("payload", [None, {}])
def test_a_broadcast_without_a_payload_carries_an_empty_object(payload: Any) -> None:
    assert encode_client_binary(broadcast(user_event(payload))).endswith(b"user-event{}")


@pytest.mark.parametrize("payload", [False, 0, "", []])
def test_a_payload_that_is_false_is_carried(payload: Any) -> None:
    encoded = encode_client_binary(broadcast(user_event(payload)))
    assert encoded.endswith(b"user-event" + json.dumps(payload).encode())


# -- which frame a client writes ---------------------------------------------------------


@pytest.mark.conformance("CF7")
def test_vsn_2_writes_a_broadcast_in_binary() -> None:
    message = broadcast(user_event({"a": "b"}))
    assert encode_client("2.0.0", message) == encode_client_binary(message)


@pytest.mark.parametrize(
    "message",
    [
        Message("1", "1", "t", "phx_join", {"config": {}}),
        Message("1", "1", "t", "presence", {"event": "track", "payload": {}}),
        broadcast({"type": "broadcast", "payload": {}}),
        broadcast({"event": 7, "payload": {}}),
        broadcast(None),
    ],
)
@pytest.mark.parametrize("vsn", VSNS)
def test_anything_else_is_text(vsn: str, message: Message) -> None:
    assert encode_client(vsn, message) == encode_text(vsn, message)


def test_vsn_1_writes_a_broadcast_as_text() -> None:
    message = broadcast(user_event({"a": "b"}))
    assert encode_client("1.0.0", message) == encode_text("1.0.0", message)


@pytest.mark.parametrize(
    ("vsn", "payload"), [("1.0.0", user_event(b"\x01")), ("2.0.0", {"payload": b"\x01"})]
)
def test_a_binary_payload_never_becomes_text(vsn: str, payload: Any) -> None:
    with pytest.raises(ValueError, match=r"binary payload needs vsn='2\.0\.0' and .* event name"):
        encode_client(vsn, broadcast(payload))


@pytest.mark.parametrize("vsn", VSNS)
def test_what_json_cannot_carry_is_heard_at_the_call(vsn: str) -> None:
    with pytest.raises(TypeError):
        encode_client(vsn, broadcast(user_event(object())))


# -- server to client, kind 4: SZ21 to SZ24 ----------------------------------------------


@pytest.mark.conformance("SZ21-SZ24")
@pytest.mark.parametrize(
    ("frame", "payload"),
    [
        (
            b'\x04\x03\x0a\x00\x01topuser-event{"a":"b"}',
            {"type": "broadcast", "event": "user-event", "payload": {"a": "b"}},
        ),
        (
            b'\x04\x03\x0a\x11\x01topuser-event{"replayed":true}{"a":"b"}',
            {
                "type": "broadcast",
                "event": "user-event",
                "payload": {"a": "b"},
                "meta": {"replayed": True},
            },
        ),
        (
            b"\x04\x03\x0a\x00\x00topuser-event\x01\x04",
            {"type": "broadcast", "event": "user-event", "payload": b"\x01\x04"},
        ),
        (
            b'\x04\x03\x0a\x11\x00topuser-event{"replayed":true}\x01\x04',
            {
                "type": "broadcast",
                "event": "user-event",
                "payload": b"\x01\x04",
                "meta": {"replayed": True},
            },
        ),
    ],
    ids=["sz21", "sz22", "sz23", "sz24"],
)
def test_a_user_broadcast_is_decoded(frame: bytes, payload: dict[str, Any]) -> None:
    assert told(decode_server_binary(frame)) == (None, None, "top", "broadcast", payload)


def test_any_encoding_but_zero_is_json_and_an_empty_event_is_legal() -> None:
    assert payload_object(decode_server_binary(b"\x04\x01\x00\x00\x07t7")) == {
        "type": "broadcast",
        "event": "",
        "payload": 7,
    }


def test_a_body_only_the_standard_library_reads_is_read() -> None:
    found = payload_object(decode_server_binary(b"\x04\x01\x01\x00\x01teNaN"))
    assert found["payload"] != found["payload"]


@pytest.mark.parametrize(
    "frame",
    [
        b"\x04",
        b"\x04\x01\x01\x00",
        b"\x04\x01\x01\x00\x01t",
        b"\x04\x00\x01\x00\x01e{}",
        b"\x04\x01\x01\x00\x01\xffe{}",
        b"\x04\x01\x01\x00\x01t\xff{}",
        b"\x04\x01\x01\x00\x01te",
        b"\x04\x01\x01\x00\x01te{",
        b'\x04\x01\x01\x00\x01te"\xff"',
        b"\x04\x01\x01\x01\x01te{{}",
        b"\x04\x01\x01\x01\x00te{\x00",
        b"\x04\x01\x01\x00\x01te" + b"[" * 10**5,
    ],
)
def test_a_user_broadcast_that_cannot_be_read_is_a_decode_error(frame: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_server_binary(frame)


# -- the frames of stock Phoenix ---------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (b"\x00\x02\x03\x0212topev\x01\x02", Message("12", None, "top", "ev", b"\x01\x02")),
        (b"\x00\x00\x03\x02topev", Message(None, None, "top", "ev", b"")),
        (
            b"\x01\x01\x01\x03\x0212topok\x01",
            Message("1", "2", "top", "phx_reply", {"status": "ok", "response": b"\x01"}),
        ),
        (
            b"\x01\x00\x00\x03\x02topok",
            Message(None, None, "top", "phx_reply", {"status": "ok", "response": b""}),
        ),
        (b"\x02\x03\x02topev\x01", Message(None, None, "top", "ev", b"\x01")),
    ],
)
def test_push_reply_and_broadcast_of_a_server_are_decoded(frame: bytes, message: Message) -> None:
    assert decode_server_binary(frame) == message


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\x03",
        b"\x05abc",
        b"\xff",
        b"\x00",
        b"\x01\x01\x01\x01",
        b"\x02\x09\x01t",
        b"\x02\x01\x01\xffe",
    ],
)
def test_any_other_frame_of_a_server_is_a_decode_error(frame: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_server_binary(frame)


def test_a_push_of_a_client_has_a_ref() -> None:
    found = decode_client_binary(b"\x00\x01\x01\x03\x0212topev\x01")
    assert found == Message("1", "2", "top", "ev", b"\x01")
    assert decode_client_binary(b"\x00\x00\x00\x03\x02topev").ref is None


def test_a_user_broadcast_of_a_client_keeps_its_body_unread() -> None:
    found = decode_client_binary(b"\x03\x00\x00\x03\x01\x02\x05tope{}not json")
    assert found == Message(
        None, "", "top", "broadcast", UserBroadcast("e", True, b"{}", b"not json")
    )


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\x01",
        b"\x04\x01\x01\x00\x01te{}",
        b"\x03\x00\x00\x01\x01\x00",
        b"\x03\x00\x00\x01\x01\x01\x01te",
        b"\x03\x00\x00\x01\x01\x01\x01te{{}",
        b"\x03\x00\x00\x01\x01\x00\x01\xffe{}",
        b"\x00\x00\x00\x01",
        b"\x00\x00\x00\x01\x01t",
    ],
)
def test_any_other_frame_of_a_client_is_a_decode_error(frame: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_client_binary(frame)


def test_metadata_over_255_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match="metadata length 256 exceeds maximum of 255"):
        encode_user_broadcast("t", UserBroadcast("e", True, b" " * 256, b"{}"))


def test_a_broadcast_that_the_server_did_not_check_is_a_decode_error_when_read() -> None:
    with pytest.raises(DecodeError):
        broadcast_object(UserBroadcast("e", True, b"", b"{"))
