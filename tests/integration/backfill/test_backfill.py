"""``on(..., backfill=Backfill(...))`` against a server: missed rows are read and handled."""

from __future__ import annotations

import asyncio
import datetime
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from supabase_rt import (
    Backfill,
    PostgresChange,
    RealtimeChannel,
    RealtimeClient,
    RealtimeError,
    SqliteStore,
    TimedOut,
    postgres_changes_filter,
)
from supabase_rt.server import LocalRealtime

from ...support.clients import MakeClient
from ...support.recorder import ClientEvents
from ...support.waiting import our_tasks, until

NOTHING: Any = 5
INSERTS = {"event": "INSERT", "schema": "public", "table": "messages"}
ALL = {**INSERTS, "event": "*"}


class Seen:
    """A handler that records the numbers of rows, and which rows were read."""

    def __init__(self) -> None:
        self.changes: list[PostgresChange] = []

    async def __call__(self, change: PostgresChange) -> None:
        await asyncio.sleep(0)
        self.changes.append(change)

    @property
    def numbers(self) -> list[int]:
        return [change.new["id"] for change in self.changes]

    @property
    def backfilled(self) -> list[int]:
        return [change.new["id"] for change in self.changes if change.backfilled]


@pytest.fixture
def messages(server: LocalRealtime) -> LocalRealtime:
    server.table("messages", {"id": "int8", "text": "text", "at": "timestamptz"})
    return server


def write(server: LocalRealtime, *numbers: int) -> None:
    for number in numbers:
        server.insert("messages", {"id": number, "text": f"no. {number}"})


async def listen(
    client: RealtimeClient, handler: Any, filter: Any = INSERTS, **options: Any
) -> RealtimeChannel:
    """Returns a channel whose changes flow, with a handler that has a backfill."""
    options = {"backfill": Backfill("id"), **options}
    channel = client.channel("room").on("postgres_changes", filter, handler, **options)
    return await flowing(channel)


async def flowing(channel: RealtimeChannel) -> RealtimeChannel:
    await channel.subscribe()
    await channel.ready()
    return channel


@asynccontextmanager
async def away(server: LocalRealtime, channel: RealtimeChannel) -> AsyncIterator[None]:
    """Cuts the link, and keeps the client from reconnecting inside the block."""
    server.faults.refuse(503)
    server.faults.cut()
    await until(lambda: channel.state == "errored")
    yield
    server.faults.refuse(None)


async def test_a_change_in_an_unreadable_frame_is_read_from_the_table(
    messages: LocalRealtime, client: RealtimeClient
) -> None:
    seen = Seen()
    await listen(client, seen)
    messages.faults.drop_next("postgres_changes")
    write(messages, 1)
    messages.faults.send_raw('[null,null,"realtime:room","postgres_changes",{"ids":1}]')
    await until(lambda: seen.backfilled == [1])
    messages.faults.corrupt_next("postgres_changes")
    write(messages, 2)
    await until(lambda: seen.numbers == [1, 2])


async def test_missed_rows_are_read_in_order_and_marked(
    messages: LocalRealtime, client: RealtimeClient
) -> None:
    seen = Seen()
    write(messages, 1, 2)
    channel = await listen(client, seen)
    write(messages, 3, 4)
    await until(lambda: seen.numbers == [3, 4])
    async with away(messages, channel):
        write(messages, 5, 6, 7)
    await until(lambda: len(seen.changes) == 5)
    write(messages, 8)
    await until(lambda: seen.numbers == [3, 4, 5, 6, 7, 8])
    assert seen.backfilled[:3] == [5, 6, 7]
    found, live = seen.changes[2], seen.changes[0]
    assert (found.event_type, found.schema, found.table) == ("INSERT", "public", "messages")
    assert found.new == {"id": 5, "text": "no. 5", "at": None}
    assert (found.old, found.errors, found.commit_timestamp) == ({}, None, None)
    assert not live.backfilled


