"""``send``, ``track``, ``untrack``: the frames they write, and their results."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any

import pytest

from supabase_rt import InvalidState, RealtimeChannel, RealtimeClient
from supabase_rt.server import LocalRealtime
from supabase_rt.types import ChannelOptions

from ...support.clients import MakeClient
from ...support.peers import RawPeer, raw_peer
from ...support.recorder import Recorder, Statuses
from ...support.waiting import our_tasks, turns, until

ACK: ChannelOptions = {"config": {"broadcast": {"ack": True, "self": True}}}
MESSAGE = {"type": "broadcast", "event": "x", "payload": {"n": 1}}


def pushed(server: LocalRealtime, event: str) -> list[Any]:
    return [each.payload for each in server.received if each.event == event]


async def joined(client: RealtimeClient, options: Any = None) -> RealtimeChannel:
    return await client.channel("room", options).subscribe()


# -- broadcasts --------------------------------------------------------------------------


@pytest.mark.conformance("CP20")
@pytest.mark.parametrize("vsn", ["1.0.0", "2.0.0"])
@pytest.mark.parametrize("payload", [{"n": 1}, {}, {"deep": [1, {"a": None}], "ü": "\u2028"}])
async def test_what_is_sent_is_what_arrives(
    server: LocalRealtime, make_client: MakeClient, vsn: str, payload: Any
) -> None:
    got = Recorder()
    client = make_client(vsn=vsn)
    channel = client.channel("room", ACK).on("broadcast", {"event": "x"}, got)
    await channel.subscribe()
    assert await channel.send({**MESSAGE, "payload": payload}) == "ok"
    await got.count(1)
    assert got.seen[0].payload == payload


@pytest.mark.conformance("NX20")
async def test_bytes_arrive_as_bytes(server: LocalRealtime, client: RealtimeClient) -> None:
    got = Recorder()
    channel = client.channel("room", ACK).on("broadcast", {"event": "x"}, got)
    await channel.subscribe()
    for payload in (b"\x00\xff", bytearray(b"\x00\xff"), memoryview(b"\x00\xff")):
        assert await channel.send({**MESSAGE, "payload": payload}) == "ok"
    await got.count(3)
    assert [event.payload for event in got.seen] == [b"\x00\xff"] * 3


@pytest.mark.conformance("NX21")
async def test_bytes_need_vsn_2_and_a_broadcast(make_client: MakeClient) -> None:
    old, new = make_client(vsn="1.0.0"), make_client()
    channel = await joined(old)
    with pytest.raises(ValueError, match=r"use vsn='2\.0\.0'"):
        channel.send({**MESSAGE, "payload": b"x"})
    channel = await joined(new)
    with pytest.raises(TypeError, match="in a broadcast only"):
        channel.send({"type": "presence", "event": "track", "payload": b"x"})


async def test_without_ack_it_is_ok_when_written(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    channel = await joined(client)
    assert await channel.send(MESSAGE) == "ok"
    assert client.health().pending_replies == 0
    await until(lambda: pushed(server, "broadcast"))


@pytest.mark.conformance("realtime.subscriptions.broadcast_ack")
async def test_with_ack_it_is_what_the_server_answers(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    channel = await joined(client, ACK)
    sending = channel.send(MESSAGE)
    await until(lambda: client.health().pending_replies == 1 or sending.done())
    assert await sending == "ok"
    assert await channel.send({**MESSAGE, "payload": {"x": "y" * 3_100_000}}) == "error"
    server.faults.drop_next("phx_reply")
    assert await channel.send(MESSAGE, {"timeout": 0.02}) == "timed out"
    server.faults.drop_next("phx_reply")
    assert await channel.send(MESSAGE, timeout=0.02) == "timed out"
    assert client.health().pending_replies == 0


async def test_a_request_ends_when_the_link_is_lost(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    channel = await joined(client, ACK)
    server.faults.drop_next("phx_reply")
    sending = channel.send(MESSAGE)
    await until(lambda: pushed(server, "broadcast"))
    server.faults.cut()
    assert await asyncio.wait_for(sending, 1) == "error"
    await until(lambda: channel.state == "joined")


async def test_replies_are_matched_by_ref(server: LocalRealtime, client: RealtimeClient) -> None:
    channel = await joined(client, ACK)
    server.faults.drop_next("phx_reply")
    first = channel.send(MESSAGE, timeout=0.5)
    second = channel.send(MESSAGE)
    assert await second == "ok"
    assert not first.done()
    assert await first == "timed out"


@pytest.mark.conformance("CI4")
async def test_sends_un_awaited_arrive_in_order(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    got = Recorder()
    channel = client.channel("room", ACK).on("broadcast", {"event": "*"}, got)
    await channel.subscribe()
    for n in range(200):
        channel.send({**MESSAGE, "payload": {"n": n}})
    await got.count(200)
    assert got.values() == list(range(200))


async def test_gather_and_wait_for_take_a_send(client: RealtimeClient) -> None:
    channel = await joined(client, ACK)
    assert set(await asyncio.gather(*(channel.send(MESSAGE) for _ in range(5)))) == {"ok"}
    assert await asyncio.wait_for(channel.send(MESSAGE), 1) == "ok"


async def test_a_change_after_the_call_is_not_sent(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    channel = await joined(client, ACK)
    payload = {"list": [1]}
    message = {**MESSAGE, "payload": payload}
    sending = channel.send(message)
    payload["list"].append(2)
    message["event"] = "y"
    await sending
    (sent,) = pushed(server, "broadcast")
    assert (sent["event"], sent["payload"]) == ("x", {"list": [1]})


async def test_a_change_after_the_call_is_not_sent_while_it_waits_for_the_join(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    channel = client.channel("room").subscribe()
    payload = {"n": [1]}
    tracking = channel.track(payload)
    payload["n"].append(2)
    assert await tracking == "ok"
    assert pushed(server, "presence")[0]["payload"] == {"n": [1]}


async def test_a_key_of_the_users_goes_along(server: LocalRealtime, client: RealtimeClient) -> None:
    channel = await joined(client, ACK)
    await channel.send({"type": "postgres_changes", "event": "x", "more": [1]}, timeout=0.02)
    assert pushed(server, "postgres_changes") == [
        {"type": "postgres_changes", "event": "x", "more": [1]}
    ]


async def test_a_message_without_payload(server: LocalRealtime, client: RealtimeClient) -> None:
    got = Recorder()
    channel = client.channel("room", ACK).on("broadcast", {"event": "*"}, got)
    await channel.subscribe()
    assert await channel.send({"type": "broadcast", "event": "x"}) == "ok"
    await got.count(1)
    assert got.seen[0].event == "x"


# -- bad input ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "error", "text"),
    [
        (None, TypeError, "takes a dict"),
        ([1], TypeError, "takes a dict"),
        ({}, ValueError, "'type' is one of"),
        ({"type": "system", "event": "x"}, ValueError, "'type' is one of"),
        ({"type": "broadcast"}, ValueError, "needs an 'event'"),
        ({"type": "broadcast", "event": 5}, ValueError, "needs an 'event'"),
        ({**MESSAGE, "event": "ü" * 128}, ValueError, "at most 255 bytes, not 256"),
        ({**MESSAGE, "payload": object()}, TypeError, ""),
        ({**MESSAGE, "payload": {"a": {1: object()}}}, TypeError, ""),
        ({**MESSAGE, "more": object()}, TypeError, ""),
    ],
)
async def test_what_cannot_be_sent_raises_at_the_call(
    server: LocalRealtime, client: RealtimeClient, message: Any, error: Any, text: str
) -> None:
    channel = await joined(client)
    with pytest.raises(error) as caught:
        channel.send(message)
    assert text in str(caught.value)
    await turns()
    assert pushed(server, "broadcast") == []
    assert client.is_connected()


async def test_an_event_of_255_bytes(server: LocalRealtime, client: RealtimeClient) -> None:
    channel = await joined(client, ACK)
    assert await channel.send({**MESSAGE, "event": "x" * 255}) == "ok"


@pytest.mark.parametrize(
    "options",
    [
        {"opts": {"timeOut": 1}},
        {"opts": {"timeoutMs": 1}},
        {"opts": 5},
        {"opts": {"timeout": "1"}},
        {"timeout": 0},
        {"persist": 5},
    ],
)
async def test_options_that_cannot_work_raise_at_the_call(
    client: RealtimeClient, options: dict[str, Any]
) -> None:
    channel = await joined(client)
    with pytest.raises(ValueError):
        channel.send(MESSAGE, **options)


@pytest.mark.conformance("AD1")
async def test_a_presence_or_other_message_needs_subscribe(client: RealtimeClient) -> None:
    channel = client.channel("room")
    calls: list[Callable[[], Any]] = [
        lambda: channel.track({}),
        channel.untrack,
        lambda: channel.send({"type": "postgres_changes", "event": "x"}),
    ]
    for call in calls:
        with pytest.raises(InvalidState, match=r"Use channel\.subscribe\(\) before pushing"):
            call()


# -- persist -----------------------------------------------------------------------------


@pytest.mark.parametrize("persist", [True, {"ttl": 60}])
async def test_a_message_to_store_on_a_private_channel(
    server: LocalRealtime, client: RealtimeClient, persist: Any
) -> None:
    client.set_auth(server.token())
    channel = await joined(
        client, {"config": {"private": True, "broadcast": {"ack": True, "self": True}}}
    )
    assert await channel.send(MESSAGE, persist=persist) == "ok"
    assert await channel.send(MESSAGE, {"persist": persist}) == "ok"
    assert await channel.send({**MESSAGE, "persist": persist}) == "ok"
    assert len(pushed(server, "broadcast")) == 3


@pytest.mark.conformance("NX8")
async def test_the_servers_word_for_a_message_that_was_not_stored(
    make_client: MakeClient,
) -> None:
    answers = [b'{"error":"quota_exceeded"}', b'{"error":5}', b'"text"']

    async def serve(peer: RawPeer) -> None:
        await peer.handshake()
        await peer.receive()
        peer.text(b'["1","1","realtime:room","phx_reply",{"status":"ok","response":{}}]')
        for number, answer in enumerate(answers, 2):
            await peer.receive()
            peer.text(
                b'["1","%d","realtime:room","phx_reply",{"status":"error","response":%b}]'
                % (number, answer)
            )
        await peer.eof()

    async with raw_peer(serve) as url:
        client = make_client(url)
        options: ChannelOptions = {"config": {"private": True, "broadcast": {"ack": True}}}
        channel = await joined(client, options)
        assert await channel.send(MESSAGE, persist=True) == "quota_exceeded"
        assert await channel.send(MESSAGE, persist=True) == "error"
        assert await channel.send(MESSAGE, persist=True) == "error"
        await client.disconnect()


@pytest.mark.conformance("NX3")
async def test_where_a_message_cannot_be_stored(
    server: LocalRealtime, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    lines: list[Any] = []
    public = await joined(make_client(logger=lambda *args: lines.append(args[:2])), ACK)
    assert await public.send(MESSAGE, persist=True) == "error"
    assert "cannot store a message on a public channel" in caplog.text
    assert ("channel", "Realtime send() cannot store a message on a public channel.") in lines
    old = make_client(vsn="1.0.0")
    old.set_auth(server.token())
    private = await joined(old, {"config": {"private": True}})
    assert await private.send(MESSAGE, persist=True) == "error"
    assert "with protocol 1.0.0" in caplog.text


# -- presence ----------------------------------------------------------------------------


@pytest.mark.conformance(
    "CR1",
    "CR19",
    "CR20",
    "realtime.presence.presence_state",
    "realtime.presence.track",
    "realtime.presence.untrack",
)
async def test_track_and_untrack(server: LocalRealtime, client: RealtimeClient) -> None:
    channel = client.channel("room", {"config": {"presence": {"key": "me", "enabled": True}}})
    await channel.subscribe()
    assert channel.presence_state() == {}
    assert await channel.track({"name": "x"}) == "ok"
    await until(lambda: channel.presence_state())
    (mine,) = channel.presence_state()["me"]
    assert mine.pop("presence_ref")
    assert mine == {"name": "x"}
    channel.presence_state().clear()  # a copy
    assert channel.presence_state()
    assert await channel.untrack() == "ok"
    await until(lambda: not channel.presence_state())
    assert pushed(server, "presence")[1] == {"type": "presence", "event": "untrack"}


async def test_track_waits_for_the_join(server: LocalRealtime, client: RealtimeClient) -> None:
    channel = client.channel("room").subscribe()
    assert await channel.track({"n": 1}) == "ok"
    assert channel.state == "joined"


async def test_an_identical_track_within_one_join_needs_no_frame(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    channel = await joined(client)
    assert await channel.track({"n": 1}) == "ok"
    assert await channel.track({"n": 1}) == "ok"
    assert len(pushed(server, "presence")) == 1


async def test_the_last_payload_is_tracked_again_after_a_rejoin(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    statuses = Statuses()
    channel = client.channel("room", {"config": {"presence": {"key": "me"}}})
    await channel.on("presence", {"event": "*"}, lambda: None).subscribe(statuses)
    await channel.track({"n": 1})
    await channel.track({"n": 2})
    server.faults.cut()
    await statuses.are("SUBSCRIBED", "CHANNEL_ERROR", "SUBSCRIBED")
    await until(lambda: len(pushed(server, "presence")) == 3)
    assert pushed(server, "presence")[2]["payload"] == {"n": 2}


@pytest.mark.parametrize("what", ["untrack", "track"])
async def test_not_if_the_user_said_something_else_since(
    server: LocalRealtime, client: RealtimeClient, what: str
) -> None:
    statuses = Statuses()
    channel = client.channel("room").subscribe(statuses)
    await channel.track({"n": 1})
    server.faults.refuse(503)
    server.faults.cut()
    await statuses.are("SUBSCRIBED", "CHANNEL_ERROR")
    saying = channel.untrack() if what == "untrack" else channel.track({"n": 2})
    server.faults.refuse(None)
    assert await saying == "ok"
    await turns()
    last = pushed(server, "presence")[1:]
    assert [push["event"] for push in last] == [what]
    server.faults.cut()
    await until(lambda: statuses.names.count("SUBSCRIBED") == 3)


async def test_calls_beyond_the_limit_wait_and_the_latest_wins(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    client = make_client(presence_limit=(2, 0.1))
    channel = await joined(client)
    calls = [channel.track({"n": n}) for n in range(5)]
    assert [await call for call in calls] == ["ok"] * 5
    sent = [push["payload"]["n"] for push in pushed(server, "presence")]
    assert sent == [0, 1, 4]


async def test_without_a_limit_every_call_goes_out(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    client = make_client(presence_limit=None)
    channel = await joined(client)
    calls = [channel.track({"n": n}) for n in range(5)]
    assert [await call for call in calls] == ["ok"] * 5
    assert len(pushed(server, "presence")) == 5


@pytest.mark.parametrize("payload", [None, 5, "x", [1], b"x"])
async def test_only_a_dict_can_be_tracked(client: RealtimeClient, payload: Any) -> None:
    channel = await joined(client)
    with pytest.raises(TypeError, match="is a dict"):
        channel.track(payload)


async def test_a_track_that_is_never_answered_times_out(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    channel = await joined(client)
    server.faults.drop_next("phx_reply")
    assert await channel.track({}, {"timeout": 0.02}) == "timed out"


async def test_a_track_that_waits_for_a_join_in_vain_times_out(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    server.faults.stall(handshakes=True)
    channel = client.channel("room").subscribe()
    assert await channel.track({}, timeout=0.02) == "timed out"
    server.faults.resume()


@pytest.mark.conformance("AD2")
async def test_requests_beyond_the_buffer_push_out_the_oldest(
    server: LocalRealtime, client: RealtimeClient, caplog: pytest.LogCaptureFixture
) -> None:
    server.faults.stall(handshakes=True)
    channel = client.channel("room").subscribe()
    message = {"type": "postgres_changes", "event": "x"}
    calls = [channel.send({**message, "n": n}) for n in range(101)]
    assert await calls[0] == "error"
    assert not calls[1].done()
    assert "discarded push due to buffer overflow: postgres_changes" in caplog.text
    await client.remove_channel(channel)
    assert await calls[100] == "error"
    server.faults.resume()


# -- from inside handlers ----------------------------------------------------------------


async def test_a_handler_may_send(server: LocalRealtime, client: RealtimeClient) -> None:
    got = Recorder()
    channel = client.channel("room", ACK)

    def answer(event: Any) -> None:
        n = event.payload["n"]
        if n < 5:
            channel.send({**MESSAGE, "payload": {"n": n + 1}})

    async def answer_slowly(event: Any) -> None:
        if event.payload["n"] == 5:
            assert await channel.send({**MESSAGE, "payload": {"n": 6}}) == "ok"

    channel.on("broadcast", {"event": "*"}, answer)
    channel.on("broadcast", {"event": "*"}, answer_slowly)
    await channel.on("broadcast", {"event": "*"}, got).subscribe()
    channel.send({**MESSAGE, "payload": {"n": 0}})
    await got.count(7)
    assert got.values() == list(range(7))


async def test_a_handler_may_leave_and_come_back(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    got = Recorder()

    def leave(old: RealtimeChannel, event: Any) -> None:
        got(event)
        client.remove_channel(old)
        new = client.channel("room")
        new.on("broadcast", {"event": "*"}, functools.partial(leave, new)).subscribe()

    channel = client.channel("room")
    channel.on("broadcast", {"event": "*"}, functools.partial(leave, channel))
    await channel.subscribe()
    for n in range(3):
        await client.channel("room")
        server.broadcast("room", "x", {"n": n})
        await got.count(n + 1)
    assert got.values() == [0, 1, 2]
    assert len(client.get_channels()) == 1


async def test_status_callbacks_may_send_and_track(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    results: list[str] = []
    channel = client.channel("room", ACK)

    async def on_status(status: str, error: BaseException | None) -> None:
        if status == "SUBSCRIBED":
            results.append(await channel.track({"n": 1}))
            results.append(await channel.send(MESSAGE))

    channel.subscribe(on_status)
    await until(lambda: results == ["ok", "ok"])
    await client.disconnect()
    assert our_tasks() == []
