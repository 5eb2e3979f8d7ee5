"""The change feed of a real database: it sends changes from the WAL to the channels.

See docs/protocol.md#9-database-changes.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import psycopg

from ..._printable import get_logger
from .._tables.change_feed import UNABLE, ServerBinding, SubscribeFailed, Subscriber
from ..activity import Activity, Happening
from .errors import DatabaseProblem
from .piecewise import piecewise
from .pool import ConnectionEnded, Pool
from .queries.catalog import Shape, published, read_shape
from .queries.change_rendering import Evaluated, evaluate
from .queries.claims import role_problem
from .queries.filter_sql import check_binding, explain
from .queries.visibility import (
    Delivery,
    Subscription,
    conditions_of,
    deliveries,
    needs_asking,
    visible_rows,
)
from .replication.commit_visibility import settled
from .replication.row_changes import RowChange
from .replication.slow_channels import Job, SlowChannels, Spawn
from .replication.table_batch import ChangeFrame, Miss, Part, image_for

__all__ = ["DatabaseFeed"]

logger: Final = get_logger("supabase_rt.server")

# The position of the WAL now; a new subscription gets no change committed before.
POSITION = "select (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint"
TIMEOUTS = '{:error, "Too many database timeouts"}'
SETTLING = 10.0
"""Seconds to wait for a commit to become visible; it takes one second at most."""
MOST_TOGETHER = 100
"""A channel with more conditions on one table is handled as a slow channel."""
MOST_SLOW = 2
"""After this many tokens that take too long, the rest of a batch is handled as slow channels."""

LOOKS = 10
GONE = "ERROR 42P01 (undefined_table)"

Rows = list[tuple[Evaluated | None, Evaluated | None]]


class DatabaseFeed:
    """The subscriptions to a database, and the sending of its changes.

    It replaces ``ChangeFeed``, which Python code publishes to. Normally one query serves all
    channels together; on ``shared`` each statement may take ``quick`` seconds. A channel that
    fails or takes longer becomes a slow channel: it is handled alone, on the connections of
    ``apart``, with ``timeout`` seconds. Subscriptions are checked on ``checks``. ``spawn``
    starts a task and owns it.
    """

    def __init__(
        self,
        shared: Pool,
        apart: Pool,
        checks: Pool,
        spawn: Spawn,
        *,
        publication: str,
        quick: float,
        timeout: float,
        max_record_bytes: int = 1_048_576,
        activity: Activity | None = None,
    ) -> None:
        self._activity = activity or Activity()
        self._shared = shared
        self._apart = apart
        self._checks = checks
        self._spawn = spawn
        self._publication = publication
        self._timeout = timeout
        self._max_bytes = max_record_bytes
        self._subscriptions: dict[Subscriber, Subscription] = {}
        self._attempts: dict[Subscriber, asyncio.Task[None]] = {}
        self._slow = SlowChannels(
            apart, spawn, self._send, self._miss, quick=quick, timeout=timeout
        )
        self.missed: int = 0
        """The number of changes that could not be sent, counted for each channel."""

    # -- subscriptions -----------------------------------------------------------------

    def subscribe(
        self,
        subscriber: Subscriber,
        entries: Sequence[Mapping[str, Any]],
        done: Callable[[str | None], None],
    ) -> None:
        """Subscribe to all entries or none; ``done`` gets the error text, or None."""
        try:
            bindings = tuple(ServerBinding.read(entry) for entry in entries)
        except SubscribeFailed as exc:
            self.unsubscribe(subscriber)
            done(str(exc))
            return
        self._end_attempt(subscriber)
        work = self._subscribe(subscriber, bindings, done)
        self._attempts[subscriber] = self._spawn(work, "subscription")

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """Forget a channel and cancel its tasks; an unknown one is ignored."""
        self._subscriptions.pop(subscriber, None)
        self._end_attempt(subscriber)
        self._slow.drop(subscriber)

    def _end_attempt(self, subscriber: Subscriber) -> None:
        attempt = self._attempts.pop(subscriber, None)
        if attempt is not None:
            attempt.cancel()

    async def _subscribe(
        self,
        subscriber: Subscriber,
        bindings: tuple[ServerBinding, ...],
        done: Callable[[str | None], None],
    ) -> None:
        problem: str | None = None
        found: Subscription | None = None
        try:
            found = await self._checked(subscriber, bindings)
        except SubscribeFailed as exc:
            problem = str(exc)
        except (DatabaseProblem, psycopg.errors.QueryCanceled, ConnectionEnded) as exc:
            logger.warning("a subscription failed: %r", str(exc))
            problem = TIMEOUTS
        except Exception as exc:
            # For instance claims or names that cannot be encoded.
            if not isinstance(exc, psycopg.Error | UnicodeError):
                logger.exception("a subscription failed")
            problem = f"{UNABLE}Exception: {explain(exc)}"
        # Meanwhile the channel may have left, or subscribed again with another token.
        if self._attempts.get(subscriber) is not asyncio.current_task():
            return
        del self._attempts[subscriber]
        before = self._subscriptions.pop(subscriber, None)
        if found is not None:
            if before is not None:
                # With a new token the channel keeps its start, so that no change is missed.
                found = dataclasses.replace(found, since=before.since)
            self._subscriptions[subscriber] = found
        done(problem)

    async def _checked(
        self, subscriber: Subscriber, bindings: tuple[ServerBinding, ...]
    ) -> Subscription:
        claims = dict(subscriber.change_claims())
        role, key = str(claims["role"]), json.dumps(claims)

        async def check(conn: psycopg.AsyncConnection) -> int:
            for binding in bindings:
                await self._check(conn, binding, role)
            row = await (await conn.execute(POSITION)).fetchone()
            return int(row[0]) if row else 0

        since = await self._checks.run(check, subscriber.connection)
        return Subscription(subscriber, role, claims, key, bindings, since)

    async def _check(
        self, conn: psycopg.AsyncConnection, binding: ServerBinding, role: str
    ) -> None:
        """Check a binding against the tables of the publication; raises ``SubscribeFailed``."""
        try:
            oids = await published(conn, self._publication, binding.schema, binding.table)
        except (psycopg.DataError, UnicodeError):
            # No table has such a name.
            oids = []
        if not oids:
            raise SubscribeFailed(
                f"{UNABLE}Please check Realtime is enabled for the given connect parameters: "
                f"{binding.shown()}"
            )
        problem = await role_problem(conn, role)
        for oid in oids if binding.conditions or binding.select else ():
            shape = await read_shape(conn, oid, [role])
            if shape is not None and problem is None:
                problem = await check_binding(conn, shape, role, binding.conditions, binding.select)
        if problem is not None:
            raise SubscribeFailed(
                f"{UNABLE}An exception happened so please check your connect parameters: "
                f"{binding.shown()}. Exception: {problem}"
            )

    # -- changes -----------------------------------------------------------------------

    async def deliver(self, changes: Sequence[RowChange]) -> None:
        """Send committed changes to the channels, in order.

        Each table costs a few statements, for any number of changes and channels. With row level
        security each token costs one more. Raises ``DatabaseProblem`` if the database is away; then
        nothing has been sent.
        """
        ready: list[ChangeFrame] = []
        late: dict[Subscriber, Job] = {}
        failed: list[Miss] = []
        tables: dict[int, list[int]] = {}
        for nth, change in enumerate(changes):
            tables.setdefault(change.relation.oid, []).append(nth)
        for oid, numbers in tables.items():
            mine = [changes[nth] for nth in numbers]
            try:
                ready += await self._deliver_table(oid, mine, numbers, late, failed)
            except DatabaseProblem:
                raise
            except Exception as exc:
                if not isinstance(exc, psycopg.Error):
                    logger.exception("changes of %r could not be sent", _name(mine[0]))
                failed += self._all_concerned(mine, exc)
        for miss in failed:
            self._miss(miss)
        for frame in sorted(ready, key=lambda frame: frame.number):
            job = late.get(frame.subscription.subscriber)
            if job is None:
                self._send(frame)
            else:
                # To keep the order, it waits for the rest of this channel's batch.
                job.frames.append(frame)
        for subscriber, job in late.items():
            if subscriber in self._subscriptions:
                self._slow.add(job)
        if self._activity.watched:
            self._show(changes)

    def skip(self, changes: Sequence[RowChange], problem: str) -> None:
        """Report these changes as missed to all channels that would get them."""
        tables: dict[int, list[RowChange]] = {}
        for change in changes:
            tables.setdefault(change.relation.oid, []).append(change)
        for mine in tables.values():
            for missed in self._all_concerned(mine, problem):
                self._miss(missed)

    def _all_concerned(self, changes: Sequence[RowChange], problem: Exception | str) -> list[Miss]:
        name = _name(changes[0])
        return [Miss(each, len(changes), name, problem) for each in self._concerned(changes)]

    def _concerned(self, changes: Sequence[RowChange]) -> list[Subscription]:
        relation, newest = changes[0].relation, changes[-1].commit_lsn
        return [
            subscription
            for subscription in self._subscriptions.values()
            if newest >= subscription.since
            and subscription.covering(relation.schema, relation.name)
        ]

    def _show(self, changes: Sequence[RowChange]) -> None:
        for each in changes:
            row = each.new or each.old
            self._activity.report(Happening("change", None, _name(each), each.type, content=row))

    async def _deliver_table(
        self,
        oid: int,
        changes: Sequence[RowChange],
        numbers: Sequence[int],
        late: dict[Subscriber, Job],
        failed: list[Miss],
    ) -> list[ChangeFrame]:
        """Returns the frames for channels served together; adds the others' jobs to ``late``."""
        concerned = self._concerned(changes)
        if not concerned:
            return []
        shape = await self._look_up(oid, changes, {each.role for each in concerned})
        if shape is None:
            failed += self._all_concerned(changes, GONE)
            return []
        apart = {each for each in concerned if self._is_apart(each, shape)}
        together = [each for each in concerned if each not in apart]
        conditions = conditions_of(together, shape.schema, shape.name)
        part = Part(shape, changes, numbers, [], self._max_bytes)
        try:
            part.rows = await self._rows(self._shared, part, range(len(changes)), conditions)
        except DatabaseProblem:
            raise
        except Exception:
            # The filter of one channel may be the cause, so all channels with filters go apart.
            apart.update(
                each for each in together if conditions_of([each], shape.schema, shape.name)
            )
            together = [each for each in together if each not in apart]
            problems = await self._show_all(part)
            if problems:
                problem = next(iter(problems.values()))
                failed += [Miss(each, len(problems), part.name, problem) for each in concerned]
        found = deliveries(shape, changes, part.filter_rows(), together)
        if shape.protected:
            found, others = await self._allowed(part, found, failed)
            apart |= others
        for subscription in apart:
            job = late.setdefault(subscription.subscriber, Job(subscription))
            job.parts.append(part)
        return part.frames(found)

    def _is_apart(self, subscription: Subscription, shape: Shape) -> bool:
        covering = subscription.covering(shape.schema, shape.name)
        count = sum(len(binding.conditions) for binding in covering)
        return count > MOST_TOGETHER or self._slow.holds(subscription.subscriber)

    async def _look_up(
        self, oid: int, changes: Sequence[RowChange], roles: set[str]
    ) -> Shape | None:
        """Returns the table as it is after these changes; None if it is gone."""

        async def look(conn: psycopg.AsyncConnection) -> Shape | None:
            await settled(conn, (change.transaction for change in changes))
            return await read_shape(conn, oid, roles)

        for _ in range(LOOKS):
            # No client can slow these statements down, so a busy database gets more time.
            with contextlib.suppress(psycopg.errors.QueryCanceled):
                return await self._shared.run(look, limit=SETTLING)
        raise DatabaseProblem("the database does not answer in time")

    async def _rows(
        self, pool: Pool, part: Part, numbers: Sequence[int], conditions: Sequence[Any]
    ) -> Rows:
        """Returns the new and the old row of some changes."""
        images = [
            image_for(part.shape, part.changes[nth], image, conditions, self._max_bytes)
            for nth in numbers
            for image in (part.changes[nth].new, part.changes[nth].old)
        ]
        present = [image for image in images if image is not None]
        found = await pool.run(lambda conn: evaluate(conn, part.shape, present, conditions))
        evaluated = iter(found)
        flat = [None if image is None else next(evaluated) for image in images]
        return list(zip(flat[::2], flat[1::2], strict=True))

    async def _show_all(self, part: Part) -> dict[int, Exception]:
        """Read the rows of a part without filters; returns the errors of rows that fail."""

        async def show(numbers: Sequence[int]) -> dict[int, Any]:
            rows = await self._rows(self._apart, part, numbers, ())
            return dict(zip(numbers, rows, strict=True))

        numbers = range(len(part.changes))
        end = asyncio.get_running_loop().time() + self._timeout
        shown, problems = await piecewise(show, numbers, end)
        part.rows = [shown.get(nth, (None, None)) for nth in numbers]
        return problems

    async def _allowed(
        self,
        part: Part,
        found: Sequence[Delivery],
        failed: list[Miss],
    ) -> tuple[list[Delivery], set[Subscription]]:
        """Returns the deliveries that row level security allows, and the slow subscriptions."""
        asked: dict[str, dict[int, RowChange]] = {}
        tokens: dict[str, Subscription] = {}
        for each in found:
            subscription, change = each.subscription, part.changes[each.nth]
            if needs_asking(part.shape, change, subscription.role):
                asked.setdefault(subscription.key, {})[each.nth] = change
                tokens[subscription.key] = subscription
        seen: dict[str, set[int]] = {}
        problems: dict[str, Exception] = {}
        slow = 0
        for key, wanted in asked.items():
            if slow >= MOST_SLOW:
                break
            try:
                seen[key] = await self._see(part.shape, tokens[key], wanted)
            except DatabaseProblem:
                raise
            except (psycopg.errors.QueryCanceled, ConnectionEnded):
                slow += 1
            except Exception as exc:
                # With several changes, one may be the cause; the slow path finds out which.
                if len(wanted) == 1:
                    seen[key], problems[key] = set(), exc
        apart, refused, allowed = set(), set(), []
        for each in found:
            subscription = each.subscription
            if subscription.key in asked and subscription.key not in seen:
                apart.add(subscription)
            elif not needs_asking(part.shape, part.changes[each.nth], subscription.role):
                allowed.append(each)
            elif subscription.key in problems:
                refused.add(subscription)
            elif each.nth in seen[subscription.key]:
                allowed.append(each)
        failed += [Miss(each, 1, part.name, problems[each.key]) for each in refused]
        return allowed, apart

    async def _see(
        self, shape: Shape, subscription: Subscription, wanted: Mapping[int, RowChange]
    ) -> set[int]:
        claims = subscription.claims
        return await self._shared.run(lambda conn: visible_rows(conn, shape, claims, wanted))

    # -- sending -----------------------------------------------------------------------

    def _send(self, frame: ChangeFrame) -> None:
        # The channel may have left during the query.
        subscriber = frame.subscription.subscriber
        if subscriber not in self._subscriptions:
            return
        try:
            subscriber.deliver_change(frame.kind, frame.ids, frame.data)
        except Exception:
            # A failure of one channel must not affect the next one.
            logger.exception("a change could not be sent to socket %s", subscriber.connection)

    def _miss(self, miss: Miss) -> None:
        subscriber = miss.subscription.subscriber
        if subscriber not in self._subscriptions:
            return
        before, self.missed = self.missed, self.missed + miss.changes
        if not before or len(str(before)) != len(str(self.missed)):
            # Logged at powers of ten only, so that a client cannot fill the log.
            logger.warning(
                "%d changes in all could not be sent; socket %s: %r",
                self.missed,
                subscriber.connection,
                miss.log_text(),
            )
        try:
            subscriber.changes_missed(miss.public_text())
        except Exception:
            logger.exception(
                "missed changes could not be reported to socket %s", subscriber.connection
            )


def _name(change: RowChange) -> str:
    return f"{change.relation.schema}.{change.relation.name}"
