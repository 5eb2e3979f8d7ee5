from __future__ import annotations

from typing import Any

import pytest

from supabase_rt._protocol.channel.bindings import Binding, Bindings
from supabase_rt.enums import ListenType

BROADCAST, PRESENCE = ListenType.BROADCAST, ListenType.PRESENCE
CHANGES, SYSTEM = ListenType.POSTGRES_CHANGES, ListenType.SYSTEM
TODOS = {"event": "*", "schema": "public", "table": "todos"}


def bound(*filters: dict[str, Any]) -> tuple[Bindings, list[Binding]]:
    """Bindings with one registration for each filter, as the server joined them: ids 100, ..."""
    bindings = Bindings()
    found = [bindings.add(CHANGES, filter) for filter in filters]
    sent = bindings.postgres_changes()
    assert bindings.reconcile(sent, echo(sent)) is None
    return bindings, found


def echo(sent: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**entry, "id": 100 + index} for index, entry in enumerate(sent)]


# -- registration ------------------------------------------------------------------------


@pytest.mark.conformance("PC53")
def test_bindings_are_kept_in_order_and_their_ids_are_never_used_again() -> None:
    bindings = Bindings()
    first = bindings.add(BROADCAST, {"event": "a"})
    second = bindings.add(BROADCAST, {"event": "b"})
    bindings.remove(second.id)
    third = bindings.add(BROADCAST, {"event": "c"})
    assert list(bindings) == [first, third]
    assert len(bindings) == 2
    assert len({first.id, second.id, third.id}) == 3


def test_removing_what_is_not_there_does_nothing() -> None:
    bindings = Bindings()
    bindings.remove(7)
    assert len(bindings) == 0


def test_bindings_may_be_removed_while_going_through_them() -> None:
    bindings = Bindings()
    for _ in range(3):
        bindings.add(BROADCAST, {"event": "a"})
    for binding in bindings:
        bindings.remove(binding.id)
    assert bindings.of_type(BROADCAST) == []


# -- by name -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "arriving", "matches"),
    [
        ("", "", True),
        ("shout", "shout", True),
        ("Shout", "SHOUT", True),
        ("shout", "whisper", False),
        ("*", "anything", True),
        ("*", None, True),
        ("shout", None, False),
    ],
)
def test_broadcasts_are_matched_by_name_without_regard_to_case(
    event: str, arriving: str | None, matches: bool
) -> None:
    bindings = Bindings()
    binding = bindings.add(BROADCAST, {"event": event})
    assert bindings.broadcast(arriving) == ((binding.id,) if matches else ())


def test_every_system_binding_gets_every_system_message() -> None:
    bindings = Bindings()
    found = [bindings.add(SYSTEM, {}), bindings.add(SYSTEM, {"event": "other"})]
    assert bindings.named(SYSTEM, None) == tuple(binding.id for binding in found)


def test_a_binding_of_one_type_gets_nothing_of_another() -> None:
    bindings = Bindings()
    presence = bindings.add(PRESENCE, {"event": "sync"})
    broadcast = bindings.add(BROADCAST, {"event": "sync"})
    assert bindings.broadcast("sync") == (broadcast.id,)
    assert bindings.named(PRESENCE, "sync") == (presence.id,)


def test_a_new_and_a_removed_binding_are_seen_at_once() -> None:
    bindings = Bindings()
    first = bindings.add(BROADCAST, {"event": "a"})
    assert bindings.broadcast("a") == (first.id,)
    second = bindings.add(BROADCAST, {"event": "a"})
    assert bindings.broadcast("a") == (first.id, second.id)
    bindings.remove(first.id)
    assert bindings.broadcast("a") == (second.id,)


def test_what_was_matched_once_is_matched_again_in_the_same_way() -> None:
    bindings, (binding,) = bound(TODOS)
    broadcast = bindings.add(BROADCAST, {"event": "a"})
    presence = bindings.add(PRESENCE, {"event": "*"})
    for _ in range(2):
        assert bindings.broadcast("A") == (broadcast.id,)
        assert bindings.named(PRESENCE, "join") == (presence.id,)
        assert bindings.changed([100], "INSERT") == (binding.id,)


def test_a_peer_that_invents_names_does_not_fill_the_memory() -> None:
    bindings = Bindings()
    binding = bindings.add(BROADCAST, {"event": "*"})
    for count in range(5000):
        assert bindings.broadcast(f"name {count}") == (binding.id,)
        assert bindings.changed([count], "INSERT") == ()
    assert len(bindings._broadcasts) <= 1024
    assert len(bindings._routes) <= 1024


# -- the join ----------------------------------------------------------------------------


def test_entries_of_the_join_are_distinct_and_in_order_of_registration() -> None:
    bindings = Bindings()
    users = {"event": "INSERT", "schema": "public", "table": "users"}
    for filter in (TODOS, users, dict(TODOS), {**users, "filter": "id=eq.1"}):
        bindings.add(CHANGES, filter)
    bindings.add(BROADCAST, {"event": "a"})
    assert bindings.postgres_changes() == [TODOS, users, {**users, "filter": "id=eq.1"}]


def test_filters_that_differ_in_selected_columns_are_two_entries() -> None:
    bindings = Bindings()
    for select in (["id"], ["id", "name"], ["id"]):
        bindings.add(CHANGES, {**TODOS, "select": select})
    assert [entry["select"] for entry in bindings.postgres_changes()] == [["id"], ["id", "name"]]


