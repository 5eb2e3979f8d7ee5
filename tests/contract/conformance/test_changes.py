"""Rows about database changes that no other test covers: bindings, filters, mismatches."""

from __future__ import annotations

from typing import Any

import pytest

from supabase_rt import RealtimeChannel, RealtimeClient, postgres_changes_filter
from supabase_rt.enums import ListenType, SubscribeStatus
from supabase_rt.server import LocalRealtime

from ...support.recorder import Recorder
from ...unit.protocol.support import World

ALL = {"event": "*", "schema": "public", "table": "t"}
CHANGES = ListenType.POSTGRES_CHANGES
CLOSED, CHANNEL_ERROR = SubscribeStatus.CLOSED, SubscribeStatus.CHANNEL_ERROR


def offline() -> RealtimeChannel:
    client = RealtimeClient("wss://x.supabase.co/realtime/v1", params={"apikey": "key"})
    return client.channel("room")


def asked(channel: RealtimeChannel) -> list[dict[str, Any]]:
    """Returns the bindings that the join of the channel would request."""
    return channel._machine.bindings.postgres_changes()


def joining(*filters: dict[str, Any]) -> tuple[World, Any]:
    world = World()
    world.open()
    channel = world.channel()
    for filter in filters:
        channel.bindings.add(CHANGES, filter)
    world.subscribe(channel)
    return world, channel


# -- the reply of a join -----------------------------------------------------------------


@pytest.mark.conformance("CL15", "CP2", "CP5")
def test_three_filters_are_listed_in_order_and_get_the_ids_of_their_entries() -> None:
    filters = [
        {**ALL, "event": "INSERT"},
        {**ALL, "filter": "id=eq.1"},
        {**ALL, "event": "DELETE", "table": "u"},
    ]
    world, channel = joining(*filters)
    join = world.last_join(channel)
    assert join.payload["config"]["postgres_changes"] == filters
    entries = [
        {**entry, "id": id} for entry, id in zip(filters, ("abc", "def", "ghi"), strict=True)
    ]
    world.reply(join, "ok", {"postgres_changes": entries})
    assert world.statuses(channel) == [SubscribeStatus.SUBSCRIBED]
    kinds = {"abc": "INSERT", "def": "UPDATE", "ghi": "DELETE"}
    found = [channel.bindings.changed([id], kind) for id, kind in kinds.items()]
    assert found == [(1,), (2,), (3,)]


@pytest.mark.conformance("CP4")
def test_a_reply_that_lists_no_filters_joins() -> None:
    world, channel = joining(ALL)
    world.reply(world.last_join(channel), "ok", {})
    assert channel.state == "joined"


@pytest.mark.conformance("CP30")
def test_an_echo_of_the_selected_columns_is_no_mismatch() -> None:
    world, channel = joining({**ALL, "select": ["id"]})
    world.accept(channel)
    assert channel.state == "joined"
    assert next(iter(channel.bindings)).filter["select"] == ["id"]


@pytest.mark.conformance("CP3", "CP9-CP12")
@pytest.mark.parametrize("key", ["event", "schema", "table", "filter"])
def test_an_entry_that_differs_is_an_error_of_the_channel(key: str) -> None:
    world, channel = joining({**ALL, "event": "INSERT", "filter": "id=eq.1"})
    entry = {**ALL, "event": "INSERT", "filter": "id=eq.1", "id": 1, key: "other"}
    world.reply(world.last_join(channel), "ok", {"postgres_changes": [entry]})
    assert world.statuses(channel) == [CLOSED, CHANNEL_ERROR]
    assert channel.state == "errored"


# -- what is asked for -------------------------------------------------------------------


@pytest.mark.conformance("CP24-CP29")
@pytest.mark.parametrize(
    "filter",
    [
        "title=like.%foo%",
        "name=ilike.%BAR%",
        "deleted_at=is.null",
        "title=match.^foo",
        "status=not.in.(draft,archived)",
        "deleted_at=not.is.null",
    ],
)
def test_a_row_filter_is_passed_on_as_it_is(filter: str) -> None:
    channel = offline().on("postgres_changes", {**ALL, "filter": filter}, print)
    assert asked(channel) == [{**ALL, "filter": filter}]


@pytest.mark.conformance("CP23", "realtime.subscriptions.postgres_changes_multiple_filters")
def test_a_row_filter_of_several_conditions_is_passed_on_as_it_is() -> None:
    text = 'id=gt.5,status=in.("a,b",c),gone=is.null'
    built = postgres_changes_filter().gt("id", 5).in_("status", ["a,b", "c"]).is_("gone", None)
    channel = offline().on("postgres_changes", {**ALL, "filter": text}, print)
    assert asked(channel) == [{**ALL, "filter": text}]
    assert built.build() == text


