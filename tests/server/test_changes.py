"""Database changes published from Python, in the shapes that were recorded."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

import pytest

from supabase_rt.server._tables.change_feed import entry_id
from supabase_rt.server._tables.tables import MAX_ROWS, Table
from supabase_rt.server.local import LocalRealtime

from .kit import Client, payload_of
from .kit import World as BareWorld

MESSAGES = {
    "id": "int8",
    "room": "text",
    "body": "text",
    "n": "int4",
    "meta": "jsonb",
    "inserted_at": "timestamptz",
}
COLUMNS = [{"name": name, "type": kind} for name, kind in MESSAGES.items()]
MOMENT = dt.datetime(2026, 11, 23, 16, 34, 10, 448_000, tzinfo=dt.UTC)
STAMP = "2026-11-23T16:34:10.448Z"
UNABLE = "Unable to subscribe to changes with given parameters. "
CHECK = UNABLE + "Please check Realtime is enabled for the given connect parameters: "
EXCEPTION = UNABLE + "An exception happened so please check your connect parameters: "


class World(BareWorld):
    """A world with the publishing methods of ``LocalRealtime``, but without its sockets."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.server = LocalRealtime(**settings)
        self.backend = self.server.backend
        self.server.table("messages", MESSAGES, replica_identity="full")
        self.server.table("plain", {"id": "int8", "v": "text"})

    def subscribed(self, *entries: Any, vsn: str = "2.0.0", **about: Any) -> Client:
        client = self.client(vsn)
        frames = client.join("realtime:pgc", postgres_changes=list(entries), **about)
        assert payload_of(frames[1])["message"] == "Subscribed to PostgreSQL"
        return client


def on(event: str = "*", table: str = "messages", **more: Any) -> dict[str, Any]:
    return {"event": event, "schema": "public", "table": table, **more}


def test_the_conversation_of_the_recording() -> None:
    world = World()
    bindings = [on(), on("INSERT", filter="room=eq.r1"), on("UPDATE"), on(table="plain")]
    client = world.client("1.0.0")
    reply, system = client.join("realtime:pgc", postgres_changes=bindings)
    entries = payload_of(reply)["response"]["postgres_changes"]
    everything, inserts, updates, plain = [entry["id"] for entry in entries]
    assert entries == [
        {"id": entry["id"], **binding} for entry, binding in zip(entries, bindings, strict=True)
    ]
    assert payload_of(system) == {
        "message": "Subscribed to PostgreSQL",
        "status": "ok",
        "extension": "postgres_changes",
        "channel": "pgc",
    }

    row = {"id": 665, "room": "r1", "body": 'héllo "wörld"', "n": 7, "meta": {"a": [1, 2]}}
    assert world.server.insert("messages", row, commit_timestamp=MOMENT) == 1
    full = {**row, "inserted_at": None}
    (frame,) = client.heard()
    assert (frame["event"], frame["ref"], frame["topic"]) == (
        "postgres_changes",
        None,
        "realtime:pgc",
    )
    assert frame["payload"]["data"] == {
        "table": "messages",
        "type": "INSERT",
        "record": full,
        "columns": COLUMNS,
        "errors": None,
        "schema": "public",
        "commit_timestamp": STAMP,
    }
    assert sorted(frame["payload"]["ids"]) == sorted([everything, inserts])

    world.server.insert("messages", {"room": "r2"})
    assert payload_of(client.heard()[0])["ids"] == [everything]

    world.server.update("messages", {"body": "changed"}, where={"room": "r1"})
    update = payload_of(client.heard()[0])
    assert update["data"]["record"] == {**full, "body": "changed"}
    assert update["data"]["old_record"] == full
    assert sorted(update["ids"]) == sorted([everything, updates])

    world.server.delete("messages", {"room": "r1"})
    delete = payload_of(client.heard()[0])["data"]
    assert "record" not in delete
    assert delete["old_record"] == {**full, "body": "changed"}
    assert delete["columns"] == COLUMNS

    world.server.insert("plain", {"v": "x"})
    world.server.update("plain", {"id": 1, "v": "y"})
    world.server.delete("plain", {"id": 1})
    insert, update, delete = [payload_of(each)["data"] for each in client.heard()]
    assert insert["record"] == {"id": 1, "v": "x"}
    assert (update["record"], update["old_record"]) == ({"id": 1, "v": "y"}, {"id": 1})
    assert delete["old_record"] == {"id": 1}
    assert plain == entry_id(on(table="plain"))

    client.push("realtime:pgc", "phx_leave", {})
    assert world.server.insert("messages", {"room": "r1"}) == 0


