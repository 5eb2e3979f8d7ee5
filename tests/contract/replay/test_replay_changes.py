"""postgres_changes*.jsonl: rows as the database sent them, handlers as users write them."""

from __future__ import annotations

import ast
import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from supabase_rt import PostgresChange, RealtimeChannel, RealtimeClient, SubscribeError
from supabase_rt.types import TypesMode

from ...support.recorder import ClientEvents, Recorder, Statuses
from ...support.waiting import until
from .player import Player, play
from .recordings import Recording, Step

MESSAGES = {"schema": "public", "table": "messages"}


def row(data: dict[str, Any]) -> dict[str, Any]:
    """The payload of a handler for the recorded ``data`` of a change.

    The server sends typed JSON, so columns arrive unchanged (types="js").
    """
    return {
        "schema": data["schema"],
        "table": data["table"],
        "commit_timestamp": data["commit_timestamp"],
        "eventType": data["type"],
        "new": data.get("record", {}),
        "old": data.get("old_record", {}),
        "errors": data["errors"],
    }


def rows(recording: Recording, conn: str, *ids: int) -> list[dict[str, Any]]:
    """The payloads of handlers bound to any of the server's ``ids``, according to the recording."""
    return [
        row(found["data"])
        for found in recording.payloads(conn, "postgres_changes")
        if not ids or set(ids) & set(found["ids"])
    ]


def entries(recording: Recording, conn: str, number: int = 0) -> list[dict[str, Any]]:
    """The filters, with the server's ids, of a joined channel."""
    joins: list[Any] = [
        found["response"]["postgres_changes"]
        for found in recording.payloads(conn, "phx_reply")
        if "postgres_changes" in found["response"]
    ]
    found: list[dict[str, Any]] = joins[number]
    return found


def listen_to_all(
    channel: RealtimeChannel, found: list[dict[str, Any]]
) -> list[tuple[dict[str, Any], Recorder]]:
    """One handler for each recorded entry."""
    listeners = []
    for entry in found:
        handler = Recorder()
        filter = {key: value for key, value in entry.items() if key != "id"}
        channel.on("postgres_changes", filter, handler)
        listeners.append((entry, handler))
    return listeners


async def test_changes_reach_the_handlers_whose_filters_the_server_matched() -> None:
    async with play("postgres_changes") as player:
        client = player.client("A")
        client.set_auth("JWT:anon")
        channel = client.channel("pgc")
        listeners = listen_to_all(channel, entries(player.recording, "A"))
        system = Recorder()
        channel.on("system", {}, system)
        statuses = Statuses()
        await channel.subscribe(statuses)
        await channel.ready()
        await until(lambda: len(listeners[0][1].seen) == 6 and len(listeners[3][1].seen) == 3)
        assert await channel.unsubscribe() == "ok"

        for entry, handler in listeners:
            assert handler.seen == rows(player.recording, "A", entry["id"]), entry
        assert [change.event_type for change in listeners[3][1].seen] == [
            "INSERT",
            "UPDATE",
            "DELETE",
        ]
        assert system.seen == player.recording.payloads("A", "system")
        assert statuses.names == ["SUBSCRIBED", "CLOSED"]
        await player.end()
        assert player.extra() == {}
        health = client.health()
        assert (health.decode_errors, health.handler_errors, health.unknown_frames) == (0, 0, 0)
        # The phx_close after the reply to our leave is expected, so it is not stale.
        assert health.stale_frames == 0


async def test_payloads_are_equal_by_attribute_key_and_round_trip() -> None:
    async with play("postgres_changes") as player:
        client = player.client("A")
        client.set_auth("JWT:anon")
        channel = client.channel("pgc")
        listeners = listen_to_all(channel, entries(player.recording, "A"))
        await channel.subscribe()
        update: PostgresChange = (await listeners[2][1].count(1))[0]
        channel.unsubscribe()
        await player.end()

    wanted = next(found for found in rows(player.recording, "A") if found["eventType"] == "UPDATE")
    for key in wanted:
        assert update[key] == wanted[key]
    assert (update.new, update.old, update.errors) == (wanted["new"], wanted["old"], None)
    assert dict(update) == wanted
    assert PostgresChange.from_json(update.to_json()) == update


