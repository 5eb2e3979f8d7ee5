"""After an unreadable frame, the probes ask if each channel is still joined on the server."""

from __future__ import annotations

from supabase_rt._protocol.channel.join_probe import PROBE_PAUSE
from supabase_rt.errors import DecodeError

from .support import opened

UNMATCHED = {"reason": "unmatched topic"}


def test_every_joined_channel_is_asked_about_once_for_a_flood_of_unreadable_frames() -> None:
    world = opened()
    joined = [world.joined(f"realtime:{name}") for name in "ab"]
    world.joining("realtime:c")
    world.take_written()
    for _ in range(100):
        world.client_machine.unreadable(DecodeError("?"), world.now)
        world.advance(PROBE_PAUSE / 200)
    world.advance(PROBE_PAUSE)
    assert [(each.topic, each.join_ref) for each in world.frames("probe")] == [
        (channel.topic, channel.join_ref) for channel in joined
    ]
    assert world.context.counters.decode_errors == 100
    world.advance(60.0)
    assert len(world.frames("probe")) == 2


def test_a_channel_that_the_server_does_not_know_is_lost_and_joined_again() -> None:
    world = opened()
    channel, other = world.joined("realtime:a"), world.joined("realtime:b")
    world.client_machine.unreadable(DecodeError("?"), world.now)
    world.advance(PROBE_PAUSE)
    (probe, _) = world.frames("probe")
    world.reply(probe, "error", UNMATCHED)
    assert world.statuses(channel) == ["SUBSCRIBED", "CHANNEL_ERROR"]
    assert "unmatched topic" in str(world.last_error(channel))
    world.advance(1.0)
    world.accept(channel)
    assert world.statuses(channel) == ["SUBSCRIBED", "CHANNEL_ERROR", "SUBSCRIBED"]
    assert world.statuses(other) == ["SUBSCRIBED"]


def test_an_answer_that_comes_when_the_channel_has_been_joined_anew_is_stale() -> None:
    world = opened()
    channel = world.joined()
    world.client_machine.unreadable(DecodeError("?"), world.now)
    world.advance(PROBE_PAUSE)
    (probe,) = world.frames("probe")
    world.flap()
    world.accept(channel)
    world.reply(probe, "error", UNMATCHED)
    assert channel.state == "joined"
    assert world.context.counters.stale == 1


def test_a_request_answered_with_unmatched_topic_says_the_same() -> None:
    world = opened()
    channel = world.joined()
    outcome = world.push(channel)
    world.reply(world.frames("custom")[0], "error", UNMATCHED)
    assert world.ended[outcome] == "error"
    assert world.statuses(channel) == ["SUBSCRIBED", "CHANNEL_ERROR"]
    world.advance(1.0)
    assert len(world.frames("phx_join")) == 2


def test_no_question_survives_its_link() -> None:
    world = opened()
    world.joined()
    world.client_machine.unreadable(DecodeError("?"), world.now)
    world.link_lost()
    world.client_machine.unreadable(DecodeError("?"), world.now)
    assert "probe" not in world.deadlines()
    assert world.frames("probe") == []