FILTERS = (
    'room=eq.r1|room=neq.r1|n=lt.5|n=lte.5|n=gt.5|n=gte.5|n=in.(1,2,3)|room=in.(r1,"a,b")|'
    "body=like.%foo%|body=ilike.%FOO%|n=is.null|body=is.null|n=not.is.null|body=match.^f|"
    "body=imatch.^F|n=isdistinct.5|room=not.eq.r1|n=not.in.(1,2)|n=gt.1,n=lt.5|"
    "room=eq.r1,n=gte.5|id=gt.0|inserted_at=gt.2020-01-01T00:00:00Z|"
    'room=eq."a,b"|room=eq.|body=not.like.%foo%|meta=is.null'
)
ALWAYS = "id=gt.0|inserted_at=gt.2020-01-01T00:00:00Z|"


@pytest.mark.parametrize(
    ("row", "matching"),
    [
        (
            ("r1", "foo bar", 1, None),
            (
                "body=ilike.%FOO%|body=imatch.^F|body=like.%foo%|body=match.^f|meta=is.null|"
                "n=in.(1,2,3)|n=isdistinct.5|n=lt.5|n=lte.5|n=not.is.null|room=eq.r1|"
                'room=in.(r1,"a,b")'
            ),
        ),
        (
            ("r1", "FOO", 5, {"a": 1}),
            (
                "body=ilike.%FOO%|body=imatch.^F|body=not.like.%foo%|n=gte.5|n=lte.5|"
                'n=not.in.(1,2)|n=not.is.null|room=eq.r1|room=eq.r1,n=gte.5|room=in.(r1,"a,b")'
            ),
        ),
        (
            ("r2", "xfoo", 5, None),
            (
                "body=ilike.%FOO%|body=like.%foo%|meta=is.null|n=gte.5|n=lte.5|n=not.in.(1,2)|"
                "n=not.is.null|room=neq.r1|room=not.eq.r1"
            ),
        ),
        (
            ("a,b", None, 7, None),
            (
                "body=is.null|meta=is.null|n=gt.5|n=gte.5|n=isdistinct.5|n=not.in.(1,2)|"
                'n=not.is.null|room=eq."a,b"|room=in.(r1,"a,b")|room=neq.r1|room=not.eq.r1'
            ),
        ),
        (
            ("", "f", None, None),
            (
                "body=imatch.^F|body=match.^f|body=not.like.%foo%|meta=is.null|n=is.null|"
                "n=isdistinct.5|room=eq.|room=neq.r1|room=not.eq.r1"
            ),
        ),
        (
            (None, "Food", 2, None),
            (
                "body=ilike.%FOO%|body=imatch.^F|body=not.like.%foo%|meta=is.null|n=gt.1,n=lt.5|"
                "n=in.(1,2,3)|n=isdistinct.5|n=lt.5|n=lte.5|n=not.is.null"
            ),
        ),
        (
            ("r1", "zzz", 6, None),
            (
                "body=not.like.%foo%|meta=is.null|n=gt.5|n=gte.5|n=isdistinct.5|n=not.in.(1,2)|"
                'n=not.is.null|room=eq.r1|room=eq.r1,n=gte.5|room=in.(r1,"a,b")'
            ),
        ),
    ],
)
def test_the_recorded_filters(row: tuple[Any, ...], matching: str) -> None:
    world = World()
    entries = {entry_id(on("INSERT", filter=each)): each for each in FILTERS.split("|")}
    assert len(entries) == 26
    client = world.subscribed(*(on("INSERT", filter=each) for each in FILTERS.split("|")))
    names = ("room", "body", "n", "meta")
    record = dict(zip(names, row, strict=True)) | {"inserted_at": MOMENT}
    world.server.insert("messages", record)
    found = {entries[each] for each in payload_of(client.heard()[0])["ids"]}
    assert found == set((ALWAYS + matching).split("|"))


