"""A frame too large for the server is refused at the call, and the socket stays open."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from supabase_rt import RealtimeChannel, RealtimeClient, Refused, SendError
from supabase_rt._wire.serializer import MAX_FRAME
from supabase_rt.server import LocalRealtime

from ...support.clients import MakeClient
from ...support.recorder import ClientEvents, Statuses
from ...support.waiting import turns, until

HUGE = "x" * MAX_FRAME
WIDE = "€" * (MAX_FRAME // 3)
"""Fewer characters than a frame may have bytes, and more bytes."""


def broadcast(payload: Any, **more: Any) -> dict[str, Any]:
    return {"type": "broadcast", "event": "x", "payload": payload, **more}


REFUSED: dict[str, Callable[[RealtimeChannel], object]] = {
    "send": lambda channel: channel.send(broadcast({"text": HUGE})),
    "send, wide": lambda channel: channel.send(broadcast(WIDE)),
    "send, bytes": lambda channel: channel.send(broadcast(HUGE.encode())),
    "send, another key": lambda channel: channel.send(broadcast({}, more=HUGE)),
    "presence": lambda channel: channel.send({"type": "presence", "event": {"x": HUGE}}),
    "track": lambda channel: channel.track({"text": HUGE}),
    "update_join_payload": lambda channel: channel.update_join_payload({"text": HUGE}),
}


@pytest.mark.parametrize("vsn", ["1.0.0", "2.0.0"])
@pytest.mark.parametrize("name", REFUSED)
async def test_what_would_close_the_socket_raises_at_the_call(
    server: LocalRealtime, make_client: MakeClient, name: str, vsn: str
) -> None:
    if (name, vsn) == ("send, another key", "2.0.0"):
        pytest.skip("a binary frame does not carry it")
    client = make_client(vsn=vsn)
    channel = await client.channel("room").subscribe()
    with pytest.raises(ValueError, match=r"5,000,000 bytes|cannot carry a binary"):
        REFUSED[name](channel)
    await client.send_heartbeat()
    assert await channel.track({"n": 1}) == "ok"
    assert (server.connections, client.health().reconnects) == (1, 0)


async def test_so_does_a_message_pushed_by_hand_and_a_token(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    channel = await client.channel("room").subscribe()
    message = {"topic": channel.topic, "event": "x", "payload": {"text": HUGE}, "ref": "1"}
    with pytest.raises(ValueError, match="5,000,000 bytes"):
        client.push(message)
    with pytest.raises(ValueError, match="a token is at most"):
        client.set_auth(HUGE)
    assert await channel.track({"n": 1}) == "ok"
    assert server.connections == 1


async def test_it_raises_the_same_where_it_would_go_over_http_or_wait(
    client: RealtimeClient,
) -> None:
    channel = client.channel("room")
    with pytest.raises(ValueError, match="5,000,000 bytes"):
        channel.send(broadcast(HUGE))
    channel.subscribe()
    with pytest.raises(ValueError, match="5,000,000 bytes"):
        channel.track({"text": HUGE})
    await channel


@pytest.mark.parametrize("options", [{}, {"config": {"broadcast": {"ack": True}}}])
async def test_the_largest_frame_there_may_be_is_sent(
    server: LocalRealtime, make_client: MakeClient, options: Any
) -> None:
    client = make_client()
    channel = await client.channel("room", options).subscribe()
    # The server drops a payload above the project's limit, but acknowledges it.
    for size in (MAX_FRAME - 2010, MAX_FRAME - 200):
        channel.send(broadcast("x" * size))
    assert await channel.track({"n": 1}) == "ok"
    assert server.connections == 1


async def test_a_join_that_is_too_large_is_refused_for_good_and_no_other_channel_suffers(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    other = await client.channel("other").subscribe()
    events, statuses = ClientEvents(client), Statuses()
    table = {"event": "*", "schema": "public", "table": "todos"}
    channel = client.channel("room")
    for number in range(3):
        name = f"{number}{'x' * (MAX_FRAME // 3)}"
        channel.on("postgres_changes", {**table, "filter": f"name=eq.{name}"}, print)
    with pytest.raises(Refused) as caught:
        await channel.subscribe(statuses)
    assert (caught.value.code, caught.value.retryable) == ("FrameTooLarge", False)
    assert "fewer or shorter filters" in caught.value.hint
    assert statuses.names == ["CHANNEL_ERROR"]
    assert [type(error) for error in events.errors if isinstance(error, SendError)] == [SendError]
    assert (channel.state, other.state, server.connections) == ("errored", "joined", 1)


async def test_with_an_encoder_of_the_users_the_result_is_error_at_once(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    def encode(message: Any) -> str:
        import json

        return json.dumps([message.get("join_ref"), *(message[key] for key in KEYS)])

    client = make_client(encode=encode)
    channel = await client.channel("room", {"config": {"broadcast": {"ack": True}}}).subscribe()
    assert await channel.send(broadcast(HUGE)) == "error"
    assert await channel.track({"text": HUGE}) == "error"
    await turns()
    assert await channel.track({"n": 1}) == "ok"
    await until(lambda: client.health().pending_replies == 0)
    assert server.connections == 1


KEYS = ("ref", "topic", "event", "payload")