@pytest.mark.parametrize("kind", ["plain", "async", "thread"])
async def test_every_kind_of_handler_is_called_in_order(
    messages: LocalRealtime, client: RealtimeClient, kind: str
) -> None:
    seen: list[int] = []

    def plain(change: PostgresChange) -> None:
        seen.append(change.new["id"])

    async def slow(change: PostgresChange) -> None:
        await asyncio.sleep(0)
        seen.append(change.new["id"])

    handler = slow if kind == "async" else plain
    channel = await listen(client, handler, thread=kind == "thread")
    write(messages, 1)
    async with away(messages, channel):
        write(messages, 2, 3)
    await flowing(channel)
    write(messages, 4)
    await until(lambda: len(seen) == 4)
    assert seen == [1, 2, 3, 4]


async def test_more_than_a_page_is_read_and_live_changes_follow(
    messages: LocalRealtime, client: RealtimeClient
) -> None:
    seen = Seen()
    channel = await listen(client, seen)
    async with away(messages, channel):
        write(messages, *range(1, 1301))
    await until(lambda: len(seen.changes) > 10)
    write(messages, *range(1301, 1321))
    await until(lambda: len(seen.changes) == 1320)
    assert seen.numbers == list(range(1, 1321))


async def test_rows_that_a_full_queue_drops_are_read_later(
    messages: LocalRealtime, client: RealtimeClient
) -> None:
    seen, events = Seen(), ClientEvents(client)
    await listen(client, seen, maxsize=3)
    write(messages, *range(1, 201))
    await until(lambda: len(seen.changes) == 200)
    assert seen.numbers == list(range(1, 201))
    assert client.health().dropped_events > 0
    assert {gap[3] for gap in events.of("gap")} == {"overflow"}


async def test_a_backfill_that_closes_on_overflow_ends_with_an_error(
    messages: LocalRealtime, client: RealtimeClient
) -> None:
    seen, events = Seen(), ClientEvents(client)
    await listen(client, seen, maxsize=3, overflow="close")
    write(messages, *range(1, 201))
    await until(lambda: [getattr(error, "code", "") for error in events.errors] == ["Overflow"])


async def test_a_handler_that_raised_gets_the_row_again(
    messages: LocalRealtime, client: RealtimeClient
) -> None:
    tries: list[int] = []

    async def handler(change: PostgresChange) -> None:
        tries.append(change.new["id"])
        if tries == [1, 2]:
            raise RuntimeError("not now")

    events = ClientEvents(client)
    await listen(client, handler)
    write(messages, 1, 2, 3)
    await until(lambda: len(tries) == 3)
    messages.faults.cut()
    await until(lambda: len(tries) == 4)
    assert tries == [1, 2, 3, 2]
    assert [str(error) for error in events.errors] == ["not now"]


