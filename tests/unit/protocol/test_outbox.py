from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supabase_rt._protocol.deadlines import Deadlines
from supabase_rt._protocol.outbox import Outbox, OutgoingMessage
from supabase_rt._wire.envelope import Message


def drained(deadlines: Deadlines, now: float = float("inf")) -> list[Any]:
    return list(iter(lambda: deadlines.pop_due(now), None))


def message(event: str) -> Message:
    return Message(None, "1", "realtime:room", event, {})


# -- timers ------------------------------------------------------------------------------


def test_nothing_is_due_without_timers() -> None:
    deadlines = Deadlines()
    assert (deadlines.next(), deadlines.pop_due(9e9), len(deadlines)) == (None, None, 0)


def test_the_earliest_deadline_comes_first_and_only_when_it_is_due() -> None:
    deadlines = Deadlines()
    deadlines.set("late", 3.0)
    deadlines.set("early", 1.0)
    assert deadlines.next() == 1.0
    assert deadlines.pop_due(0.999) is None
    assert deadlines.pop_due(1.0) == "early"
    assert deadlines.pop_due(1.0) is None
    assert drained(deadlines, 3.0) == ["late"]


def test_deadlines_of_one_moment_fall_due_in_the_order_of_their_setting() -> None:
    deadlines = Deadlines()
    for key in ("b", "a", ("c", 1)):
        deadlines.set(key, 1.0)
    assert drained(deadlines) == ["b", "a", ("c", 1)]


def test_setting_a_key_again_moves_its_one_deadline() -> None:
    deadlines = Deadlines()
    deadlines.set("key", 1.0)
    deadlines.set("key", 5.0)
    assert (deadlines.get("key"), len(deadlines)) == (5.0, 1)
    assert drained(deadlines, 4.0) == []
    deadlines.set("key", 2.0)
    assert drained(deadlines) == ["key"]


def test_a_key_set_twice_for_one_moment_is_due_once() -> None:
    deadlines = Deadlines()
    deadlines.set("key", 1.0)
    deadlines.set("key", 1.0)
    assert drained(deadlines) == ["key"]


def test_a_cancelled_deadline_never_falls_due() -> None:
    deadlines = Deadlines()
    deadlines.set("key", 1.0)
    deadlines.cancel("key")
    deadlines.cancel("unknown")
    assert (deadlines.next(), deadlines.get("key")) == (None, None)


def test_a_deadline_moved_ten_thousand_times_does_not_fill_the_memory() -> None:
    deadlines = Deadlines()
    for count in range(10_000):
        deadlines.set("beat", float(count))
    assert len(deadlines._heap) < 100
    assert drained(deadlines) == ["beat"]


def test_many_live_deadlines_all_survive_the_sweeping_of_dead_ones() -> None:
    deadlines = Deadlines()
    for when in range(100):
        deadlines.set(when, float(when))
    for _ in range(10):
        for when in range(90, 100):
            deadlines.set(when, when + 0.5)
        for when in range(50, 90):
            deadlines.cancel(when)
            deadlines.set(when, float(when))
    assert drained(deadlines) == list(range(100))


@given(
    st.lists(
        st.tuples(st.sampled_from(["set", "cancel", "pop"]), st.integers(0, 5), st.integers(0, 9)),
        max_size=200,
    )
)
def test_timers_agree_with_a_plain_dict(steps: list[tuple[str, int, int]]) -> None:
    deadlines, model = Deadlines(), dict[int, float]()
    for step, key, when in steps:
        if step == "set":
            deadlines.set(key, float(when))
            model[key] = float(when)
        elif step == "cancel":
            deadlines.cancel(key)
            model.pop(key, None)
        else:
            found = deadlines.pop_due(float(when))
            if found is None:
                assert not model or min(model.values()) > when
            else:
                assert isinstance(found, int)
                assert model.pop(found) <= min(model.values(), default=9e9)
        assert deadlines.next() == min(model.values(), default=None)
        assert len(deadlines) == len(model)


# -- the outbox --------------------------------------------------------------------------


@pytest.mark.conformance("PS37", "PS38")
def test_refs_are_texts_and_never_repeat() -> None:
    outbox = Outbox()
    refs = [outbox.next_ref() for _ in range(1000)]
    assert len(set(refs)) == 1000
    assert all(isinstance(ref, str) for ref in refs)


def test_frames_and_events_are_taken_once_and_in_order() -> None:
    outbox = Outbox()
    first, second = message("a"), message("b")
    outbox.send(first)
    outbox.send(second, "outcome")
    outbox.emit("one")
    outbox.emit("two")
    assert outbox.pop_frames() == [OutgoingMessage(first), OutgoingMessage(second, "outcome")]
    assert outbox.pop_events() == ["one", "two"]
    assert (outbox.pop_frames(), outbox.pop_events()) == ([], [])


@pytest.mark.parametrize(
    ("fill", "quiet"),
    [
        (lambda outbox: None, True),
        (lambda outbox: outbox.emit("event"), False),
        (lambda outbox: outbox.send(message("a")), False),
        (lambda outbox: outbox.deadlines.set("key", 1.0), True),
    ],
    ids=["empty", "event", "frame", "timer"],
)
def test_an_outbox_is_quiet_while_nothing_waits_in_it(
    fill: Callable[[Outbox], None], quiet: bool
) -> None:
    outbox = Outbox()
    fill(outbox)
    assert outbox.is_quiet is quiet


def test_what_was_taken_is_not_changed_by_what_follows() -> None:
    outbox = Outbox()
    outbox.emit("one")
    taken = outbox.pop_events()
    outbox.emit("two")
    assert taken == ["one"]
