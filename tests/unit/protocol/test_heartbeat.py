from __future__ import annotations

import pytest

from supabase_rt._protocol.events import HeartbeatReported, LinkDied
from supabase_rt._protocol.heartbeat import Heartbeat
from supabase_rt._protocol.shared_state import SharedState
from supabase_rt.enums import HeartbeatStatus
from supabase_rt.errors import ConnectionLost

from .support import World


class Beating:
    """A heartbeat on a link that opened at 0, with an interval of 25 s."""

    def __init__(self, timeout: float = 25.0) -> None:
        self.context = SharedState()
        self.deadlines = self.context.outbox.deadlines
        self.heartbeat = Heartbeat(self.context, 25.0, timeout)
        self.heartbeat.start(0.0)

    def beat(self, now: float) -> str:
        self.heartbeat.beat(now)
        (frame,) = self.context.outbox.pop_frames()
        assert frame.message.ref is not None
        return str(frame.message.ref)

    def told(self) -> list[object]:
        return self.context.outbox.pop_events()


def test_the_first_beat_comes_one_interval_after_the_link() -> None:
    beating = Beating()
    assert beating.context.outbox.pop_frames() == []
    assert beating.deadlines.next() == 25.0


def test_a_beat_is_a_phoenix_frame_without_a_join_ref_and_is_reported_as_sent() -> None:
    beating = Beating()
    beating.heartbeat.beat(25.0)
    (frame,) = beating.context.outbox.pop_frames()
    found = frame.message
    assert (found.join_ref, found.topic, found.event) == (None, "phoenix", "heartbeat")
    assert found.payload == {}
    assert beating.told() == [HeartbeatReported(HeartbeatStatus.SENT)]


def test_the_next_beat_comes_one_interval_after_the_answer() -> None:
    beating = Beating()
    ref = beating.beat(25.0)
    assert beating.deadlines.next() == 50.0
    assert beating.heartbeat.replied(ref, "ok", 26.5)
    assert (beating.deadlines.get("beat"), beating.deadlines.get("beat-ack")) == (51.5, None)


@pytest.mark.parametrize(
    ("status", "told"),
    [
        ("ok", HeartbeatStatus.OK),
        ("error", HeartbeatStatus.ERROR),
        ("what", HeartbeatStatus.ERROR),
    ],
)
def test_an_answer_is_reported_with_its_latency(status: str, told: HeartbeatStatus) -> None:
    beating = Beating()
    ref = beating.beat(25.0)
    beating.told()
    beating.heartbeat.replied(ref, status, 25.25)
    assert beating.told() == [HeartbeatReported(told, 0.25)]


@pytest.mark.conformance("RT10")
@pytest.mark.parametrize("ref", [None, "999"])
def test_a_reply_to_something_else_is_not_the_answer(ref: str | None) -> None:
    beating = Beating()
    beating.beat(25.0)
    assert not beating.heartbeat.replied(ref, "ok", 26.0)
    assert beating.deadlines.get("beat-ack") == 50.0


@pytest.mark.conformance("RT9")
def test_an_answer_counts_once() -> None:
    beating = Beating()
    ref = beating.beat(25.0)
    assert beating.heartbeat.replied(ref, "ok", 26.0)
    assert not beating.heartbeat.replied(ref, "ok", 27.0)


@pytest.mark.conformance("RS3")
def test_no_second_beat_goes_out_while_one_is_unanswered() -> None:
    beating = Beating()
    beating.beat(25.0)
    beating.told()
    beating.heartbeat.beat(30.0)
    assert beating.context.outbox.pop_frames() == []
    assert beating.told() == []
    assert beating.deadlines.get("beat-ack") == 50.0


def test_a_beat_sent_by_hand_takes_the_place_of_the_planned_one() -> None:
    beating = Beating()
    ref = beating.beat(10.0)
    assert beating.deadlines.get("beat") is None
    beating.heartbeat.replied(ref, "ok", 10.0)
    assert beating.deadlines.get("beat") == 35.0