async def test_a_row_that_is_read_is_typed_as_one_that_came_live(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    @dataclass
    class Price:
        id: int
        amount: Decimal
        at: datetime.datetime

    server.table("prices", {"id": "int8", "amount": "numeric", "at": "timestamptz"})
    at, amount = "2026-01-02T03:04:05+00:00", Decimal("123456789.12345678901234567890")
    models: list[PostgresChange[Price]] = []
    dicts: list[PostgresChange] = []
    prices, backfill = {**INSERTS, "table": "prices"}, Backfill("id")
    channel = client.channel("room")
    channel.on("postgres_changes", prices, models.append, backfill=backfill, model=Price)
    channel.on("postgres_changes", prices, dicts.append, backfill=backfill, types="python")
    await flowing(channel)
    server.insert("prices", {"id": 1, "amount": amount, "at": at})
    await until(lambda: len(models) == len(dicts) == 1)
    async with away(server, channel):
        server.insert("prices", {"id": 2, "amount": amount, "at": at})
    await until(lambda: len(models) == len(dicts) == 2)
    assert [change.backfilled for change in models] == [False, True]
    moment = datetime.datetime.fromisoformat(at)
    assert [change.new for change in models] == [Price(n, amount, moment) for n in (1, 2)]
    assert [change.new["amount"] for change in dicts] == [amount, amount]


async def test_with_a_store_a_new_process_goes_on_where_the_old_one_was(
    messages: LocalRealtime, make_client: MakeClient, tmp_path: Path
) -> None:
    store = SqliteStore(tmp_path / "handled.db")

    async def live(seen: Seen, *numbers: int, expected: list[int]) -> None:
        client = make_client()
        await listen(client, seen, backfill=Backfill("id", store=store), types="python")
        write(messages, *numbers)
        await until(lambda: seen.numbers == expected)
        await client.disconnect()

    moment = "2026-01-01T00:00:00+00:00"
    first, second, third = Seen(), Seen(), Seen()
    write(messages, 1)
    await live(first, 2, 3, expected=[2, 3])
    write(messages, 4)
    messages.insert("messages", {"id": 5, "at": moment})
    await live(second, 6, expected=[4, 5, 6])
    assert second.backfilled[:2] == [4, 5]
    # The store keeps the types of the columns too.
    assert second.changes[1].new["at"].isoformat() == moment
    await live(third, 7, expected=[7])
    store.close()


async def test_deletes_while_the_program_was_away_are_told_as_a_gap(
    messages: LocalRealtime, make_client: MakeClient, tmp_path: Path
) -> None:
    store, seen = SqliteStore(tmp_path / "handled.db"), Seen()

    async def live(number: int, gaps: int) -> list[Any]:
        client = make_client()
        events = ClientEvents(client)
        await listen(client, seen, ALL, backfill=Backfill("id", store=store))
        write(messages, number)
        await until(lambda: number in seen.numbers)
        found = await events.some("gap", gaps)
        await client.disconnect()
        return found

    assert await live(1, gaps=0) == []
    before = time.time()
    messages.delete("messages", {"id": 1})
    ((topic, since, until_, reason),) = await live(2, gaps=1)
    assert (topic, reason) == ("realtime:room", "updates_deletes")
    assert since <= before <= until_
    store.close()


async def test_two_equal_handlers_have_progress_of_their_own(
    messages: LocalRealtime, make_client: MakeClient, tmp_path: Path
) -> None:
    store = SqliteStore(tmp_path / "handled.db")
    seen = [Seen(), Seen()]
    for numbers in ((1,), (2,)):
        client = make_client()
        channel = client.channel("room")
        for each in seen:
            channel.on("postgres_changes", INSERTS, each, backfill=Backfill("id", store=store))
        await flowing(channel)
        write(messages, *numbers)
        await until(lambda: all(each.numbers[-1:] == list(numbers) for each in seen))  # noqa: B023
        await client.disconnect()
    assert [each.numbers for each in seen] == [[1, 2], [1, 2]]
    store.close()


async def test_filter_schema_and_columns_are_carried_over(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    server.table("things", {"id": "int8", "kind": "text", "rest": "text"}, schema="mine")
    seen = Seen()
    binding = {
        "event": "INSERT",
        "schema": "mine",
        "table": "things",
        "filter": 'kind=eq."a,b"',
        "select": ["kind"],
    }
    channel = await listen(client, seen, binding)
    async with away(server, channel):
        for number, kind in enumerate(("a,b", "a", "b", "a,b"), 1):
            server.insert("things", {"id": number, "kind": kind, "rest": "x"}, schema="mine")
    await until(lambda: seen.numbers == [1, 4])
    assert seen.changes[0].new == {"id": 1, "kind": "a,b"}


@pytest.mark.parametrize("name", ["order", "limit", "offset", "select", "and", "or", "apikey"])
async def test_a_filter_on_a_column_with_the_name_of_an_option_is_carried_over(
    server: LocalRealtime, client: RealtimeClient, name: str
) -> None:
    server.table("things", {"id": "int8", name: "int8"})
    seen = Seen()
    binding = {"event": "INSERT", "schema": "public", "table": "things", "filter": f"{name}=gt.1"}
    channel = await listen(client, seen, binding)
    async with away(server, channel):
        for number in range(1, 5):
            server.insert("things", {"id": number, name: number % 3})
    await until(lambda: bool(seen.numbers))
    server.insert("things", {"id": 5, name: 2})
    await until(lambda: seen.numbers == [2, 5])


async def test_a_condition_on_bytes_that_postgrest_reads_differently_is_refused_at_the_call(
    client: RealtimeClient,
) -> None:
    wanted = postgres_changes_filter().in_("by", [b"\xde\xad"])
    binding = {"event": "INSERT", "schema": "public", "table": "things", "filter": wanted}
    channel = client.channel("things")
    with pytest.raises(ValueError, match="cannot carry over the bytes of 'by'"):
        channel.on("postgres_changes", binding, print, backfill=Backfill("id"))
    with pytest.raises(ValueError, match="cannot carry over the bytes of 'by'"):
        channel.stream("postgres_changes", binding, backfill=Backfill("id"))
    channel.on("postgres_changes", binding, print)


async def test_updates_are_read_by_their_time_and_deletes_are_a_gap(
    messages: LocalRealtime, client: RealtimeClient
) -> None:
    seen, events = Seen(), ClientEvents(client)
    write(messages, 1, 2)
    channel = await listen(client, seen, ALL, backfill=Backfill("at"))

    def update(number: int, second: int) -> None:
        new = {"id": number, "text": str(second), "at": f"2026-01-01T00:00:{second:02}+00:00"}
        messages.update("messages", new)

    update(1, 1)
    await until(lambda: len(seen.changes) == 1)
    async with away(messages, channel):
        update(1, 2)
        update(2, 3)
        update(1, 4)
        messages.delete("messages", {"id": 2})
    await until(lambda: len(seen.changes) == 2)
    await events.some("gap", 3)
    update(1, 5)
    await until(lambda: len(seen.changes) == 3)
    assert [change.event_type for change in seen.changes] == ["UPDATE"] * 3
    assert [change.new["text"] for change in seen.changes] == ["1", "4", "5"]
    reasons = [gap[3] for gap in events.of("gap")]
    assert sorted(reasons) == ["deletes", "feed", "lost"]


async def test_a_reading_that_fails_is_reported_and_tried_again(
    messages: LocalRealtime, client: RealtimeClient
) -> None:
    seen, events, calls = Seen(), ClientEvents(client), []

    async def fetch(page: Any) -> list[dict[str, Any]]:
        calls.append(page)
        if len(calls) in (1, 3):
            raise ConnectionError("no database")
        if page.newest:
            return []
        return [] if page.after else [{"id": 1}]

    await listen(client, seen, backfill=Backfill("id", fetch=fetch))
    messages.faults.cut()
    await until(lambda: seen.numbers == [1])
    await until(lambda: len(calls) == 5)
    assert [str(error) for error in events.errors] == ["no database"] * 2
    assert [(page.newest, page.after) for page in calls[1:]] == [
        (True, None),
        (False, None),
        (False, None),
        (False, (1,)),
    ]


async def test_a_final_failure_of_reading_leaves_live_changes_going(
    messages: LocalRealtime, client: RealtimeClient
) -> None:
    seen, events = Seen(), ClientEvents(client)
    channel = client.channel("room")
    channel.on("postgres_changes", INSERTS, seen, backfill=Backfill("nothing"))
    await channel.subscribe()
    with pytest.raises(Exception, match=r"column messages\.nothing does not exist"):
        await channel.ready()
    write(messages, 1)
    await until(lambda: seen.numbers == [1])
    (gap,) = events.of("gap")
    assert (gap[0], gap[3]) == ("realtime:room", "backfill")
    assert len(events.errors) == 1


async def test_a_refused_token_is_asked_for_anew(
    messages: LocalRealtime, make_client: MakeClient
) -> None:
    tokens: list[str] = []

    def token() -> str:
        tokens.append(messages.token(expires_in=3600, number=len(tokens)))
        return tokens[-1]

    seen = Seen()
    client = make_client(access_token=token)
    channel = await listen(client, seen)
    async with away(messages, channel):
        write(messages, 1)
    await until(lambda: seen.numbers == [1])


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Backfill(""), "names of columns"),
        (lambda: Backfill("id", key=()), "names of columns"),
        (lambda: Backfill("id", overlap=(1000, 60.0)), "below 1000"),
        (lambda: Backfill("id", overlap=(-1, 60.0)), "below 1000"),
        (lambda: Backfill("id", overlap=(10, -1.0)), "positive"),
        (lambda: Backfill("id", overlap=NOTHING), "rows, seconds"),
        (lambda: Backfill("id", fetch=NOTHING), "async function"),
        (lambda: Backfill("id", url="x.supabase.co"), "PostgREST"),
    ],
)
def test_a_backfill_that_cannot_work_is_refused_at_once(make: Any, match: str) -> None:
    with pytest.raises((ValueError, TypeError), match=match):
        make()