async def test_every_type_arrives_in_each_of_the_three_conversions() -> None:
    async with play("postgres_changes_types") as player:
        client = player.client("A")
        channel = client.channel("types")
        modes: tuple[TypesMode, ...] = ("js", "python", "raw")
        handlers = {mode: Recorder() for mode in modes}
        for mode, handler in handlers.items():
            filter = {"event": "*", "schema": "public", "table": "all_types"}
            channel.on("postgres_changes", filter, handler, types=mode)
        await channel.subscribe()
        await player.end()

    wanted = rows(player.recording, "A")
    assert handlers["raw"].seen == wanted
    assert handlers["js"].seen == wanted
    first, nulls = handlers["python"].seen
    assert first.new == PYTHON_ROW
    assert {name: type(value) for name, value in first.new.items()} == {
        name: type(value) for name, value in PYTHON_ROW.items()
    }
    assert nulls.new == wanted[1]["new"]
    assert handlers["js"].seen[0].new["c_int8"] == 9007199254740993


PYTHON_ROW: dict[str, Any] = {
    "id": 5,
    "c_bool": True,
    "c_int2": 1,
    "c_int4": 2,
    "c_int8": 9007199254740993,
    "c_float4": 1.5,
    "c_float8": 2.25,
    "c_numeric": Decimal("123456789.123456789"),
    "c_text": "t",
    "c_varchar": "v",
    "c_json": {"a": 1},
    "c_jsonb": {"b": [True, None]},
    "c_uuid": UUID("11111111-1111-4111-8111-111111111111"),
    "c_bytea": b"\xde\xad\xbe\xef",
    "c_date": dt.date(2026, 1, 2),
    "c_time": dt.time(3, 4, 5),
    "c_ts": dt.datetime(2026, 1, 2, 3, 4, 5, 678000),
    "c_tstz": dt.datetime(2026, 1, 2, 1, 4, 5, 678000, tzinfo=dt.UTC),
    "c_int_arr": [1, 2, None],
    "c_text_arr": ["a", "b,c"],
    "c_int4range": "[1,5)",
    "c_inet": "10.0.0.1/8",
}


def not_in_the_api(step: Step) -> bool:
    """An unknown event, and neither schema nor table: refused at ``on``."""
    text = step.about.get("text", "")
    return "UPSERT" in text or '[{"event":"*"}]' in text


CHANGE_ERRORS = {
    "err0": ({"table": "no_such_table"}, "alter publication"),
    "err1": ({"table": "messages", "filter": "nocol=eq.1"}, "does not have"),
    "err2": ({"table": "messages", "filter": "garbage"}, "filter"),
    "err3": ({"table": "broadcasted"}, "alter publication"),
}


async def test_a_filter_that_the_database_refuses_is_told_by_ready_error_event_and_health() -> None:
    async with play("postgres_changes_errors", skip=not_in_the_api) as player:
        client = player.client("A")
        events = ClientEvents(client)
        said = player.recording.payloads("A", "system")
        for number, (topic, (filter, hint)) in enumerate(CHANGE_ERRORS.items()):
            channel = client.channel(topic)
            channel.on("postgres_changes", {"event": "*", "schema": "public", **filter}, Recorder())
            await channel.subscribe()
            with pytest.raises(SubscribeError) as caught:
                await channel.ready()
            assert str(caught.value) == said[number]["message"]
            assert hint in caught.value.hint
            assert not caught.value.retryable
            assert caught.value.topic == f"realtime:{topic}"
            assert channel.state == "joined"
            assert client.health().last_system_error == said[number]["message"]
        assert [str(error) for error in events.errors] == [one["message"] for one in said[:4]]


def test_what_the_database_would_take_without_a_word_raises_at_on() -> None:
    channel = RealtimeClient("ws://localhost", params={"apikey": "key"}).channel("err4")
    with pytest.raises(ValueError, match="UPSERT"):
        channel.on("postgres_changes", {"event": "UPSERT", **MESSAGES}, Recorder())
    with pytest.raises(ValueError, match="schema"):
        channel.on("postgres_changes", {"event": "*"}, Recorder())


async def test_row_level_security_decides_who_hears_of_a_row() -> None:
    async with play("postgres_changes_rls") as player:
        handlers = {}
        for conn, token in (("A", "authenticated:sub"), ("B", "authenticated:sub"), ("C", "anon")):
            client = player.client(conn)
            client.set_auth(f"JWT:{token}")
            handlers[conn] = Recorder()
            channel = client.channel("rls")
            filter = {"event": "*", "schema": "public", "table": "private_notes"}
            channel.on("postgres_changes", filter, handlers[conn])
            await channel.subscribe()
            await channel.ready()
        await player.end()
        for conn, handler in handlers.items():
            assert handler.seen == rows(player.recording, conn)
        assert [len(handler.seen) for handler in handlers.values()] == [2, 1, 1]
        assert player.extra() == {}