@pytest.mark.conformance("PS39")
def test_a_missing_answer_means_a_dead_link() -> None:
    beating = Beating(timeout=5.0)
    beating.beat(25.0)
    beating.told()
    assert beating.deadlines.get("beat-ack") == 30.0
    beating.heartbeat.overdue(30.0, lambda: False)
    report, died = beating.told()
    assert report == HeartbeatReported(HeartbeatStatus.TIMEOUT)
    assert isinstance(died, LinkDied)
    assert isinstance(died.error, ConnectionLost)
    assert str(died.error) == "heartbeat timeout"
    assert beating.deadlines.next() is None


def test_a_stopped_heartbeat_leaves_no_deadline_and_knows_no_answer() -> None:
    beating = Beating()
    ref = beating.beat(25.0)
    beating.heartbeat.stop()
    assert beating.deadlines.next() is None
    assert not beating.heartbeat.replied(ref, "ok", 26.0)


def test_while_a_join_is_unanswered_time_runs_from_the_last_frame_received() -> None:
    beating = Beating(timeout=10.0)
    beating.beat(25.0)
    beating.context.last_frame_at = 32.0
    beating.heartbeat.overdue(35.0, lambda: True)
    assert beating.deadlines.get("beat-ack") == 42.0
    beating.told()
    beating.heartbeat.overdue(42.0, lambda: True)
    assert [type(event) for event in beating.told()] == [HeartbeatReported, LinkDied]


def test_the_patience_with_joins_ends_after_thirty_seconds() -> None:
    beating = Beating(timeout=10.0)
    beating.beat(25.0)
    beating.context.last_frame_at = 64.9
    beating.heartbeat.overdue(64.95, lambda: True)
    assert beating.deadlines.get("beat-ack") == 65.0
    beating.told()
    beating.context.last_frame_at = 65.0
    beating.heartbeat.overdue(65.0, lambda: True)
    assert beating.told()


def test_frames_received_before_the_beat_buy_no_time() -> None:
    beating = Beating(timeout=10.0)
    beating.beat(25.0)
    beating.told()
    beating.context.last_frame_at = 24.0
    beating.heartbeat.overdue(35.0, lambda: True)
    assert beating.told()


# -- in a session ------------------------------------------------------------------------


def test_a_slow_join_does_not_make_the_link_look_dead() -> None:
    """The server answers nothing while it decides a join (docs/protocol.md#one-join-at-a-time)."""
    world = World(heartbeat_interval=5.0)
    world.open()
    channels = [world.joining(f"realtime:{name}") for name in "abcd"]
    for channel in channels:
        world.advance(4.5)
        world.accept(channel)
    assert world.take_told(LinkDied) == []
    (beat,) = world.frames("heartbeat")
    world.reply(beat)
    world.advance(4.9)
    assert world.take_told(LinkDied) == []


def test_a_silent_link_without_joins_is_dead_after_interval_and_timeout() -> None:
    world = World(heartbeat_interval=25.0, heartbeat_timeout=10.0)
    world.open()
    world.advance(34.9)
    assert world.take_told(LinkDied) == []
    world.advance(0.1)
    (died,) = world.take_told(LinkDied)
    world.link_lost(died.error)
    assert world.frames("heartbeat") == [world.written[-1]]


def test_frames_other_than_the_answer_do_not_keep_a_link_alive() -> None:
    world = World(heartbeat_interval=10.0)
    world.open()
    channel = world.joined()
    for _ in range(19):
        world.advance(1.0)
        world.broadcast(channel)
    assert world.take_told(LinkDied) == []
    world.advance(1.0)
    assert len(world.take_told(LinkDied)) == 1


def test_a_day_of_answered_heartbeats_keeps_the_link() -> None:
    world = World()
    world.open()
    for _ in range(3456):
        world.advance(25.0)
        world.reply(world.written[-1])
    assert len(world.frames("heartbeat")) == 3456
    assert world.take_told(LinkDied) == []
