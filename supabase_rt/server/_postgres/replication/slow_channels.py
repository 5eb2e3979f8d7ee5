"""Channels that are told by themselves, because the database takes long for them or refuses.

The others wait for none of them. Each lane tells its channel in order, whatever becomes of the
single changes: those that fail are told of by a system message, and counted.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

from ...._printable import get_logger
from ..._tables.change_feed import Subscriber
from ..._tables.filter_matching import Condition
from ..errors import DatabaseProblem
from ..piecewise import piecewise
from ..pool import Pool
from ..queries.change_rendering import Evaluated, evaluate
from ..queries.visibility import (
    Delivery,
    Subscription,
    conditions_of,
    deliveries,
    needs_asking,
    visible_rows,
)
from .table_batch import Frame, Miss, Part

__all__ = ["Job", "Lanes", "Spawn"]

logger: Final = get_logger("supabase_rt.server")

Spawn = Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]]

MOST_WAITING = 16 * 2**20
"""Bytes of changes that wait in one lane; what comes on top is not told."""
QUICK_RUNS = 10
"""After so many quick batches in a row a channel is told together with the others again."""
PATIENCE = 1.0
ATTEMPTS = 3
TOO_SLOW = "ERROR 53400 (configuration_limit_exceeded) the changes before take too long"
AWAY = "ERROR 08006 (connection_failure) the database is away"


@dataclasses.dataclass
class Job:
    """What one channel has to be told of one batch: ``frames`` are finished, ``parts`` are not."""

    subscription: Subscription
    parts: list[Part] = dataclasses.field(default_factory=list)
    frames: list[Frame] = dataclasses.field(default_factory=list)

    def size(self) -> int:
        """About how many bytes it keeps."""
        return sum(part.size() for part in self.parts) + sum(len(f.data) for f in self.frames)


@dataclasses.dataclass
class _Lane:
    jobs: collections.deque[tuple[int, Job]] = dataclasses.field(default_factory=collections.deque)
    waiting: int = 0
    task: asyncio.Task[None] | None = None
    slow: bool = False
    quick_runs: int = 0


class Lanes:
    """All lanes of one feed.

    ``send`` delivers a frame, ``miss`` tells a channel of changes that it will not get. A batch
    that takes longer than ``quick`` seconds keeps its channel apart; none takes much longer than
    three times ``timeout``.
    """

    def __init__(
        self,
        pool: Pool,
        spawn: Spawn,
        send: Callable[[Frame], None],
        miss: Callable[[Miss], None],
        *,
        quick: float,
        timeout: float,
    ) -> None:
        self._pool = pool
        self._spawn = spawn
        self._send = send
        self._miss = miss
        self._quick = quick
        self._timeout = timeout
        self._lanes: dict[Subscriber, _Lane] = {}

    def holds(self, subscriber: Subscriber) -> bool:
        """Whether a channel has to be told by itself."""
        return subscriber in self._lanes

    def drop(self, subscriber: Subscriber) -> None:
        """Forget a channel, known or not, and cancel what is asked for it."""
        lane = self._lanes.pop(subscriber, None)
        if lane is not None and lane.task is not None:
            lane.task.cancel()

    def add(self, job: Job) -> None:
        """Tell a channel of a batch, after those before."""
        subscriber = job.subscription.subscriber
        lane = self._lanes.setdefault(subscriber, _Lane())
        size = job.size()
        if lane.jobs and lane.waiting + size > MOST_WAITING:
            for part in job.parts:
                self._miss(Miss(job.subscription, len(part.changes), part.name, TOO_SLOW))
            if job.frames:
                self._miss(Miss(job.subscription, len(job.frames), "other tables", TOO_SLOW))
            return
        lane.jobs.append((size, job))
        lane.waiting += size
        if lane.task is None:
            lane.task = self._spawn(self._run(subscriber, lane), "changes of one channel")

    async def _run(self, subscriber: Subscriber, lane: _Lane) -> None:
        loop = asyncio.get_running_loop()
        while lane.jobs:
            size, job = lane.jobs[0]
            start = loop.time()
            try:
                failed = await self._do(job)
            except Exception as exc:
                # Our own mistake; without this the lane would stand still.
                logger.exception("socket %s could not be told of changes", subscriber.connection)
                failed = True
                for part in job.parts:
                    self._miss(Miss(job.subscription, len(part.changes), part.name, exc))
            # Only now: while it is told, the next ones count it as waiting.
            lane.jobs.popleft()
            lane.waiting -= size
            if failed or loop.time() - start > self._quick:
                lane.slow, lane.quick_runs = True, 0
            else:
                lane.quick_runs += 1
                lane.slow = lane.slow and lane.quick_runs < QUICK_RUNS
        lane.task = None
        if not lane.slow and self._lanes.get(subscriber) is lane:
            del self._lanes[subscriber]

    async def _do(self, job: Job) -> bool:
        """Tell of one batch, in order; whether something of it failed."""
        frames = list(job.frames)
        misses: list[tuple[int, Miss]] = []
        for part in job.parts:
            found, problems = await self._ask(job.subscription, part)
            try:
                frames += part.frames(found)
            except Exception as exc:
                logger.exception("changes of %r could not be written down", part.name)
                problems = dict.fromkeys(range(len(part.changes)), exc)
            if problems:
                miss = Miss(job.subscription, len(problems), part.name, _first(problems))
                misses.append((part.numbers[min(problems)], miss))
        failed = bool(misses)
        misses.sort(key=lambda miss: miss[0], reverse=True)
        for frame in sorted(frames, key=lambda frame: frame.number):
            while misses and misses[-1][0] <= frame.number:
                self._miss(misses.pop()[1])
            self._send(frame)
        while misses:
            self._miss(misses.pop()[1])
        return failed

    async def _ask(
        self, subscription: Subscription, part: Part
    ) -> tuple[list[Delivery], dict[int, Exception]]:
        """The changes of a part that a channel gets, and those that fail for it."""
        for attempt in range(ATTEMPTS):
            if attempt:
                await asyncio.sleep(PATIENCE)
            try:
                return await self._solve(subscription, part)
            except DatabaseProblem as exc:
                problem = exc
        return [], dict.fromkeys(range(len(part.changes)), problem)

    async def _solve(
        self, subscription: Subscription, part: Part
    ) -> tuple[list[Delivery], dict[int, Exception]]:
        client = subscription.subscriber.connection
        end = asyncio.get_running_loop().time() + self._timeout
        shape = part.shape
        conditions = conditions_of([subscription], shape.schema, shape.name)
        wanted = [
            nth
            for nth, row in enumerate(part.filter_rows())
            if row is not None and part.changes[nth].commit_lsn >= subscription.since
        ]
        role = subscription.role
        asked = [nth for nth in wanted if needs_asking(shape, part.changes[nth], role)]

        async def see(numbers: Sequence[int]) -> Mapping[int, bool]:
            changes = {nth: part.changes[nth] for nth in numbers}
            seen = await self._pool.run(
                lambda conn: visible_rows(conn, shape, subscription.claims, changes), client
            )
            return {nth: nth in seen for nth in numbers}

        # Before the filters: whether one fails, and how long it takes, tells of the row.
        seen, unseen = await piecewise(see, asked, end)
        wanted = [nth for nth in wanted if seen.get(nth, True)]
        rows, problems = await self._try_all(client, part, wanted, conditions, end)
        looked_at = [rows.get(nth) for nth in range(len(part.changes))]
        found = deliveries(shape, part.changes, looked_at, [subscription])
        concerned = problems.keys() | {each.nth for each in found}
        problems |= {nth: problem for nth, problem in unseen.items() if nth in concerned}
        return [each for each in found if each.nth not in unseen], problems

    async def _try_all(
        self,
        client: object,
        part: Part,
        wanted: Sequence[int],
        conditions: Sequence[Condition],
        end: float,
    ) -> tuple[dict[int, Evaluated], dict[int, Exception]]:
        """Which conditions hold for which rows; one that fails for a row does not hold for it."""
        if not conditions:
            return {nth: Evaluated({}, {}) for nth in wanted}, {}

        async def attempt(
            numbers: Sequence[int], some: Sequence[Condition]
        ) -> dict[int, Evaluated]:
            images = [part.changes[nth].filter_row for nth in numbers]
            found = await self._pool.run(
                lambda conn: evaluate(conn, part.shape, images, some, shown=False), client
            )
            return dict(zip(numbers, found, strict=True))

        rows, problems = await piecewise(lambda numbers: attempt(numbers, conditions), wanted, end)
        for nth in problems:

            async def one(some: Sequence[Condition], nth: int = nth) -> dict[Condition, bool]:
                return dict((await attempt([nth], some))[nth].holds)

            holds: dict[Condition, bool] = {}
            if len(conditions) > 1 and asyncio.get_running_loop().time() < end:
                holds, _ = await piecewise(one, conditions, end)
            rows[nth] = Evaluated({}, holds)
        return rows, problems


def _first(problems: Mapping[int, Exception]) -> Exception | str:
    problem = problems[min(problems)]
    return AWAY if isinstance(problem, DatabaseProblem) else problem