@pytest.mark.parametrize(
    ("type", "filter", "backfill", "match"),
    [
        ("broadcast", {"event": "*"}, Backfill("id"), "postgres_changes"),
        ("postgres_changes", INSERTS, "id", "Backfill"),
        ("postgres_changes", {"event": "*", "schema": "public"}, Backfill("id"), "one table"),
        ("postgres_changes", {**INSERTS, "event": "DELETE"}, Backfill("id"), "not there"),
        ("postgres_changes", {**INSERTS, "event": "UPDATE"}, Backfill("id"), "updated_at"),
        (
            "postgres_changes",
            {**INSERTS, "filter": "text=like.a*%"},
            Backfill("id"),
            "wildcard",
        ),
    ],
)
def test_a_binding_that_cannot_be_read_is_refused_at_once(
    type: str, filter: Any, backfill: Any, match: str
) -> None:
    client = RealtimeClient("wss://x.supabase.co/realtime/v1", params={"apikey": "key"})
    with pytest.raises((ValueError, TypeError), match=match):
        client.channel("room").on(type, filter, print, backfill=backfill)  # type: ignore[call-overload]


def test_a_backfill_without_the_url_of_the_tables_is_refused() -> None:
    client = RealtimeClient("ws://localhost:4000/socket", params={"apikey": "key"})
    channel = client.channel("room")
    with pytest.raises(ValueError, match="url="):
        channel.on("postgres_changes", INSERTS, print, backfill=Backfill("id"))
    channel.on("postgres_changes", INSERTS, print, backfill=Backfill("id", url="http://x/rest/v1"))


