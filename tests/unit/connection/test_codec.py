"""Messages become frames and back: by the serializer, or by functions of the user's."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from supabase_rt import DecodeError
from supabase_rt._connection.codec import build_codec
from supabase_rt._wire.envelope import Message
from supabase_rt.server import LocalRealtime

from ...support.clients import MakeClient
from ...support.recorder import Recorder
from ...support.waiting import until

HEARTBEAT = Message(None, "1", "phoenix", "heartbeat", {})


@pytest.mark.conformance("CF6", "CF7", "PS40", "PS69-PS72")
@pytest.mark.parametrize(
    ("vsn", "text"),
    [
        ("2.0.0", '[null,"1","phoenix","heartbeat",{}]'),
        ("1.0.0", '{"topic":"phoenix","event":"heartbeat","payload":{},"ref":"1"}'),
    ],
)
def test_the_serializer_of_the_version(vsn: str, text: str) -> None:
    codec = build_codec(vsn, None, None, None)
    frame = codec.encode(HEARTBEAT)
    assert isinstance(frame, str)
    found = json.loads(frame)
    if isinstance(found, dict):
        assert found.pop("join_ref", None) is None
    assert found == json.loads(text)
    message = codec.decode_text(text.encode())
    assert (message.topic, message.event, message.ref) == ("phoenix", "heartbeat", "1")


@pytest.mark.conformance("TR6", "TR7", "PS69-PS72")
def test_a_users_functions_win() -> None:
    seen: list[Any] = []

    def decode(data: str | bytes) -> dict[str, Any]:
        seen.append(data)
        return {"topic": "t", "event": "e", "payload": {"n": 1}, "ref": None, "join_ref": "2"}

    codec = build_codec("2.0.0", lambda message: repr(sorted(message)), decode, None)
    assert codec.encode(HEARTBEAT) == "['event', 'payload', 'ref', 'topic']"
    for decoded in (codec.decode_text("ä".encode()), codec.decode_binary(b"\xff")):
        assert (decoded.topic, decoded.event, decoded.join_ref) == ("t", "e", "2")
    assert seen == ["ä", b"\xff"]


def fails(data: Any) -> Any:
    raise RuntimeError(f"secret {data!r}")


def refuses(data: Any) -> Any:
    raise DecodeError("not for me")


@pytest.mark.parametrize(
    ("decode", "data", "message"),
    [
        (fails, b"x", "decode= raised RuntimeError"),
        (refuses, b"x", "not for me"),
        (lambda data: 17, b"x", "message"),
        (lambda data: {"topic": 1}, b"x", "not a message"),
        (json.loads, b"\xff", "not valid UTF-8"),
    ],
)
def test_what_a_users_decoder_cannot_read_is_a_decode_error(
    decode: Callable[[Any], Any], data: bytes, message: str
) -> None:
    codec = build_codec("2.0.0", None, decode, None)
    with pytest.raises(DecodeError, match=message) as caught:
        codec.decode_text(data)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


@pytest.mark.parametrize("vsn", ["1.0.0", "2.0.0"])
async def test_both_versions_work_from_end_to_end(
    server: LocalRealtime, make_client: MakeClient, vsn: str
) -> None:
    got = Recorder()
    client = make_client(vsn=vsn)
    channel = client.channel("room", {"config": {"broadcast": {"self": True, "ack": True}}})
    channel.on("broadcast", {"event": "*"}, got)
    await channel.subscribe()
    assert await channel.send({"type": "broadcast", "event": "x", "payload": {"n": 1}}) == "ok"
    await got.count(1)
    assert got.values() == [1]


async def test_json_of_the_standard_library_as_codec(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    got = Recorder()
    client = make_client(vsn="1.0.0", encode=json.dumps, decode=json.loads)
    channel = client.channel("room", {"config": {"broadcast": {"self": True, "ack": True}}})
    await channel.on("broadcast", {"event": "*"}, got).subscribe()
    payload = {"n": 1}
    sent = channel.send({"type": "broadcast", "event": "x", "payload": payload})
    payload["n"] = 2
    assert await sent == "ok"
    await got.count(1)
    assert got.values() == [1]


def test_a_users_encoder_must_give_text_or_bytes() -> None:
    codec = build_codec("2.0.0", lambda message: 5, None, None)
    with pytest.raises(TypeError):
        codec.encode(HEARTBEAT)


async def test_codecs_in_the_form_of_supabase_js(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    def encode(message: Any, callback: Callable[[str], None]) -> None:
        callback(json.dumps(message))

    def decode(raw: Any, callback: Callable[[Any], None]) -> None:
        callback(json.loads(raw))

    client = make_client(vsn="1.0.0", encode=encode, decode=decode)
    await client.channel("room").subscribe()
    assert client.health().decode_errors == 0


@pytest.mark.conformance("RT15")
async def test_the_logger_hears_of_every_message_but_not_the_token(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    lines: list[tuple[str, str, Any]] = []
    client = make_client(logger=lambda kind, text, data: lines.append((kind, text, data)))
    token = server.token()
    client.set_auth(token)
    await client.channel("room").subscribe()
    client.set_auth(server.token(sub="other"))
    await client.send_heartbeat()
    await until(lambda: any("heartbeat" in text for _, text, _ in lines))
    await until(lambda: sum(kind == "receive" for kind, _, _ in lines) >= 2)
    assert {kind for kind, _, _ in lines} == {"push", "receive", "transport"}
    assert ("push", "realtime:room phx_join (1, 1)") in [line[:2] for line in lines]
    assert ("receive", "ok realtime:room phx_reply (1)") in [line[:2] for line in lines]
    assert token not in repr(lines)
    assert "***" in repr(lines)


async def test_a_logger_that_raises_is_logged(
    make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    def logger(kind: str, message: str, data: Any) -> None:
        raise RuntimeError("no disk")

    client = make_client(logger=logger)
    assert client.has_logger()
    with caplog.at_level(logging.ERROR):
        client.log("mine", "hello")
    assert "logger= raised" in caplog.text
