"""Random lives of a registration with a backfill, beside an oracle that sees every commit.

The world has a table, transactions that commit out of order, a feed that is lost and comes back,
fetches that take their time, handlers that fail, and a process that is killed at any step and
starts anew from its notes. Numbers are small, so that pages, queues and the overlap all overflow.
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

from supabase_rt.protocol.backfill import Backfiller, Fetch, Handle
from supabase_rt.protocol.ledger import Ledger, Window

ROWS = 3
SECONDS = 5.0
QUEUE = 3
START = 1_700_000_000.0


class Life(RuleBasedStateMachine):
    """A table whose rows are numbered, and one registration for its inserts."""

    cursor = "id"

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.last_id = 0
        self.open: list[int] = []
        self.committed: dict[int, float] = {}
        """Visible rows in the order of their commits."""
        self.owed: set[int] = set()
        """What has to be handled."""
        self.live_only: set[int] = set()
        """What came live too late for any reading: owed unless the process ends."""
        self.tried: collections.Counter[int] = collections.Counter()
        self.succeeded: list[int] = []
        self.allowed: collections.Counter[int] = collections.Counter()
        self.notes: dict[str, str] = {}
        self.is_up = False
        self.base_at: float | None = None
        self.floor = 0
        self.in_order = True
        self.reading: tuple[Window, list[dict[str, Any]] | None] | None = None
        self.in_handler: Handle | None = None
        self.start()

    def start(self) -> None:
        self.ledger = Ledger(self.cursor, ("id",), rows=ROWS, seconds=SECONDS, page=2)
        self.ledger.restore(self.notes)
        self.worker = Backfiller(self.ledger, QUEUE)
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
            taken = self.worker.take(row, self.ledger.mark(row), self.now)
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

    @rule(seconds=st.sampled_from([0.1, 1.0, 4.0, 30.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    # -- the feed ------------------------------------------------------------------------

    @rule()
    def come_up(self) -> None:
        self.is_up = True
        self.worker.feed_up()

    @rule()
    def get_lost(self) -> None:
        self.is_up = False
        self.worker.feed_lost()

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
                self.worker.asked(self.now)
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
        was_started = self.ledger.started
        if window.newest and len(rows) > ROWS:
            self.floor = rows[-1]["id"]
        self.keep(self.worker.fetched(rows, self.now))
        if self.ledger.started and not was_started:
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

    # -- what must hold ------------------------------------------------------------------

    @invariant()
    def nothing_is_handled_twice(self) -> None:
        for number, count in collections.Counter(self.succeeded).items():
            assert count <= 1 + self.allowed[number], f"{number} was handled {count} times"

    @invariant()
    def memory_is_bounded(self) -> None:
        # Beyond the queue only what the reading has passed, which is handled at once.
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