class Unreliable:
    """A store whose first load and first save fail."""

    def __init__(self) -> None:
        self.notes: dict[str, str] = {}
        self.failures = ["load", "save"]

    def _fail(self, what: str) -> None:
        if what in self.failures:
            self.failures.remove(what)
            raise OSError(f"cannot {what}")

    async def load(self, name: str) -> dict[str, str]:
        self._fail("load")
        return dict(self.notes)

    async def save(self, name: str, put: Any, remove: Any) -> None:
        self._fail("save")
        self.notes.update(put)
        for note in remove:
            self.notes.pop(note, None)


async def test_a_store_that_fails_is_reported_and_gets_everything_later(
    messages: LocalRealtime, client: RealtimeClient
) -> None:
    seen, events, store = Seen(), ClientEvents(client), Unreliable()
    await listen(client, seen, backfill=Backfill("id", store=store))
    write(messages, 1, 2)
    await until(lambda: {"[1]", "[2]", "heard"} <= set(store.notes))
    assert seen.numbers == [1, 2]
    assert [str(error) for error in events.errors] == ["cannot load", "cannot save"]


class Hanging(Unreliable):
    """A store that does not answer its first calls."""

    def __init__(self, *calls: str, how: str = "patient") -> None:
        super().__init__()
        self.failures = []
        self.calls = list(calls)
        self.how = how
        self.released = asyncio.Event()

    async def _hang(self, call: str) -> None:
        if call not in self.calls:
            return
        self.calls.remove(call)
        if self.how == "cancelled":
            raise asyncio.CancelledError
        if self.how == "closed":
            raise GeneratorExit
        while not self.released.is_set():
            try:
                await self.released.wait()
            except asyncio.CancelledError:
                if self.how == "patient":
                    raise

    async def load(self, name: str) -> dict[str, str]:
        await self._hang("load")
        return await super().load(name)

    async def save(self, name: str, put: Any, remove: Any) -> None:
        await self._hang("save")
        await super().save(name, put, remove)


