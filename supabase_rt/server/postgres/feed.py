"""The change feed of a real database: from its WAL to the channels (section 9)."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

import msgspec
import psycopg

from ...printable import get_logger
from ..activity import Activity, Happening
from ..changes import UNABLE, Binding, SubscribeFailed, Subscriber
from ..filters import Condition
from .catalog import Shape, published, read_shape
from .claims import role_problem
from .conditions import check_binding
from .connections import Line
from .images import Image, RowChange
from .problems import DatabaseProblem
from .render import Evaluated, Rendered, encode, evaluate
from .settled import settled
from .visibility import Delivery, Subscription, conditions_of, deliveries, visible_rows

__all__ = ["DatabaseFeed"]

logger: Final = get_logger("supabase_rt.server")

Spawn = Callable[[Coroutine[Any, Any, None], str], None]
# Where the WAL is now: what was committed before is not for a new subscription.
POSITION = "select (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint"


class DatabaseFeed:
    """Subscriptions, and the changes told to them.

    Takes the place of the ``ChangeFeed`` that is published to from Python. ``spawn`` starts and
    owns a task for a subscription that is being checked.
    """

    def __init__(
        self,
        line: Line,
        spawn: Spawn,
        *,
        publication: str,
        max_record_bytes: int = 1_048_576,
        activity: Activity | None = None,
    ) -> None:
        self._activity = activity or Activity()
        self._line = line
        self._spawn = spawn
        self._publication = publication
        self._max_bytes = max_record_bytes
        self._subscriptions: dict[Subscriber, Subscription] = {}
        self._attempts: dict[Subscriber, object] = {}

    # -- subscriptions -----------------------------------------------------------------

    def subscribe(
        self,
        subscriber: Subscriber,
        entries: Sequence[Mapping[str, Any]],
        done: Callable[[str | None], None],
    ) -> None:
        """Subscribe to all entries or none; ``done`` gets the error text, or None."""
        try:
            bindings = tuple(Binding.read(entry) for entry in entries)
        except SubscribeFailed as exc:
            self.unsubscribe(subscriber)
            done(str(exc))
            return
        attempt = self._attempts[subscriber] = object()
        task = self._subscribe(subscriber, bindings, attempt, done)
        self._spawn(task, "subscription")

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """Forget a channel, known or not."""
        self._subscriptions.pop(subscriber, None)
        self._attempts.pop(subscriber, None)

    async def _subscribe(
        self,
        subscriber: Subscriber,
        bindings: tuple[Binding, ...],
        attempt: object,
        done: Callable[[str | None], None],
    ) -> None:
        claims = dict(subscriber.change_claims())
        role = str(claims["role"])
        problem: str | None = None
        since = 0
        try:
            async with self._line.use() as conn:
                for binding in bindings:
                    await self._check(conn, binding, role)
                row = await (await conn.execute(POSITION)).fetchone()
                since = row[0] if row else 0
        except SubscribeFailed as exc:
            problem = str(exc)
        except (psycopg.Error, DatabaseProblem) as exc:
            logger.warning("a subscription failed: %s", exc)
            problem = '{:error, "Too many database timeouts"}'
        # Meanwhile the channel may have left, or subscribed anew with another token.
        if self._attempts.get(subscriber) is not attempt:
            return
        del self._attempts[subscriber]
        before = self._subscriptions.pop(subscriber, None)
        if problem is None:
            # With a new token it goes on where it was: nothing is missed in between.
            since = since if before is None else before.since
            found = Subscription(subscriber, role, claims, bindings, since)
            self._subscriptions[subscriber] = found
        done(problem)

    async def _check(self, conn: psycopg.AsyncConnection, binding: Binding, role: str) -> None:
        """Hold a binding against the tables of the publication; raises ``SubscribeFailed``."""
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

    async def tell(self, changes: Sequence[RowChange]) -> None:
        """Tell of committed changes, in order.

        Each table costs a few statements, however many changes and channels there are, and one
        more for each token where row level security has to be asked. Raises
        ``psycopg.OperationalError`` or ``DatabaseProblem`` where the database is away.
        """
        frames: list[tuple[int, Callable[[], None]]] = []
        tables: dict[int, list[int]] = {}
        for nth, change in enumerate(changes):
            tables.setdefault(change.relation.oid, []).append(nth)
        for oid, numbers in tables.items():
            mine = [changes[nth] for nth in numbers]
            try:
                found = await self._tell_table(oid, mine)
            except (psycopg.OperationalError, DatabaseProblem):
                raise
            except Exception:
                # A column that changed its type under a filter, for instance.
                name = f"{mine[0].relation.schema}.{mine[0].relation.name}"
                logger.exception("changes of %s could not be told", name)
            else:
                frames += [(numbers[nth], send) for nth, send in found]
        for _, send in sorted(frames, key=lambda frame: frame[0]):
            send()
        if self._activity.watched:
            self._show(changes)

    def _show(self, changes: Sequence[RowChange]) -> None:
        for each in changes:
            name, row = f"{each.relation.schema}.{each.relation.name}", each.new or each.old
            self._activity.tell(Happening("change", None, name, each.type, content=row))

    async def _tell_table(
        self, oid: int, changes: Sequence[RowChange]
    ) -> list[tuple[int, Callable[[], None]]]:
        relation = changes[0].relation
        concerned = [
            subscription
            for subscription in self._subscriptions.values()
            if subscription.covering(relation.schema, relation.name)
        ]
        if not concerned:
            return []
        async with self._line.use() as conn:
            await settled(conn, (change.transaction for change in changes))
            shape = await read_shape(conn, oid, {each.role for each in concerned})
            if shape is None:
                return []
            conditions = conditions_of(concerned, shape.schema, shape.name)
            rows = await self._evaluate(conn, shape, changes, conditions)
            looked_at = [old if new is None else new for new, old in rows]
            assert all(looked_at)
            found = deliveries(shape, changes, [row for row in looked_at if row], concerned)
            if shape.protected:
                found = await self._allowed(conn, shape, changes, found)
        return self._frames(shape, changes, rows, found)

    async def _evaluate(
        self,
        conn: psycopg.AsyncConnection,
        shape: Shape,
        changes: Sequence[RowChange],
        conditions: Sequence[Any],
    ) -> list[tuple[Evaluated | None, Evaluated | None]]:
        """The new and the old row of each change."""
        images = [image for change in changes for image in (change.new, change.old)]
        present = [image for image in images if image is not None]
        try:
            found = await evaluate(conn, shape, present, conditions)
        except psycopg.OperationalError:
            raise
        except psycopg.Error:
            working = [each for each in conditions if await _works(conn, shape, present, each)]
            found = await evaluate(conn, shape, present, working)
        evaluated = iter(found)
        flat = [None if image is None else next(evaluated) for image in images]
        return list(zip(flat[::2], flat[1::2], strict=True))

    async def _allowed(
        self,
        conn: psycopg.AsyncConnection,
        shape: Shape,
        changes: Sequence[RowChange],
        found: Sequence[Delivery],
    ) -> list[Delivery]:
        """The deliveries that row level security lets through; a DELETE always passes."""
        asked: dict[str, dict[int, RowChange]] = {}
        texts = {each.subscription: json.dumps(each.subscription.claims) for each in found}
        for each in found:
            if changes[each.nth].new is not None:
                asked.setdefault(texts[each.subscription], {})[each.nth] = changes[each.nth]
        seen: dict[str, set[int]] = {}
        for text, wanted in asked.items():
            seen[text] = await self._ask(conn, shape, json.loads(text), wanted)
        return [
            each
            for each in found
            if changes[each.nth].new is None or each.nth in seen[texts[each.subscription]]
        ]

    async def _ask(
        self,
        conn: psycopg.AsyncConnection,
        shape: Shape,
        claims: Mapping[str, Any],
        wanted: Mapping[int, RowChange],
    ) -> set[int]:
        if not shape.key or not all(claims["role"] in field.readers for field in shape.key):
            # These get the error instead of the row, which there is nothing to protect in.
            return set(wanted)
        try:
            return await visible_rows(conn, shape, claims, wanted)
        except psycopg.OperationalError:
            raise
        except psycopg.Error as exc:
            logger.warning("a policy on %s.%s failed: %s", shape.schema, shape.name, exc)
            return set()

    def _frames(
        self,
        shape: Shape,
        changes: Sequence[RowChange],
        rows: Sequence[tuple[Evaluated | None, Evaluated | None]],
        found: Sequence[Delivery],
    ) -> list[tuple[int, Callable[[], None]]]:
        encoded: dict[tuple[int, str, tuple[str, ...] | None], msgspec.Raw] = {}
        frames: list[tuple[int, Callable[[], None]]] = []
        for each in found:
            for select, ids in each.groups.items():
                key = (each.nth, each.subscription.role, select)
                if key not in encoded:
                    encoded[key] = encode(
                        shape,
                        changes[each.nth],
                        _values(rows[each.nth]),
                        each.subscription.role,
                        select,
                        max_bytes=self._max_bytes,
                    )
                send = self._sender(each.subscription, changes[each.nth].type, ids, encoded[key])
                frames.append((each.nth, send))
        return frames

    def _sender(
        self, subscription: Subscription, kind: str, ids: Sequence[int], data: msgspec.Raw
    ) -> Callable[[], None]:
        def send() -> None:
            # It may have left while the database was asked.
            if subscription.subscriber in self._subscriptions:
                subscription.subscriber.deliver_change(kind, ids, data)

        return send


async def _works(
    conn: psycopg.AsyncConnection, shape: Shape, images: Sequence[Image], condition: Condition
) -> bool:
    """Whether a filter bears these rows; one that does not costs its channel the changes only."""
    try:
        await evaluate(conn, shape, images, [condition])
    except psycopg.OperationalError:
        raise
    except psycopg.Error as exc:
        name = f"{shape.schema}.{shape.name}"
        logger.warning("the filter %s on %s failed: %s", condition.shown(), name, exc)
        return False
    return True


def _values(
    row: tuple[Evaluated | None, Evaluated | None],
) -> tuple[Rendered | None, Rendered | None]:
    new, old = row
    return new.values if new else None, old.values if old else None