def test_filters_and_wildcards_of_updates_and_deletes() -> None:
    world = World()
    bindings = {
        "room r1": on("UPDATE", filter="room=eq.r1"),
        "room r2": on("UPDATE", filter="room=eq.r2"),
        "gone r2": on("DELETE", filter="room=eq.r2"),
        "gone nope": on("DELETE", filter="room=eq.nope"),
        "gone v2": on("DELETE", "plain", filter="v=eq.v2"),
        "plain gone": on("DELETE", "plain"),
        "public": {"event": "*", "schema": "public"},
        "all": {"event": "*", "schema": "*"},
    }
    names = {entry_id(binding): name for name, binding in bindings.items()}
    world.server.insert("messages", {"room": "r1"})
    world.server.insert("plain", {"v": "v1"})
    client = world.subscribed(*bindings.values())

    def told() -> set[str]:
        (frame,) = client.heard()
        return {names[each] for each in payload_of(frame)["ids"]}

    both = {"public", "all"}
    world.server.update("messages", {"body": "y"}, where={"room": "r1"})
    assert told() == both | {"room r1"}
    world.server.update("messages", {"room": "r2"}, where={"room": "r1"})
    assert told() == both | {"room r2"}
    world.server.delete("messages", {"room": "r2"})
    assert told() == both | {"gone r2"}
    world.server.update("plain", {"v": "v2"}, where={"v": "v1"})
    assert told() == both
    # Only the key of a deleted row is known here, so no filter on another column can match.
    world.server.delete("plain", {"v": "v2"})
    assert told() == both | {"plain gone"}
    world.server.insert("elsewhere", {"id": 1}, schema="other")
    assert told() == {"all"}


def test_select() -> None:
    world = World()
    client = world.subscribed(on(select=["room", 3]), on())
    world.server.insert("messages", {"id": 4381, "room": "s1", "body": "x"})
    picked, whole = [payload_of(each) for each in client.heard()]
    assert picked["data"]["record"] == {"id": 4381, "room": "s1"}
    assert picked["data"]["columns"] == COLUMNS[:2]
    assert whole["data"]["columns"] == COLUMNS
    assert picked["ids"] != whole["ids"]
    world.server.update("messages", {"room": "s2"}, where={"room": "s1"})
    assert payload_of(client.heard()[0])["data"]["old_record"] == {"id": 4381, "room": "s1"}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            on(table="no_such_table"),
            CHECK + "[event: *, schema: public, table: no_such_table, filters: [], select: nil]",
        ),
        (
            on(filter="nocol=eq.1"),
            EXCEPTION + '[event: *, schema: public, table: messages, filters: [{"nocol", "eq", "1",'
            " false}], select: nil]. Exception: ERROR P0001 (raise_exception) invalid column for"
            " filter nocol",
        ),
        (on(filter="garbage"), 'Error parsing `filter` params: ["garbage"]'),
        (on(filter="foo=hey"), 'Error parsing `filter` params: ["foo", "hey"]'),
        (
            {"event": "*"},
            (
                "No subscription params provided. Please provide at least a `schema` or `table` to "
                'subscribe to: %{"event" => "*"}'
            ),
        ),
        (
            {"schema": None, "table": "t", "n": 1},
            (
                "No subscription params provided. Please provide at least a `schema` or `table` to "
                'subscribe to: %{"n" => 1, "schema" => nil, "table" => "t"}'
            ),
        ),
        (
            on(select=["id", "nope"]),
            EXCEPTION + "[event: *, schema: public, table: messages, filters: [], select: "
            '["id", "nope"]]. Exception: ERROR P0001 (raise_exception) invalid column for select'
            " nope",
        ),
        (
            on(select="id"),
            (
                "Error parsing `select` params: expected a list of column name strings, "
                'e.g. select: ["col1", "col2"]'
            ),
        ),
        (
            {"schema": "public", "select": ["id"]},
            (
                "Column selection is not supported for wildcard subscriptions. "
                "Provide an explicit schema and table name."
            ),
        ),
    ],
)
def test_configurations_that_cannot_be_subscribed_to(entry: Any, message: str) -> None:
    world = World(strict_tables=True)
    client = world.client()
    _, system = client.join("realtime:err", postgres_changes=[on(), entry])
    assert system[:4] == ["1", None, "realtime:err", "system"]
    assert system[4] == {
        "message": message,
        "status": "error",
        "extension": "postgres_changes",
        "channel": "err",
    }
    # One bad entry fails all of them, but the channel stays.
    assert world.server.insert("messages", {"room": "x"}) == 0
    assert client.push("realtime:err", "presence", {})[0][4]["status"] == "ok"


