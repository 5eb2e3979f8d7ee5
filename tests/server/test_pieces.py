"""Deadlines and faults without sockets."""

from __future__ import annotations

import pytest

from supabase_rt.server._machine.outgoing import OutgoingFrame
from supabase_rt.server._machine.server_deadlines import ServerDeadlines
from supabase_rt.server.faults import Faults


def test_timers_fire_in_order_and_may_set_others() -> None:
    timers, fired = ServerDeadlines(), list[str]()

    def chain() -> None:
        fired.append("a")
        timers.set("b", 1.5, lambda: fired.append("b"))

    timers.set("c", 2.0, lambda: fired.append("c"))
    timers.set("a", 9.0, chain)
    timers.set("a", 1.0, chain)
    timers.set("late", 3.0, lambda: fired.append("late"))
    timers.drop("nothing")
    timers.fire(0.5)
    timers.fire(2.5)
    assert fired == ["a", "b", "c"]
    timers.drop("late")
    timers.fire(9)
    timers.set("x", 1.0, chain)
    timers.clear()
    timers.fire(9)
    assert fired == ["a", "b", "c"]
    assert timers.deadline is None


def test_frames_are_dropped_and_spoiled_by_event() -> None:
    faults = Faults()
    reply, other = OutgoingFrame("phx_reply", '["1","2"]'), OutgoingFrame("system", b"\x04abc")
    faults.drop_next("phx_reply")
    assert faults.apply(other) == other.data
    assert faults.apply(reply) is None
    assert faults.apply(reply) == reply.data
    faults.corrupt_next()
    faults.corrupt_next("phx_reply")
    assert faults.apply(other) == b"\x04ab"
    assert faults.apply(other) == other.data
    assert faults.apply(reply) == '["1"'


def test_reset_undoes_what_was_set() -> None:
    faults = Faults()
    faults.heartbeat_replies = False
    faults.delay(3)
    faults.refuse(429)
    faults.stall(handshakes=True)
    faults.refuse_next_join("no", 2)
    faults.drop_next()
    assert faults.take_refusal() == ("no", None)
    faults.reset()
    assert faults.heartbeat_replies
    assert (faults.latency, faults.refused_status) == (0.0, None)
    assert faults.handshakes.is_set()
    assert faults.take_refusal() is None
    assert faults.apply(OutgoingFrame("x", "y")) == "y"


@pytest.mark.parametrize("topic", [None, "room", "realtime:room"])
def test_channel_faults_without_channels(topic: str | None) -> None:
    assert Faults().phx_error(topic) == 0