@pytest.mark.parametrize("how", ["patient", "stubborn", "cancelled", "closed"])
@pytest.mark.parametrize("call", ["load", "save"])
async def test_a_store_that_hangs_is_reported_and_asked_again(
    messages: LocalRealtime, make_client: MakeClient, call: str, how: str
) -> None:
    client, seen, store = make_client(timeout=0.3), Seen(), Hanging(call, how=how)
    events = ClientEvents(client)
    backfill = Backfill("id", store=store)
    channel = client.channel("room").on("postgres_changes", INSERTS, seen, backfill=backfill)
    try:
        await channel.subscribe()
        await channel.ready(5)
        write(messages, 1, 2)
        await until(lambda: {"[1]", "[2]", "heard"} <= set(store.notes))
    finally:
        store.released.set()
    assert seen.numbers == [1, 2]
    (error,) = events.errors
    assert isinstance(error, RealtimeError)
    hung = how in ("patient", "stubborn")
    assert (error.code, error.retryable) == ("StoreTimedOut" if hung else "StoreFailed", True)
    assert hung == (f"did not {call} the notes" in str(error))


async def test_ready_says_that_it_waits_for_the_store(
    messages: LocalRealtime, make_client: MakeClient
) -> None:
    client, store = make_client(timeout=0.2), Hanging(*["load"] * 9)
    channel = client.channel("room")
    channel.on("postgres_changes", INSERTS, Seen(), backfill=Backfill("id", store=store))
    await channel.subscribe()
    with pytest.raises(TimedOut) as caught:
        await channel.ready(0.6)
    assert isinstance(caught.value.__cause__, TimedOut)
    assert caught.value.__cause__.code == "StoreTimedOut"


@pytest.mark.parametrize("ending", ["disconnect", "unsubscribe", "off"])
async def test_the_end_does_not_wait_for_a_store_that_hangs(
    messages: LocalRealtime, make_client: MakeClient, ending: str
) -> None:
    client, store, seen = make_client(timeout=30.0), Hanging("load"), Seen()
    channel = client.channel("room")
    channel.on("postgres_changes", INSERTS, seen, backfill=Backfill("id", store=store))
    await channel.subscribe()
    await until(lambda: "supabase_rt:store:load" in our_tasks())
    async with asyncio.timeout(2):
        if ending == "disconnect":
            await client.disconnect()
        elif ending == "unsubscribe":
            await channel.unsubscribe()
        else:
            channel.off("postgres_changes", INSERTS, seen)
        await until(lambda: not any("backfill" in name or "store" in name for name in our_tasks()))