def test_entries_that_the_server_takes_as_they_are() -> None:
    world = World(strict_tables=True)
    client = world.subscribed(on("UPSERT"), on(select=[]), {"table": "plain", "filter": "x"})
    world.server.insert("messages", {"room": "x"})
    assert len(payload_of(client.heard()[0])["ids"]) == 2
    world.server.insert("plain", {"v": "x"})
    assert len(client.heard()) == 1


def test_equal_entries_have_equal_ids_and_names_are_patterns() -> None:
    world = World()
    client = world.client()
    reply = client.join(postgres_changes=[on(table="pl_in"), on(table="pl_in"), on(table="pl%")])[0]
    first, second, third = [
        each["id"] for each in payload_of(reply)["response"]["postgres_changes"]
    ]
    assert first == second != third
    world.server.insert("plain", {"v": "x"})
    assert payload_of(client.heard()[0])["ids"] == [first, second, third]


def test_the_subscription_can_be_made_late_or_fail() -> None:
    world = World(postgres_ready_delay=1.5)
    client = world.client()
    entry: dict[str, Any] = {"postgres_changes": [on()], "presence": {"enabled": True}}
    assert [each[3] for each in client.join(**entry)] == ["phx_reply"]
    assert world.server.insert("messages", {"room": "early"}) == 0
    world.advance(1.5)
    assert client.events() == ["system", "presence_state"]
    world.server.faults.postgres_error = '{:error, "Too many database timeouts"}'
    client.join("realtime:two", **entry)
    world.advance(1.5)
    system = client.heard()[0][4]
    assert (system["status"], system["message"]) == (
        "error",
        '{:error, "Too many database timeouts"}',
    )
    client.join("realtime:three", **entry)
    client.push("realtime:three", "phx_leave", {})
    world.advance(1.5)
    assert client.heard() == []


def test_an_answer_of_the_feed_after_the_end_of_the_channel() -> None:
    world = World()
    client = world.subscribed(on())
    channel = client.session.channels["realtime:pgc"]
    client.push("realtime:pgc", "phx_leave", {})
    channel._subscribed(None)
    assert client.heard() == []


def test_the_legacy_form_gets_the_bare_data() -> None:
    world = World()
    client = world.client()
    client.push("realtime:public:messages", "phx_join", {})
    world.server.insert("messages", {"room": "x"}, commit_timestamp=MOMENT)
    (frame,) = client.heard()
    assert frame[:4] == [None, None, "realtime:public:messages", "INSERT"]
    assert frame[4]["commit_timestamp"] == STAMP


def test_errors_inside_of_changes() -> None:
    world = World(max_record_bytes=2000)
    world.server.table("keyless", {"a": "text"}, primary_key=[])
    client = world.subscribed({"schema": "*"}, on(table="keyless", filter="a=eq.never"))
    world.server.insert("keyless", {"a": "x"})
    world.server.update("keyless", {"a": "y"}, where={"a": "x"})
    world.server.update("keyless", {"a": "y"})
    world.server.delete("keyless", {"a": "y"})
    insert, update, delete = [payload_of(each) for each in client.heard()]
    assert insert["data"] == {
        "table": "keyless",
        "type": "INSERT",
        "record": {},
        "columns": [],
        "errors": ["Error 400: Bad Request, no primary key"],
        "schema": "public",
        "commit_timestamp": None,
    }
    assert len(insert["ids"]) == 2
    assert update["data"]["old_record"] == {}
    assert delete["data"]["errors"] is None

    world.server.insert("messages", {"room": "r", "body": "x" * 2000})
    large = payload_of(client.heard()[0])["data"]
    assert large["errors"] == ["Error 413: Payload Too Large"]
    assert large["record"] == {"id": 1, "room": "r"}
    assert large["columns"] == COLUMNS
    world.server.update("messages", {"n": 3}, where={"id": 1})
    large = payload_of(client.heard()[0])["data"]
    assert large["record"] == {"id": 1, "room": "r", "n": 3}
    assert large["old_record"] == {"id": 1, "room": "r"}
    world.server.insert("messages", {"room": "r"}, errors=["Error 401: Unauthorized"])
    assert payload_of(client.heard()[0])["data"]["record"] == {}


