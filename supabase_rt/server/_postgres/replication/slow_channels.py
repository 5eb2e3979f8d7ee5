"""Slow channels: each is served alone, because its queries fail or take long.

The other channels do not wait for them. Each slow channel gets its changes in order. A change
that fails is reported by a system message, and counted.
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
from .table_batch import ChangeFrame, Miss, Part

__all__ = ["Job", "SlowChannels", "Spawn"]

logger: Final = get_logger("supabase_rt.server")

Spawn = Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]]

MOST_WAITING = 16 * 2**20
"""Bytes of changes that wait for one channel; further ones are reported as missed."""
QUICK_RUNS = 10
"""After this many quick batches in a row a channel is served with the others again."""
PATIENCE = 1.0
ATTEMPTS = 3
TOO_SLOW = "ERROR 53400 (configuration_limit_exceeded) earlier changes take too long"
AWAY = "ERROR 08006 (connection_failure) the database is away"


@dataclasses.dataclass
class Job:
    """One batch for one channel: finished ``frames``, and ``parts`` still to be queried."""

    subscription: Subscription
    parts: list[Part] = dataclasses.field(default_factory=list)
    frames: list[ChangeFrame] = dataclasses.field(default_factory=list)

    def size(self) -> int:
        """Returns about how many bytes it holds."""
        return sum(part.size() for part in self.parts) + sum(len(f.data) for f in self.frames)


@dataclasses.dataclass
class _SlowChannel:
    jobs: collections.deque[tuple[int, Job]] = dataclasses.field(default_factory=collections.deque)
    waiting: int = 0
    task: asyncio.Task[None] | None = None
    slow: bool = False
    quick_runs: int = 0


class SlowChannels:
    """All slow channels of one feed.

    ``send`` delivers a frame; ``miss`` reports changes that a channel will not get. A batch that
    takes longer than ``quick`` seconds keeps its channel slow. No batch takes much longer than
    three times ``timeout``.
    """

    def __init__(
        self,
        pool: Pool,
        spawn: Spawn,
        send: Callable[[ChangeFrame], None],
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
        self._slow: dict[Subscriber, _SlowChannel] = {}

    def holds(self, subscriber: Subscriber) -> bool:
        """Returns True for a slow channel."""
        return subscriber in self._slow

    def drop(self, subscriber: Subscriber) -> None:
        """Forget a channel and cancel its work; an unknown one is ignored."""
        channel = self._slow.pop(subscriber, None)
        if channel is not None and channel.task is not None:
            channel.task.cancel()

    def add(self, job: Job) -> None:
        """Queue a batch for a channel."""
        subscriber = job.subscription.subscriber
        channel = self._slow.setdefault(subscriber, _SlowChannel())
        size = job.size()
        if channel.jobs and channel.waiting + size > MOST_WAITING:
            for part in job.parts:
                self._miss(Miss(job.subscription, len(part.changes), part.name, TOO_SLOW))
            if job.frames:
                self._miss(Miss(job.subscription, len(job.frames), "other tables", TOO_SLOW))
            return
        channel.jobs.append((size, job))
        channel.waiting += size
        if channel.task is None:
            channel.task = self._spawn(self._run(subscriber, channel), "changes of one channel")

    async def _run(self, subscriber: Subscriber, channel: _SlowChannel) -> None:
        loop = asyncio.get_running_loop()
        while channel.jobs:
            size, job = channel.jobs[0]
            start = loop.time()
            try:
                failed = await self._do(job)
            except Exception as exc:
                # A bug of ours; the channel must go on with its next batch.
                logger.exception("changes could not be sent to socket %s", subscriber.connection)
                failed = True
                for part in job.parts:
                    self._miss(Miss(job.subscription, len(part.changes), part.name, exc))
            # Removed only now, so that a batch in work counts against the limit.
            channel.jobs.popleft()
            channel.waiting -= size
            if failed or loop.time() - start > self._quick:
                channel.slow, channel.quick_runs = True, 0
            else:
                channel.quick_runs += 1
                channel.slow = channel.slow and channel.quick_runs < QUICK_RUNS
        channel.task = None
        if not channel.slow and self._slow.get(subscriber) is channel:
            del self._slow[subscriber]

    async def _do(self, job: Job) -> bool:
        """Send one batch in order; returns True if a part of it failed."""
        frames = list(job.frames)
        misses: list[tuple[int, Miss]] = []
        for part in job.parts:
            found, problems = await self._ask(job.subscription, part)
            try:
                frames += part.frames(found)
            except Exception as exc:
                logger.exception("changes of %r could not be encoded", part.name)
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
        """Returns the deliveries of a part for a channel, and the changes that fail for it."""
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

        # This comes before the filters, because the failure or the time of a filter reveals
        # something about the row.
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
        """Evaluate conditions for rows; one that raises an error for a row does not hold there."""
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