async def test_notes_of_another_cursor_are_reported_and_left_alone(
    messages: LocalRealtime, make_client: MakeClient, tmp_path: Path
) -> None:
    store, seen = SqliteStore(tmp_path / "handled.db"), Seen()
    first = make_client()
    await listen(first, seen, backfill=Backfill("id", store=store, name="mine"))
    write(messages, 1)
    await until(lambda: seen.numbers == [1])
    await first.disconnect()
    kept = await store.load("mine")
    second, again = make_client(), Seen()
    events, channel = ClientEvents(second), second.channel("room")
    other = Backfill("at", store=store, name="mine")
    channel.on("postgres_changes", INSERTS, again, backfill=other)
    await channel.subscribe()
    with pytest.raises(RealtimeError, match=r"not those of a backfill by at, id") as caught:
        await channel.ready()
    assert (caught.value.code, caught.value.retryable) == ("StoredNotes", False)
    assert "Backfill(name=...)" in caught.value.hint
    write(messages, 2, 3)
    await until(lambda: again.numbers == [2, 3])
    assert [gap[3] for gap in events.of("gap")] == ["backfill"]
    await second.disconnect()
    assert events.errors == [caught.value]
    assert await store.load("mine") == kept
    store.close()


class Kept(Unreliable):
    """A store with notes of an earlier run."""

    def __init__(self, notes: dict[Any, Any]) -> None:
        super().__init__()
        self.failures = []
        self.notes = notes


DEEP = "[" * 100_000


@pytest.mark.parametrize(
    "note",
    [
        {"nonsense": "1.0"},
        {DEEP: "1.0"},
        {'"7"': "1.0"},
        {'{"x": 7}': "1.0"},
        {"[7]": "nonsense"},
        {"[7]": "inf"},
        {"floor": "nonsense"},
        {"heard": "nan"},
        {"columns": "nonsense"},
        {"columns": DEEP},
        {"[7]": 1.0},
        {b"[7]": "1.0"},
    ],
    ids=lambda note: repr(note)[:24],
)
async def test_a_note_nobody_can_read_is_an_error_with_a_hint(
    messages: LocalRealtime, client: RealtimeClient, note: dict[Any, Any]
) -> None:
    events, channel, seen = ClientEvents(client), client.channel("room"), Seen()
    store = Kept({"heard": "1.0", **note})
    kept = dict(store.notes)
    channel.on("postgres_changes", INSERTS, seen, backfill=Backfill("id", store=store))
    await channel.subscribe()
    with pytest.raises(RealtimeError, match="not those of a backfill by id") as caught:
        await channel.ready()
    assert (caught.value.code, caught.value.retryable) == ("StoredNotes", False)
    assert "Backfill(name=...)" in caught.value.hint
    write(messages, 1)
    await until(lambda: seen.numbers == [1])
    assert events.errors == [caught.value]
    assert store.notes == kept


async def test_an_answer_that_is_no_list_of_rows_is_reported(
    messages: LocalRealtime, client: RealtimeClient
) -> None:
    events, answers = ClientEvents(client), [5, []]

    async def fetch(page: Any) -> Any:
        return answers.pop(0)

    await listen(client, Seen(), backfill=Backfill("id", fetch=fetch))
    assert [type(error) for error in events.errors] == [TypeError]


async def test_nobody_waits_for_a_reading_when_the_client_closes(
    messages: LocalRealtime, client: RealtimeClient
) -> None:
    asked, ended = asyncio.Event(), []

    async def fetch(page: Any) -> Any:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(page)

    seen = Seen()
    channel = client.channel("room")
    channel.on("postgres_changes", INSERTS, seen, backfill=Backfill("id", fetch=fetch))
    await channel.subscribe()
    await asked.wait()
    async with asyncio.timeout(4.0):
        await client.disconnect()
    assert len(ended) == 1
    assert our_tasks() == []


async def test_off_ends_a_reading(messages: LocalRealtime, client: RealtimeClient) -> None:
    asked = asyncio.Event()

    async def fetch(page: Any) -> Any:
        asked.set()
        await asyncio.Event().wait()

    channel = client.channel("room")
    channel.on("postgres_changes", INSERTS, Seen(), backfill=Backfill("id", fetch=fetch))
    await channel.subscribe()
    await asked.wait()
    channel.off("postgres_changes")
    await until(lambda: not [name for name in our_tasks() if "backfill" in name])