@pytest.mark.conformance("CP22")
def test_selected_columns_are_passed_on() -> None:
    channel = offline().on("postgres_changes", {**ALL, "select": ["id", "name"]}, print)
    assert asked(channel) == [{**ALL, "select": ["id", "name"]}]


@pytest.mark.conformance("CP32", "CP40")
def test_a_builder_and_its_text_are_one_filter() -> None:
    channel = offline()
    channel.on("postgres_changes", {**ALL, "filter": "id=eq.1"}, print)
    channel.on("postgres_changes", {**ALL, "filter": postgres_changes_filter().eq("id", 1)}, print)
    assert asked(channel) == [{**ALL, "filter": "id=eq.1"}]


@pytest.mark.conformance("CP34")
def test_the_callers_dict_is_not_changed() -> None:
    builder = postgres_changes_filter().eq("id", 1)
    wanted: dict[str, Any] = {**ALL, "filter": builder}
    before = dict(wanted)
    offline().on("postgres_changes", wanted, print)
    assert wanted == before
    assert wanted["filter"] is builder


@pytest.mark.conformance("CP35")
def test_a_builder_counts_as_it_was_when_it_was_registered() -> None:
    builder = postgres_changes_filter().eq("id", 1)
    channel = offline().on("postgres_changes", {**ALL, "filter": builder}, print)
    builder.eq("n", 2)
    assert asked(channel) == [{**ALL, "filter": "id=eq.1"}]


@pytest.mark.conformance("CP36")
def test_any_object_with_build_is_a_filter() -> None:
    class Mine:
        def build(self) -> str:
            return "id=eq.1"

    channel = offline().on("postgres_changes", {**ALL, "filter": Mine()}, print)
    assert asked(channel) == [{**ALL, "filter": "id=eq.1"}]


@pytest.mark.conformance("CP41-CP45")
@pytest.mark.parametrize(
    "other",
    [
        {"event": "INSERT"},
        {"schema": "private"},
        {"table": "u"},
        {"filter": "id=eq.2"},
        {"select": ["id"]},
    ],
)
def test_filters_that_differ_are_two(other: dict[str, Any]) -> None:
    channel = offline().on("postgres_changes", ALL, print)
    channel.on("postgres_changes", {**ALL, **other}, print)
    assert asked(channel) == [ALL, {**ALL, **other}]


@pytest.mark.conformance("CP46")
def test_no_row_filter_and_none_are_one() -> None:
    channel = offline().on("postgres_changes", ALL, print)
    channel.on("postgres_changes", {**ALL, "filter": None, "select": None}, print)
    assert asked(channel) == [ALL]


@pytest.mark.conformance("CP47")
def test_broadcast_and_presence_handlers_are_never_merged() -> None:
    channel = offline()
    for kind in ("broadcast", "presence"):
        for _ in range(2):
            channel.on(kind, {"event": "*"}, print)
    bindings = channel._machine.bindings
    assert len(bindings.broadcast("x")) == 2
    assert len(bindings.named(ListenType.PRESENCE, "sync")) == 2


# -- what arrives ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "rows"),
    [
        pytest.param(
            {"filter": "id=gt.1", "select": ["id"]},
            [{"id": 2}, {"id": 3}],
            marks=pytest.mark.conformance("NX14"),
        ),
        pytest.param(
            {"filter": "id=gt.1,room=eq.a"},
            [{"id": 3, "room": "a"}],
            marks=pytest.mark.conformance("NX15"),
        ),
        pytest.param(
            {"filter": "room=not.eq.a"},
            [{"id": 2, "room": "b"}],
            marks=pytest.mark.conformance("NX16"),
        ),
    ],
)
async def test_the_rows_and_columns_that_were_asked_for_arrive(
    server: LocalRealtime, client: RealtimeClient, wanted: dict[str, Any], rows: list[Any]
) -> None:
    server.table("messages", {"id": "int8", "room": "text"})
    got = Recorder()
    filter = {"event": "INSERT", "schema": "public", "table": "messages", **wanted}
    channel = await client.channel("room").on("postgres_changes", filter, got).subscribe()
    await channel.ready()
    for id, room in enumerate("aba", 1):
        server.insert("messages", {"id": id, "room": room})
    await got.count(len(rows))
    assert [change.new for change in got.seen] == rows
