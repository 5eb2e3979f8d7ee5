"""Properties of both serializers: written frames are read again, and other input raises only
documented errors.
"""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from supabase_rt._wire.envelope import Message, UserBroadcast
from supabase_rt._wire.json_codec import dumps, plain
from supabase_rt._wire.serializer import (
    SUPPORTED_VSNS,
    BroadcastFrames,
    decode_client_binary,
    decode_server_binary,
    decode_text,
    encode_client_binary,
    encode_text,
    encode_user_broadcast,
    payload_object,
)
from supabase_rt.errors import DecodeError

VSNS = list(SUPPORTED_VSNS)


def told(message: Message) -> tuple[Any, ...]:
    """The message with its payload decoded, so that messages compare by value."""
    payload = payload_object(message)
    return message.join_ref, message.ref, message.topic, message.event, payload


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
REFS = st.none() | st.text(min_size=1)
SHORT = st.text(max_size=60)
SHORT_REFS = st.none() | st.text(min_size=1, max_size=60)
METADATA = st.just(b"") | st.dictionaries(SHORT, st.integers(0, 9), max_size=1).map(
    lambda found: json.dumps(found, ensure_ascii=False).encode()
)
BODIES = st.tuples(st.just(False), st.binary()) | st.tuples(
    st.just(True), JSON.map(lambda value: json.dumps(value).encode())
)


@given(st.sampled_from(VSNS), REFS, REFS, st.text(), st.text(), JSON)
def test_decoding_a_text_frame_undoes_encoding(
    vsn: str, join_ref: Any, ref: Any, topic: str, event: str, payload: Any
) -> None:
    message = Message(join_ref, ref, topic, event, payload)
    text = encode_text(vsn, message)
    assert told(decode_text(vsn, text)) == told(message)
    assert told(decode_text(vsn, text.encode())) == told(message)


@given(SHORT_REFS, st.text(max_size=60), SHORT, SHORT, BODIES)
def test_decoding_a_clients_broadcast_undoes_encoding(
    join_ref: Any, ref: str, topic: str, event: str, body: tuple[bool, bytes]
) -> None:
    is_json, data = body
    payload = json.loads(data) if is_json else data
    content = {"event": event, "payload": payload}
    message = Message(join_ref, ref, topic, "broadcast", content)
    found = decode_client_binary(encode_client_binary(message))
    expected: dict[str, Any] = {
        "type": "broadcast",
        **content,
        "payload": {} if payload is None else payload,
    }
    assert told(found) == (join_ref, ref, topic, "broadcast", expected)


@given(st.text(min_size=1, max_size=60), SHORT, METADATA, BODIES)
def test_decoding_a_servers_broadcast_undoes_encoding(
    topic: str, event: str, metadata: bytes, body: tuple[bool, bytes]
) -> None:
    frame = UserBroadcast(event, body[0], metadata, body[1])
    found = decode_server_binary(encode_user_broadcast(topic, frame))
    assert found == Message(None, None, topic, "broadcast", frame)


HEADERS = st.lists(st.integers(0, 6), min_size=1, max_size=8).map(bytes)


@given(st.binary() | st.tuples(HEADERS, st.binary(max_size=40)).map(b"".join))
def test_any_binary_frame_is_a_message_that_can_be_read_or_a_decode_error(data: bytes) -> None:
    try:
        found = decode_server_binary(data)
    except DecodeError:
        pass
    else:
        payload_object(found)
    try:
        assert isinstance(decode_client_binary(data), Message)
    except DecodeError:
        pass


FRAMES = st.text(alphabet='[]{}",:\\u0d8nultrefas1.e-+ \n\x01é\ud800', max_size=40)


@given(
    st.sampled_from(VSNS),
    st.binary()
    | st.text()
    | FRAMES.map('[null,"1","t","e",%s]'.__mod__)
    | FRAMES.map('{"topic":"t","event":"e","payload":%s,"ref":null}'.__mod__),
)
def test_any_text_frame_is_a_message_that_can_be_read_or_a_decode_error(
    vsn: str, data: str | bytes
) -> None:
    try:
        found = decode_text(vsn, data)
    except DecodeError:
        return
    plain(found.payload)


@given(st.text(min_size=1, max_size=60), SHORT, st.lists(st.tuples(st.integers(1), SHORT)))
def test_frames_of_one_join_are_those_that_are_made_one_by_one(
    join_ref: str, topic: str, sent: list[tuple[int, str]]
) -> None:
    frames = BroadcastFrames(join_ref, topic)
    for ref, event in [*sent, *((ref, f"event {ref}") for ref in range(50)), *sent]:
        content = {"type": "broadcast", "event": event, "payload": {"ref": ref}}
        message = Message(join_ref, str(ref), topic, "broadcast", content)
        frame = frames.encode(str(ref), event, dumps(content["payload"]))
        assert frame == encode_client_binary(message)
