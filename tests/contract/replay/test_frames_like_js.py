"""Our frames beside those of the official JavaScript client, for the same calls.

They are equal byte for byte once our refs replace the recorded ones. Differences on purpose are
listed in docs/differences.md. On the wire they are the numbering of refs and the client's name in a
join after a token change, which does not occur here.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from supabase_rt import RealtimeChannel, RealtimeClient, Refused
from supabase_rt.types import ChannelOptions

from ...support.recorder import Recorder, Statuses
from .frames import Frame, read
from .player import Player, play
from .recordings import Step, load
from .test_replay_changes import row

VSNS = pytest.mark.parametrize("number", ["1", "2"], ids=["vsn 1", "vsn 2"])
AUTHENTICATED = "JWT:authenticated:sub"


def like_js(recorded: Frame, ours: Frame) -> str | bytes:
    """Returns the recorded frame with our refs, which our client should have written."""
    if isinstance(recorded.raw, str):
        found: Any = json.loads(recorded.raw)
        if isinstance(found, list):
            found[:2] = ours.join_ref, ours.ref
        else:
            found["ref"] = ours.ref
            if "join_ref" in found:
                found["join_ref"] = ours.join_ref
        return json.dumps(found, separators=(",", ":"))
    lengths = recorded.raw[1:7]
    rest = recorded.raw[7 + lengths[0] + lengths[1] :]
    join_ref, ref = str(ours.join_ref).encode(), str(ours.ref).encode()
    head = bytes([3, len(join_ref), len(ref)]) + lengths[2:]
    return head + join_ref + ref + rest


def channels(a: RealtimeClient, b: RealtimeClient) -> tuple[RealtimeChannel, RealtimeChannel]:
    """The channels of the recorded program."""
    options: Any = {"broadcast": {"self": True, "ack": True}, "presence": {"key": "ja"}}
    js_a = a.channel("js", {"config": options})
    js_b = b.channel("js", {"config": {"presence": {"key": "jb"}}})
    return js_a, js_b


class Heard:
    """The payloads that the handlers of one channel received."""

    def __init__(self, channel: RealtimeChannel, *, changes: bool) -> None:
        self.broadcasts, self.people, self.rows = Recorder(), Recorder(), Recorder()
        channel.on("presence", {"event": "*"}, self.people)
        channel.on("broadcast", {"event": "*"}, self.broadcasts)
        if changes:
            filter = {"event": "*", "schema": "public", "table": "messages"}
            channel.on("postgres_changes", filter, self.rows)


async def drive(player: Player, number: str) -> tuple[Heard, Heard, Statuses]:
    """The calls of the recorded program, in its order."""
    a, b = player.client(f"A{number}"), player.client(f"B{number}")
    js_a, js_b = channels(a, b)
    heard_a, heard_b = Heard(js_a, changes=True), Heard(js_b, changes=False)
    statuses = Statuses()
    js_a.subscribe(statuses)
    await js_b.subscribe()
    await js_a.ready()
    assert await js_a.send({"type": "broadcast", "event": "x", "payload": {"n": 1}}) == "ok"
    if number == "2":
        binary = {"type": "broadcast", "event": "bin", "payload": b"\x01\x02\xff"}
        assert await js_a.send(binary) == "ok"
    assert await js_a.track({"s": 1}) == "ok"
    assert await js_b.track({"s": 2}) == "ok"
    await heard_a.rows.count(1)
    a.set_auth(AUTHENTICATED)
    private: ChannelOptions = {"config": {"private": True}}
    await a.channel("private-room", private).subscribe()
    with pytest.raises(Refused) as caught:
        await b.channel("private-room", private).subscribe()
    assert caught.value.code == "Unauthorized"
    left = js_a.unsubscribe()
    if number == "1":
        assert await left == "ok"
    await player.end()
    return heard_a, heard_b, statuses


def of_the_other(number: str) -> Any:
    def skip(step: Step) -> bool:
        return not step.conn.endswith(number)

    return skip


@VSNS
async def test_the_same_calls_write_the_same_frames_but_for_the_refs(number: str) -> None:
    async with play("realtime_js", skip=of_the_other(number)) as player:
        await drive(player, number)
    assert player.extra() == {}
    for conn in (f"A{number}", f"B{number}"):
        recorded = [read(step.raw) for step in player.recording.of("send", conn)]
        ours = player.frames(conn)
        wanted = [like_js(js, our) for js, our in zip(recorded, ours, strict=True) if js]
        assert [frame.raw for frame in ours] == wanted
        assert all(frame.ref for frame in ours)
        joins = {frame.topic: frame.ref for frame in ours if frame.event == "phx_join"}
        assert all(frame.join_ref == joins[frame.topic] for frame in ours)


@VSNS
async def test_the_conversation_means_the_same_to_the_handlers(number: str) -> None:
    async with play("realtime_js", skip=of_the_other(number)) as player:
        heard_a, heard_b, statuses = await drive(player, number)
    texts = [("x", {"n": 1}), ("bin", b"\x01\x02\xff"), ("viaHttp", {"h": 1})]
    if number == "1":
        del texts[1]
    for heard in (heard_a, heard_b):
        assert [(event.event, event.payload) for event in heard.broadcasts.seen] == texts
    (change,) = player.recording.payloads(f"A{number}", "postgres_changes")
    assert heard_a.rows.seen == [row(change["data"])]
    joined = ["sync", "join", "sync", "join", "sync"]
    assert [event.event for event in heard_a.people.seen] == joined
    assert [event.event for event in heard_b.people.seen] == [*joined, "leave", "sync"]
    assert [event.key for event in heard_b.people.seen if event.event != "sync"] == [
        "ja",
        "jb",
        "ja",
    ]
    assert statuses.names == ["SUBSCRIBED", "CLOSED"]


@VSNS
async def test_the_socket_is_opened_at_the_same_url(number: str) -> None:
    async with play("realtime_js", skip=lambda step: True) as player:
        await player.client(f"A{number}").connect()
        theirs = urlsplit(player.recording.opened(f"A{number}").about["url"])
        ours = urlsplit(player.handshakes[f"A{number}"])
    assert ours.path == theirs.path
    assert parse_qsl(ours.query) == parse_qsl(theirs.query)


@pytest.mark.parametrize("conn", ["A1", "A2"], ids=["vsn 1", "vsn 2"])
async def test_a_heartbeat_is_the_frame_that_the_server_was_seen_to_answer(conn: str) -> None:
    def not_the_first(step: Step) -> bool:
        return step.conn != conn or step.number not in (0, 1, 2, 53, 54, 55)

    async with play("phoenix_protocol", skip=not_the_first) as player:
        client = player.client(conn)
        beats = Recorder()
        client.on_heartbeat(beats)
        await client.connect()
        client.send_heartbeat()
        await player.end()
        assert beats.seen == ["sent", "ok"]
    first = load("phoenix_protocol").of("send", conn)[0]
    assert [frame.raw for frame in player.frames(conn)] == [first.raw]


@VSNS
async def test_a_join_names_the_client_once_the_token_has_changed(number: str) -> None:
    """As in supabase-js, where the name is realtime-js/<version>."""

    def not_private(step: Step) -> bool:
        wanted = "realtime:private-room" in step.about.get("text", "")
        return step.conn != f"A{number}" or not wanted

    async with play("realtime_js", skip=not_private) as player:
        client = player.client(f"A{number}")
        channel = client.channel("private-room", {"config": {"private": True}})
        client.set_auth(AUTHENTICATED)
        await channel.subscribe()
        (join,) = player.frames(f"A{number}")
        assert join.payload.keys() == {"config", "access_token", "version"}
        assert join.payload["version"].startswith("supabase-rt/")
