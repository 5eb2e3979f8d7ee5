from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supabase_rt._protocol.deadlines import Deadlines
from supabase_rt._protocol.outbox import Outbox, OutgoingMessage
from supabase_rt._wire.envelope import Message


def drained(timers: Deadlines, now: float = float("inf")) -> list[Any]:
    return list(iter(lambda: timers.pop_due(now), None))


def message(event: str) -> Message:
    return Message(None, "1", "realtime:room", event, {})


# -- timers ------------------------------------------------------------------------------


def test_nothing_is_due_without_timers() -> None:
    timers = Deadlines()
    assert (timers.next(), timers.pop_due(9e9), len(timers)) == (None, None, 0)


def test_the_earliest_deadline_comes_first_and_only_when_it_is_due() -> None:
    timers = Deadlines()
    timers.set("late", 3.0)
    timers.set("early", 1.0)
    assert timers.next() == 1.0
    assert timers.pop_due(0.999) is None
    assert timers.pop_due(1.0) == "early"
    assert timers.pop_due(1.0) is None
    assert drained(timers, 3.0) == ["late"]


def test_deadlines_of_one_moment_fall_due_in_the_order_of_their_setting() -> None:
    timers = Deadlines()
    for key in ("b", "a", ("c", 1)):
        timers.set(key, 1.0)
    assert drained(timers) == ["b", "a", ("c", 1)]


def test_setting_a_key_again_moves_its_one_deadline() -> None:
    timers = Deadlines()
    timers.set("key", 1.0)
    timers.set("key", 5.0)
    assert (timers.get("key"), len(timers)) == (5.0, 1)
    assert drained(timers, 4.0) == []
    timers.set("key", 2.0)
    assert drained(timers) == ["key"]


def test_a_key_set_twice_for_one_moment_is_due_once() -> None:
    timers = Deadlines()
    timers.set("key", 1.0)
    timers.set("key", 1.0)
    assert drained(timers) == ["key"]


def test_a_cancelled_deadline_never_falls_due() -> None:
    timers = Deadlines()
    timers.set("key", 1.0)
    timers.cancel("key")
    timers.cancel("unknown")
    assert (timers.next(), timers.get("key")) == (None, None)


def test_a_deadline_moved_ten_thousand_times_does_not_fill_the_memory() -> None:
    timers = Deadlines()
    for count in range(10_000):
        timers.set("beat", float(count))
    assert len(timers._heap) < 100
    assert drained(timers) == ["beat"]


def test_many_live_deadlines_all_survive_the_sweeping_of_dead_ones() -> None:
    timers = Deadlines()
    for when in range(100):
        timers.set(when, float(when))
    for _ in range(10):
        for when in range(90, 100):
            timers.set(when, when + 0.5)
        for when in range(50, 90):
            timers.cancel(when)
            timers.set(when, float(when))
    assert drained(timers) == list(range(100))


@given(
    st.lists(
        st.tuples(st.sampled_from(["set", "cancel", "pop"]), st.integers(0, 5), st.integers(0, 9)),
        max_size=200,
    )
)
def test_timers_agree_with_a_plain_dict(steps: list[tuple[str, int, int]]) -> None:
    timers, model = Deadlines(), dict[int, float]()
    for step, key, when in steps:
        if step == "set":
            timers.set(key, float(when))
            model[key] = float(when)
        elif step == "cancel":
            timers.cancel(key)
            model.pop(key, None)
        else:
            found = timers.pop_due(float(when))
            if found is None:
                assert not model or min(model.values()) > when
            else:
                assert isinstance(found, int)
                assert model.pop(found) <= min(model.values(), default=9e9)
        assert timers.next() == min(model.values(), default=None)
        assert len(timers) == len(model)


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
    outbox.tell("one")
    outbox.tell("two")
    assert outbox.take_frames() == [OutgoingMessage(first), OutgoingMessage(second, "outcome")]
    assert outbox.take_events() == ["one", "two"]
    assert (outbox.take_frames(), outbox.take_events()) == ([], [])


@pytest.mark.parametrize(
    ("fill", "quiet"),
    [
        (lambda outbox: None, True),
        (lambda outbox: outbox.tell("event"), False),
        (lambda outbox: outbox.send(message("a")), False),
        (lambda outbox: outbox.timers.set("key", 1.0), True),
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
    outbox.tell("one")
    taken = outbox.take_events()
    outbox.tell("two")
    assert taken == ["one"]
