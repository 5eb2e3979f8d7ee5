"""Recording a conversation, and playing it to a client."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest

from supabase_rt import create_client
from supabase_rt.server import LocalRealtime
from supabase_rt.testing import play, record
from supabase_rt.types import RealtimeOptions

from ...support.recorder import Recorder


async def bot(url: str, key: str, vsn: Literal["1.0.0", "2.0.0"]) -> list[Any]:
    """Join, get two broadcasts, answer the first, see presence, leave."""
    got = Recorder()
    options: RealtimeOptions = {"vsn": vsn, "timeout": 5.0}
    supabase = create_client(url, key, realtime=options)
    config: Any = {"config": {"broadcast": {"ack": True}, "presence": {"key": "bot"}}}
    room = supabase.channel("room", config).on("broadcast", {"event": "*"}, got)
    room.on("presence", {"event": "join"}, got)
    await room.subscribe()
    await room.track({"mood": "x"})
    await got.count(1)
    answer = {"type": "broadcast", "event": "answer", "payload": {"x": 2**60}}
    said = [await room.send(answer)]
    await got.count(3)
    said.append(await room.unsubscribe())
    await supabase.realtime.disconnect()
    presences = [each.key for each in got.seen if hasattr(each, "key")]
    events = [(each.event, each.payload) for each in got.seen if hasattr(each, "payload")]
    return [said, presences, events]


@pytest.mark.parametrize("vsn", ["2.0.0", "1.0.0"])
async def test_a_bot_sees_in_the_recording_what_it_saw_when_it_was_made(
    server: LocalRealtime, tmp_path: Path, vsn: Literal["1.0.0", "2.0.0"]
) -> None:
    path = tmp_path / "conversation.jsonl"

    def answered(found: Any) -> None:
        if found.kind == "broadcast" and found.event == "answer":
            for number in (1, 2):
                server.broadcast("room", "told", {"n": number})

    server.watch(answered)
    async with record(server.url, path) as recorder:
        live = await bot(recorder.url, server.anon_key, vsn)
    assert live[:2] == [["ok", "ok"], ["bot"]]
    async with play(path) as player:
        played = await bot(player.url, "any-key", vsn)
        await player.finished()
    assert played == live
    assert player.unexpected == []


async def test_no_key_and_no_token_is_recorded(server: LocalRealtime, tmp_path: Path) -> None:
    path = tmp_path / "conversation.jsonl"
    token = server.token("authenticated", "anna")
    async with record(server.url, path) as recorder:
        supabase = create_client(recorder.url, server.anon_key, access_token=lambda: token)
        await supabase.channel("room").subscribe()
        await supabase.realtime.set_auth(server.token("authenticated", "ben"))
        await supabase.realtime.remove_all_channels()
    text = path.read_text()
    assert "eyJ" not in text
    kinds = {json.loads(line)["dir"] for line in text.splitlines()}
    assert kinds == {"open", "send", "recv", "closed"}


async def test_a_bot_that_says_something_else_is_told_apart(
    server: LocalRealtime, tmp_path: Path
) -> None:
    path = tmp_path / "conversation.jsonl"
    async with record(server.url, path) as recorder:
        supabase = create_client(recorder.url, server.anon_key)
        await supabase.channel("room").subscribe()
        await supabase.realtime.remove_all_channels()
    async with play(path) as player:
        supabase = create_client(player.url, "any-key")
        supabase.channel("other").subscribe()
        with pytest.raises(TimeoutError) as caught:
            await player.finished(timeout=0.5)
        await supabase.realtime.disconnect()
    assert "waiting for phx_join on 'realtime:room'" in str(caught.value)
    assert "realtime:other" in str(caught.value)