# -- filters -----------------------------------------------------------------------------


def matches(check: str) -> list[Any]:
    """The filters that the recording script saw matched."""
    text = check.partition(" matches: ")[2]
    return [] if text == "nothing" else list(ast.literal_eval(text))


async def drive_filters(
    player: Player, topic: str, name: Callable[[dict[str, Any]], Any]
) -> dict[str, list[Any]]:
    """The names of the bindings that fired, by the time of the commit."""
    client = player.client("A")
    channel = client.channel(topic)
    fired: dict[str, list[Any]] = {}

    def handler_of(entry: dict[str, Any]) -> Callable[[PostgresChange], None]:
        def handle(change: PostgresChange) -> None:
            fired.setdefault(str(change.commit_timestamp), []).append(name(entry))
            assert change == wanted[str(change.commit_timestamp)]

        return handle

    wanted = {found["commit_timestamp"]: found for found in rows(player.recording, "A")}
    for entry in entries(player.recording, "A"):
        filter = {key: value for key, value in entry.items() if key != "id"}
        channel.on("postgres_changes", filter, handler_of(entry))
    await channel.subscribe()
    await channel.ready()
    await player.end()
    assert client.health().handler_errors == 0
    assert player.extra() == {}
    return fired


async def test_26_filters_fire_for_the_rows_that_the_server_found_them_to_match() -> None:
    async with play("postgres_changes_filters") as player:
        fired = await drive_filters(player, "filters", lambda entry: entry["filter"])
    checks = [matches(check) for check in player.recording.checks() if " matches: " in check]
    assert len(checks) == 7
    assert [sorted(names) for names in fired.values()] == checks


async def test_filters_on_update_and_delete_and_wildcards_fire_as_recorded() -> None:
    def described(entry: dict[str, Any]) -> list[str]:
        parts = [str(entry.get(key)) for key in ("event", "schema", "table", "filter")]
        text = " ".join(parts)
        return [text.replace(" None", "") if parts[0] == "DELETE" and parts[3] == "None" else text]

    async with play("postgres_changes_filters_update_delete") as player:
        fired = await drive_filters(player, "fud", described)
    checks = [matches(check) for check in player.recording.checks() if " matches: " in check]
    # The last two, a table outside the publication and TRUNCATE, bring no frame at all.
    assert checks[5:] == [[], []]
    wanted = [[[name[0].removesuffix(" None") for name in names]] for names in checks[:5]]
    found = [[sorted(name[0].removesuffix(" None") for name in names)] for names in fired.values()]
    assert found == wanted


async def test_select_brings_the_selected_columns_only() -> None:
    async with play("postgres_changes_select") as player:
        client = player.client("A")
        channel = client.channel("sel")
        handler = Recorder()
        channel.on(
            "postgres_changes", {"event": "*", **MESSAGES, "select": ["id", "room"]}, handler
        )
        await channel.subscribe()
        await handler.count(4)
        second = client.channel("sel2")
        second.on("postgres_changes", {"event": "*", **MESSAGES, "select": ["id", "nope"]}, handler)
        await second.subscribe()
        with pytest.raises(SubscribeError) as caught:
            await second.ready()
        assert "column" in caught.value.hint
        third = client.channel("sel3")
        third.on("postgres_changes", {"event": "*", **MESSAGES, "select": []}, handler)
        await third.subscribe()
        await third.ready()
        await player.end()
        assert handler.seen == rows(player.recording, "A")
        assert [list(change.new) for change in handler.seen[:1]] == [["id", "room"]]


async def test_sixty_rows_of_one_statement_arrive_in_order_and_oversized_ones_with_errors() -> None:
    async with play("postgres_changes_bulk") as player:
        handlers = {"A": Recorder(), "B": Recorder()}
        for conn, handler in handlers.items():
            channel = player.client(conn).channel("bulk")
            channel.on("postgres_changes", {"event": "*", **MESSAGES}, handler)
            await channel.subscribe()
        await player.end()
        for conn, handler in handlers.items():
            assert handler.seen == rows(player.recording, conn)
            assert [change.new["n"] for change in handler.seen[:60]] == list(range(1, 61))
            oversized = [change for change in handler.seen if change.errors]
            assert {tuple(change.errors) for change in oversized} == {
                ("Error 413: Payload Too Large",)
            }
            assert "body" not in oversized[0].new