def test_entries_of_the_join_are_copies() -> None:
    bindings = Bindings()
    binding = bindings.add(CHANGES, dict(TODOS))
    bindings.postgres_changes()[0]["table"] = "other"
    assert binding.filter == TODOS


@pytest.mark.conformance("CP6", "CP7", "CP8")
@pytest.mark.parametrize(
    "theirs",
    [
        {**TODOS, "id": 1},
        {**TODOS, "filter": None, "id": 1},
        {**TODOS, "unknown": "field", "id": 1},
    ],
    ids=["the same", "null for absent", "more fields"],
)
def test_an_entry_that_says_the_same_agrees(theirs: dict[str, Any]) -> None:
    assert Bindings().reconcile([TODOS], [theirs]) is None


def test_selected_columns_are_not_compared() -> None:
    """Servers that do not know the option do not echo it."""
    assert Bindings().reconcile([{**TODOS, "select": ["id"]}], [{**TODOS, "id": 1}]) is None


def test_entries_beyond_ours_are_ignored() -> None:
    assert Bindings().reconcile([TODOS], [{**TODOS, "id": 1}, {"event": "*"}]) is None


@pytest.mark.conformance("CP9-CP12")
@pytest.mark.parametrize(
    "joined",
    [
        [],
        [{**TODOS, "table": "users", "id": 1}],
        [{**TODOS, "schema": "private", "id": 1}],
        [{**TODOS, "event": "INSERT", "id": 1}],
        [{**TODOS, "filter": "", "id": 1}],
        [{"event": "*", "schema": "public", "id": 1}],
        [None],
        ["text"],
    ],
    ids=["none", "table", "schema", "event", "filter", "table gone", "null", "no object"],
)
def test_an_entry_that_says_something_else_is_named(joined: list[Any]) -> None:
    difference = Bindings().reconcile([TODOS], joined)
    assert difference is not None
    assert difference.startswith("entry 0: asked for {'event': '*', 'schema': 'public'")


def test_the_event_of_an_entry_is_compared_with_its_case() -> None:
    asked = {**TODOS, "event": "insert"}
    assert Bindings().reconcile([asked], [{**TODOS, "event": "INSERT", "id": 1}]) is not None


def test_a_mismatch_leaves_the_ids_as_they_were() -> None:
    bindings, (binding,) = bound(TODOS)
    assert bindings.reconcile([TODOS], []) is not None
    assert bindings.changed([100], "INSERT") == (binding.id,)


# -- by the server's ids -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "kind", "matches"),
    [
        ("*", "INSERT", True),
        ("*", "TRUNCATE", True),
        ("INSERT", "INSERT", True),
        ("insert", "INSERT", True),
        ("INSERT", "UPDATE", False),
    ],
)
def test_a_change_is_matched_by_id_and_kind(event: str, kind: str, matches: bool) -> None:
    bindings, (binding,) = bound({**TODOS, "event": event})
    assert bindings.changed([100], kind) == ((binding.id,) if matches else ())
    assert bindings.changed([7], kind) == ()


def test_one_change_reaches_the_bindings_of_all_its_ids() -> None:
    bindings, (first, second, third) = bound(
        TODOS, {**TODOS, "event": "INSERT"}, {**TODOS, "table": "users"}
    )
    assert bindings.changed([100, 101], "INSERT") == (first.id, second.id)
    assert bindings.changed([102], "INSERT") == (third.id,)


def test_equal_filters_share_one_server_binding_and_all_of_them_match() -> None:
    bindings, found = bound(TODOS, dict(TODOS), {**TODOS, "filter": "id=eq.1"})
    assert bindings.changed([100], "INSERT") == (found[0].id, found[1].id)
    assert bindings.changed([101], "INSERT") == (found[2].id,)


def test_ids_may_be_texts() -> None:
    bindings = Bindings()
    binding = bindings.add(CHANGES, TODOS)
    assert bindings.reconcile([TODOS], [{**TODOS, "id": "abc"}]) is None
    assert bindings.changed(["abc"], "INSERT") == (binding.id,)


def test_a_rejoin_replaces_the_ids() -> None:
    bindings, (binding,) = bound(TODOS)
    assert bindings.changed([100], "INSERT") == (binding.id,)
    assert bindings.reconcile([TODOS], [{**TODOS, "id": 200}]) is None
    assert bindings.changed([100], "INSERT") == ()
    assert bindings.changed([200], "INSERT") == (binding.id,)


def test_a_binding_added_after_the_join_waits_for_the_next_one() -> None:
    bindings, _ = bound(TODOS)
    late = bindings.add(CHANGES, {**TODOS, "table": "users"})
    assert bindings.changed([100, 101], "INSERT") != (late.id,)
    assert bindings.changed([100], "INSERT") == (1,)


def test_a_binding_with_a_filter_already_bound_shares_its_id_at_once() -> None:
    bindings, (first,) = bound(TODOS)
    second = bindings.add(CHANGES, dict(TODOS))
    assert bindings.changed([100], "INSERT") == (first.id, second.id)


@pytest.mark.parametrize("id", [None, 0, ""])
def test_an_entry_without_a_usable_id_matches_nothing(id: Any) -> None:
    """As in supabase-js, where a falsy id never matches."""
    bindings = Bindings()
    bindings.add(CHANGES, TODOS)
    assert bindings.reconcile([TODOS], [{**TODOS, "id": id}]) is None
    assert bindings.changed([7], "INSERT") == ()
