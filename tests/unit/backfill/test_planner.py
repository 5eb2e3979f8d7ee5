"""Random runs of a handler with a backfill, compared with an oracle that sees every commit.

The world has a table, transactions that commit out of order, a feed that is lost and comes back,
slow fetches, and handlers that fail. The process is killed at any step and starts again from its
notes. Numbers are small, so that pages, queues and the overlap all overflow.
"""

from __future__ import annotations

import collections
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from supabase_rt._backfill.planner import Backfiller, Fetch, Handle
from supabase_rt._backfill.progress import Progress, Window

ROWS = 3
SECONDS = 5.0
QUEUE = 3
START = 1_700_000_000.0


class World(RuleBasedStateMachine):
    """The time, and a feed that is lost and comes back."""

    worker: Backfiller

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.is_up = False

    @rule(seconds=st.sampled_from([0.1, 1.0, 4.0, 30.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def come_up(self) -> None:
        self.is_up = True
        self.worker.changes_started()

    @rule()
    def get_lost(self) -> None:
        self.is_up = False
        self.worker.changes_interrupted()


def new_progress(cursor: str) -> Progress:
    return Progress(cursor, ("id",), rows=ROWS, seconds=SECONDS, page=2, prune_every=1)


class Life(World):
    """A table with numbered rows, and one handler for its inserts."""

    def __init__(self) -> None:
        super().__init__()
        self.last_id = 0
        self.open: list[int] = []
        self.committed: dict[int, float] = {}
        """Visible rows in the order of their commits."""
        self.owed: set[int] = set()
        """The rows that must be handled."""
        self.live_only: set[int] = set()
        """Live rows that no reading finds: they must be handled unless the process ends."""
        self.tried: collections.Counter[int] = collections.Counter()
        self.succeeded: list[int] = []
        self.allowed: collections.Counter[int] = collections.Counter()
        self.notes: dict[str, str] = {}
        self.base_at: float | None = None
        self.floor = 0
        self.in_order = True
        self.reading: tuple[Window, list[dict[str, Any]] | None] | None = None
        self.in_handler: Handle | None = None
        self.start()

    def start(self) -> None:
        self.progress = new_progress("id")
        self.progress.restore(self.notes)
        self.worker = Backfiller(self.progress, QUEUE)
        self.reading = self.in_handler = None

    # -- the table -----------------------------------------------------------------------

    def commit(self, number: int) -> None:
        beyond = [at for other, at in self.committed.items() if other > number]
        self.in_order = self.in_order and not beyond
        is_covered = len(beyond) <= ROWS or (
            number > self.floor and self.now - min(beyond) <= SECONDS
        )
        self.committed[number] = self.now
        if self.is_up:
            row = {"id": number}
            taken = self.worker.add_live(row, self.progress.position_of(row), self.now)
            if taken and not is_covered:
                self.live_only.add(number)
        if self.base_at is not None and is_covered:
            self.owed.add(number)

    @rule(count=st.integers(1, 6))
    def insert(self, count: int) -> None:
        for _ in range(count):
            self.last_id += 1
            self.commit(self.last_id)

    @rule()
    def begin_transaction(self) -> None:
        self.last_id += 1
        self.open.append(self.last_id)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def commit_late(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(self.open))
        self.open.remove(number)
        self.commit(number)

    # -- the worker ----------------------------------------------------------------------

    @rule(steps=st.integers(1, 6))
    def work(self, steps: int) -> None:
        for _ in range(steps):
            if not self.step():
                break

    def step(self) -> bool:
        """One half of a step: fetches and handlers can be interrupted in the middle."""
        if self.in_handler is not None:
            self.record()
        elif self.reading is not None:
            self.fetch_on()
        else:
            step = self.worker.next()
            if step is None:
                return False
            if isinstance(step, Fetch):
                self.reading = (step.window, None)
                self.worker.fetch_started(self.now)
            else:
                self.handle(step)
        return True

    def fetch_on(self) -> None:
        assert self.reading is not None
        window, rows = self.reading
        if rows is None:
            self.reading = (window, self.read(window))
            return
        self.reading = None
        was_started = self.progress.started
        if window.newest and len(rows) > ROWS:
            self.floor = rows[-1]["id"]
        self.keep(self.worker.fetch_done(rows, self.now))
        if self.progress.started and not was_started:
            self.base_at = self.now

    def read(self, window: Window) -> list[dict[str, Any]]:
        numbers = sorted(self.committed)
        if window.newest:
            return [{"id": number} for number in numbers[::-1][: window.limit]]
        after = window.after[0] if window.after else 0
        return [{"id": number} for number in numbers if number > after][: window.limit]

    def handle(self, item: Handle) -> None:
        number = (item.row or item.payload)["id"]
        self.tried[number] += 1
        self.succeeded.append(number)
        self.in_handler = item

    def record(self) -> None:
        item, self.in_handler = self.in_handler, None
        assert item is not None
        self.keep(self.worker.handled(item))

    def keep(self, notes: Any) -> None:
        self.notes.update(notes.put)
        for name in notes.remove:
            self.notes.pop(name, None)

    @precondition(lambda self: self.in_handler is not None)
    @rule()
    def fail(self) -> None:
        item, self.in_handler = self.in_handler, None
        assert item is not None
        self.succeeded.remove((item.row or item.payload)["id"])
        self.in_order = False
        self.worker.failed(item)

    @precondition(lambda self: self.reading is not None)
    @rule()
    def fail_to_fetch(self) -> None:
        self.reading = None
        self.worker.fetch_failed()

    @rule()
    def kill(self) -> None:
        if self.in_handler is not None:
            self.allowed[(self.in_handler.row or self.in_handler.payload)["id"]] += 1
        self.live_only.clear()
        self.is_up = False
        self.in_order = self.in_order and self.in_handler is None
        self.start()

    # -- invariants ------------------------------------------------------------------

    @invariant()
    def nothing_is_handled_twice(self) -> None:
        for number, count in collections.Counter(self.succeeded).items():
            assert count <= 1 + self.allowed[number], f"{number} was handled {count} times"

    @invariant()
    def memory_is_bounded(self) -> None:
        # More than QUEUE wait only if the reading has passed them; they are handled at once.
        assert len(self.worker) <= QUEUE + len(self.open) + len(self.committed)

    def teardown(self) -> None:
        self.come_up()
        for _ in range(20_000):
            if not self.step():
                break
        else:
            raise AssertionError("the worker does not come to rest")
        assert self.worker.is_idle
        missing = (self.owed | self.live_only) - set(self.tried)
        assert not missing, f"never handled: {sorted(missing)}"
        self.nothing_is_handled_twice()
        if self.in_order:
            assert self.succeeded == sorted(self.succeeded)


@pytest.mark.timeout(600)
def test_every_insert_is_handled_and_none_twice_through_any_life() -> None:
    run_state_machine_as_test(Life, settings=settings(max_examples=100, stateful_step_count=40))


class Versions(World):
    """The same for rows that are updated, read by the time of their last change."""

    def __init__(self) -> None:
        super().__init__()
        self.table: dict[int, int] = {}
        """The version of each row; one counter numbers the changes of all rows."""
        self.version = 0
        self.shown: dict[int, list[int]] = collections.defaultdict(list)
        self.base: int | None = None
        self.progress = new_progress("version")
        self.worker = Backfiller(self.progress, QUEUE)

    @rule(number=st.integers(1, 6))
    def change(self, number: int) -> None:
        self.version += 1
        self.table[number] = self.version
        if self.is_up:
            row = {"id": number, "version": self.version}
            self.worker.add_live(row, self.progress.position_of(row), self.now)

    @rule(steps=st.integers(1, 4))
    def work(self, steps: int) -> None:
        for _ in range(steps):
            self.step()

    def step(self) -> bool:
        step = self.worker.next()
        if step is None:
            return False
        if isinstance(step, Handle):
            row = step.row or step.payload
            self.shown[row["id"]].append(row["version"])
            self.worker.handled(step)
            return True
        rows = [{"id": number, "version": version} for number, version in self.table.items()]
        rows.sort(key=lambda row: row["version"], reverse=step.window.newest)
        after = step.window.after[0] if step.window.after else 0
        self.worker.fetch_started(self.now)
        found = [row for row in rows if step.window.newest or row["version"] > after]
        self.worker.fetch_done(found[: step.window.limit], self.now)
        if self.base is None:
            self.base = self.version
        return True

    def teardown(self) -> None:
        self.come_up()
        while self.step():
            pass
        assert self.base is not None
        for number, versions in self.shown.items():
            assert versions == sorted(set(versions)), f"{number} went back to an older version"
        for number, version in self.table.items():
            if version > self.base:
                assert self.shown[number][-1] == version, f"{number} is not shown as it is"


def test_the_latest_version_of_every_row_is_shown_last() -> None:
    run_state_machine_as_test(
        Versions, settings=settings(max_examples=60, stateful_step_count=40, deadline=None)
    )


# -- single steps --------------------------------------------------------------------------


def started(maxsize: int = 3) -> Backfiller:
    """Returns a planner whose changes flow, started with an empty table."""
    progress = Progress("id", ("id",), rows=ROWS, seconds=SECONDS, page=2)
    worker = Backfiller(progress, maxsize)
    worker.changes_started()
    answer(worker)
    return worker


def ask(worker: Backfiller) -> None:
    """Begins the fetch that is the next step."""
    assert isinstance(worker.next(), Fetch)
    worker.fetch_started(START)


def answer(worker: Backfiller, *numbers: int) -> None:
    """Begins the next fetch and answers it with these rows."""
    ask(worker)
    worker.fetch_done([{"id": number} for number in numbers], START)


def live(worker: Backfiller, number: int) -> bool:
    row = {"id": number}
    return worker.add_live(row, worker.progress.position_of(row), START)


def handle(worker: Backfiller) -> int:
    step = worker.next()
    assert isinstance(step, Handle)
    worker.handled(step)
    found: int = (step.row or step.payload)["id"]
    return found


def test_a_change_without_a_position_is_dropped_by_a_full_queue() -> None:
    worker = started(maxsize=1)
    assert worker.add_live("delete", None, START)
    assert not worker.add_live("delete", None, START)
    step = worker.next()
    assert isinstance(step, Handle)
    assert worker.handled(step).put == {}
    assert worker.next() is None


def test_reading_that_is_given_up_lets_live_changes_go_on() -> None:
    worker = started()
    worker.changes_interrupted()
    worker.changes_started()
    assert isinstance(worker.next(), Fetch)
    assert live(worker, 5)
    worker.fetch_started(START)
    worker.give_up()
    assert not worker.is_reading
    assert handle(worker) == 5
    worker = Backfiller(Progress("id", ("id",), rows=ROWS, seconds=SECONDS), 3)
    worker.changes_started()
    assert isinstance(worker.next(), Fetch)
    assert live(worker, 1)
    worker.give_up()
    assert handle(worker) == 1


def sized(worker: Backfiller, number: int, size: int) -> bool:
    row = {"id": number}
    return worker.add_live(row, worker.progress.position_of(row), START, size)


def test_the_queue_is_bounded_in_bytes_too() -> None:
    worker = Backfiller(Progress("id", ("id",), rows=ROWS, seconds=SECONDS), 100, 10)
    worker.changes_started()
    answer(worker)
    assert sized(worker, 1, 50)
    assert not sized(worker, 2, 1)
    assert (len(worker), worker.waiting_bytes) == (1, 50)
    assert handle(worker) == 1
    assert worker.waiting_bytes == 0
    # The dropped row is read in its place.
    answer(worker, 1, 2)
    assert handle(worker) == 2


def test_a_reading_that_hangs_leaves_the_queue_bounded() -> None:
    worker = started(maxsize=2)
    worker.changes_interrupted()
    worker.changes_started()
    answer(worker, 5, 6)
    # While the handler hangs at row 5, changes of earlier rows keep coming live.
    taken = [live(worker, number) for number in (1, 2, 3, 4, 1, 2, 3, 4, 1, 2)]
    assert taken == [True] * 4 + [False] * 6
    assert len(worker) == 4


def test_a_page_that_may_lack_a_dropped_row_is_read_once_more() -> None:
    worker = started(maxsize=1)
    worker.changes_interrupted()
    worker.changes_started()
    assert isinstance(worker.next(), Fetch)
    assert live(worker, 9)
    worker.fetch_started(START)
    assert not live(worker, 2)
    worker.fetch_done([{"id": 1}, {"id": 3}], START)
    answer(worker, 1, 2)
    assert [handle(worker), handle(worker)] == [1, 2]


def test_another_subscription_while_reading_reads_once_more() -> None:
    worker = started()
    worker.changes_started()
    assert isinstance(worker.next(), Fetch)
    worker.changes_started()
    answer(worker)
    answer(worker)
    assert worker.is_idle


def test_rows_without_a_place_end_the_reading() -> None:
    worker = started()
    worker.changes_started()
    ask(worker)
    worker.fetch_done([{"text": "no id"}], START)
    assert worker.is_idle


def test_a_late_row_behind_the_reading_finds_room_in_a_full_queue() -> None:
    worker = started(maxsize=1)
    worker.changes_started()
    answer(worker, 5, 6)
    assert live(worker, 9)
    assert [handle(worker), handle(worker)] == [5, 6]
    ask(worker)
    assert live(worker, 3)
    worker.fetch_done([], START)
    assert [handle(worker), handle(worker)] == [9, 3]


def test_a_row_that_was_read_is_dropped_if_it_comes_live_later() -> None:
    worker = started()
    worker.changes_started()
    assert worker.add_live("delete", None, START)
    answer(worker, 1)
    assert handle(worker) == 1
    ask(worker)
    assert live(worker, 1)
    worker.fetch_done([], START)
    step = worker.next()
    assert isinstance(step, Handle)
    assert step.payload == "delete"
    worker.handled(step)
    assert worker.next() is None
    assert len(worker) == 0


def test_a_row_that_the_reading_passed_goes_before_the_next_page() -> None:
    worker = started()
    worker.changes_started()
    ask(worker)
    assert live(worker, 2)
    worker.fetch_done([{"id": 1}, {"id": 3}], START)
    assert [handle(worker), handle(worker), handle(worker)] == [1, 3, 2]
    answer(worker)
    assert worker.is_idle


def test_a_full_queue_leaves_later_rows_to_the_pages_to_come() -> None:
    worker = started(maxsize=1)
    worker.changes_started()
    answer(worker, 1, 2)
    assert live(worker, 9)
    assert not live(worker, 10)
    assert [handle(worker), handle(worker)] == [1, 2]
    answer(worker, 9, 10)
    assert [handle(worker), handle(worker)] == [9, 10]
    answer(worker)
    assert worker.is_idle


def test_a_failed_row_is_read_again() -> None:
    worker = started()
    assert live(worker, 1)
    step = worker.next()
    assert isinstance(step, Handle)
    worker.failed(step)
    assert worker.is_idle
    worker.changes_started()
    answer(worker, 1)
    assert handle(worker) == 1


def test_a_loss_ends_the_reading_with_its_page() -> None:
    worker = started()
    worker.changes_started()
    answer(worker, 1, 2)
    worker.changes_interrupted()
    assert [handle(worker), handle(worker)] == [1, 2]
    assert worker.next() is None
    worker.changes_started()
    ask(worker)
    worker.changes_interrupted()
    worker.fetch_done([{"id": 3}, {"id": 4}], START)
    assert worker.next() is None, "read after a loss, so it might hide what was missed before"
    worker.changes_started()
    ask(worker)
    worker.fetch_failed()
    answer(worker, 1, 2)
    answer(worker, 3)
    assert handle(worker) == 3


def test_a_closed_channel_handles_its_queue_without_reading() -> None:
    worker = started()
    worker.changes_started()
    answer(worker, 1, 2)
    assert live(worker, 9)
    worker.channel_closed()
    assert [handle(worker), handle(worker), handle(worker)] == [1, 2, 9]
    assert worker.next() is None
    worker = Backfiller(Progress("id", ("id",), rows=ROWS, seconds=SECONDS), 3)
    worker.changes_started()
    assert isinstance(worker.next(), Fetch)
    assert live(worker, 1)
    worker.channel_closed()
    assert handle(worker) == 1


def test_a_live_row_that_the_reading_brings_first_is_not_handled_again() -> None:
    worker = started()
    worker.changes_started()
    answer(worker, 1, 2)
    assert live(worker, 2)
    assert [handle(worker), handle(worker)] == [1, 2]
    answer(worker)
    assert worker.is_idle


def test_rows_dropped_by_a_full_queue_are_read_after_it() -> None:
    worker = started(maxsize=1)
    assert live(worker, 1)
    assert not live(worker, 2)
    assert handle(worker) == 1
    # Row 3 is dropped although there is room: it would overtake row 2.
    worker = started(maxsize=1)
    assert [live(worker, 1), live(worker, 2), live(worker, 3)] == [True, False, False]
    assert handle(worker) == 1
    answer(worker, 1, 2)
    assert handle(worker) == 2
    answer(worker, 3)
    assert handle(worker) == 3


def test_rows_dropped_before_the_start_is_known_are_read_after_it() -> None:
    worker = Backfiller(Progress("id", ("id",), rows=ROWS, seconds=SECONDS, page=2), 1)
    worker.changes_started()
    assert [live(worker, 1), live(worker, 2)] == [True, False]
    answer(worker)
    assert handle(worker) == 1
    answer(worker, 1, 2)
    assert handle(worker) == 2


def test_a_handled_row_of_the_overlap_is_not_handled_again() -> None:
    worker = started()
    assert live(worker, 1)
    assert handle(worker) == 1
    worker.changes_started()
    answer(worker, 1, 2)
    assert handle(worker) == 2


def test_a_live_row_that_is_read_first_is_not_handled_twice() -> None:
    worker = started()
    worker.changes_started()
    assert live(worker, 2)
    answer(worker, 1, 2)
    assert [handle(worker), handle(worker)] == [1, 2]
    answer(worker)
    assert worker.is_idle