def test_row_level_security() -> None:
    def owner(claims: Mapping[str, Any], row: dict[str, Any]) -> bool:
        return bool(claims.get("sub") == row["owner"])

    world = World()
    columns = {"id": "int8", "owner": "uuid", "note": "text"}
    world.server.table("notes", columns, visible=owner, replica_identity="full")
    mine, other = world.client(token=world.token("authenticated", sub="u1")), world.client()
    for client in (mine, other):
        client.join(postgres_changes=[on(table="notes")])
    assert world.server.insert("notes", {"owner": "u1", "note": "mine"}) == 1
    assert len(mine.heard()) == 1
    assert other.heard() == []
    assert world.server.delete("notes", {"owner": "u1"}) == 2
    assert payload_of(other.heard()[0])["data"]["old_record"] == {"id": 1}


def test_tables_that_nobody_declared() -> None:
    world = World()
    client = world.subscribed({"schema": "public"}, on(table="todos", filter="n=eq.1"))
    world.server.insert("todos", {"id": 7, "n": None, "tags": ["a"]})
    data = payload_of(client.heard()[0])["data"]
    assert data["columns"] == [
        {"name": "id", "type": "int8"},
        {"name": "n", "type": "text"},
        {"name": "tags", "type": "_text"},
    ]
    world.server.update("todos", {"id": 7, "n": 1})
    update = payload_of(client.heard()[0])
    assert len(update["ids"]) == 2
    assert update["data"]["columns"][1] == {"name": "n", "type": "int8"}
    assert update["data"]["record"] == {"id": 7, "n": 1, "tags": ["a"]}
    assert update["data"]["old_record"] == {"id": 7}
    # These rows were never inserted here.
    world.server.update("todos", {"id": 9, "n": 2})
    data = payload_of(client.heard()[0])["data"]
    assert (data["record"], data["old_record"]) == ({"id": 9, "n": 2, "tags": None}, {"id": 9})
    world.server.update("todos", {"n": 3}, old={"id": 11, "n": 1})
    assert payload_of(client.heard()[0])["data"]["record"] == {"id": 11, "n": 3, "tags": None}
    assert world.server.update("todos", {"n": 3}, where={"id": 99}) == 0
    world.server.delete("todos", old={"id": 12})
    assert payload_of(client.heard()[0])["data"]["old_record"] == {"id": 12}
    world.server.delete("words", {"word": "x"})
    assert payload_of(client.heard()[0])["data"]["old_record"] == {"word": "x"}
    with pytest.raises(TypeError, match="needs the values"):
        world.server.delete("todos")


def test_what_the_publisher_does_not_accept() -> None:
    world = World()
    with pytest.raises(ValueError, match="replica_identity"):
        world.server.table("t", {"id": "int8"}, replica_identity="none")
    with pytest.raises(ValueError, match="'key'"):
        world.server.table("t", {"id": "int8"}, primary_key=["key"])
    with pytest.raises(ValueError, match="no column 'colour'"):
        world.server.insert("plain", {"colour": "red"})
    with pytest.raises(TypeError, match="no column holds a object"):
        world.server.insert("todos", {"id": object()})
    with pytest.raises(TypeError, match="unexpected keyword"):
        world.server.insert("plain", {"v": "x"}, schemas="public")
    with pytest.raises(TypeError, match="unexpected keyword"):
        LocalRealtime(heartbeats=False)


def test_the_memory_for_rows_is_bounded() -> None:
    table = Table("public", "t", {"id": "int8"}, ("id",))
    for number in range(MAX_ROWS + 5):
        table.keep({"id": number})
    assert len(table.rows) == MAX_ROWS
    assert table.known({"id": 0}) is None
    assert table.known({"id": MAX_ROWS}) == {"id": MAX_ROWS}
