from __future__ import annotations

import contextlib
import copy
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supabase_rt._protocol.channel import presence_state
from supabase_rt._protocol.channel.presence_state import (
    PresenceState,
    sync_diff,
    sync_state,
    transform,
)
from supabase_rt.errors import DecodeError

ODD_KEYS = ["constructor", "__proto__", "prototype", "toString", "", "metas"]


def meta(ref: str, **fields: Any) -> dict[str, Any]:
    return {"phx_ref": ref, **fields}


def entry(*refs: str) -> dict[str, Any]:
    return {"metas": [meta(ref) for ref in refs]}


def told(events: Any) -> list[tuple[Any, ...]]:
    """Events with refs in place of presences."""
    return [
        (
            event.kind,
            event.key,
            [found["presence_ref"] for found in event.current],
            [found["presence_ref"] for found in event.changed],
        )
        for event in events
    ]


def shown(found: Any) -> dict[str, list[str]]:
    """A public state with refs in place of presences."""
    return {key: [each["presence_ref"] for each in metas] for key, metas in found.list().items()}


def joined(new: Any, join_ref: str | None = "1") -> PresenceState:
    state = PresenceState()
    state.receive_state(new, join_ref)
    return state


SYNC: tuple[Any, ...] = ("sync", "", [], [])


# -- the pure functions ------------------------------------------------------------------


@pytest.mark.conformance("PP1")
def test_syncing_an_empty_state_joins_everybody() -> None:
    new = {"u1": entry("1"), "u2": entry("2")}
    assert sync_state({}, new) == (new, new, {})


def test_syncing_reports_the_new_and_the_gone() -> None:
    found, joins, leaves = sync_state(
        {"u1": entry("1"), "u4": entry("4")}, {"u1": entry("1"), "u2": entry("2")}
    )
    assert found == {"u1": entry("1"), "u2": entry("2")}
    assert (joins, leaves) == ({"u2": entry("2")}, {"u4": entry("4")})


@pytest.mark.conformance("PP3")
def test_syncing_reports_only_the_metas_that_differ() -> None:
    found, joins, leaves = sync_state({"u": entry("1", "2")}, {"u": entry("3", "2")})
    assert (joins, leaves) == ({"u": entry("3")}, {"u": entry("1")})
    assert found == {"u": entry("2", "3")}


def test_a_ref_that_is_known_keeps_the_meta_it_had() -> None:
    state = {"u": {"metas": [meta("1", name="old")]}}
    found, joins, leaves = sync_state(state, {"u": {"metas": [meta("1", name="new")]}})
    assert (found, joins, leaves) == (state, {}, {})


@pytest.mark.conformance("PP4")
def test_a_diff_on_an_empty_state_joins() -> None:
    joins = {"u1": entry("1")}
    assert sync_diff({}, {"joins": joins, "leaves": {}}) == (joins, joins, {})


@pytest.mark.conformance("PP5")
def test_a_meta_joins_behind_those_that_stay_and_the_last_to_leave_takes_the_key() -> None:
    diff = {"joins": {"u1": entry("3")}, "leaves": {"u2": entry("2")}}
    found, _, _ = sync_diff({"u1": entry("1"), "u2": entry("2")}, diff)
    assert found == {"u1": entry("1", "3")}


@pytest.mark.conformance("PA11", "PP6")
def test_one_of_two_devices_leaving_keeps_the_key() -> None:
    state = {"u": entry("1", "2")}
    found, _, leaves = sync_diff(state, {"joins": {}, "leaves": {"u": entry("1")}})
    assert (found, leaves) == ({"u": entry("2")}, {"u": entry("1")})
    assert sync_diff(found, {"joins": {}, "leaves": {"u": entry("2")}})[0] == {}


def test_who_leaves_without_being_there_is_skipped() -> None:
    found = sync_diff({}, {"joins": {}, "leaves": {"u": entry("1")}})
    assert found == ({}, {}, {})


def test_a_join_told_again_replaces_the_meta() -> None:
    state = {"u": {"metas": [meta("1", name="old"), meta("2")]}}
    diff = {"joins": {"u": {"metas": [meta("1", name="new")]}}, "leaves": {}}
    assert sync_diff(state, diff)[0] == {"u": {"metas": [meta("2"), meta("1", name="new")]}}


def test_an_update_is_a_join_and_a_leave_and_keeps_one_meta() -> None:
    diff = {
        "joins": {"u": {"metas": [meta("2", phx_ref_prev="1")]}},
        "leaves": {"u": entry("1")},
    }
    found, _, _ = sync_diff({"u": entry("1")}, diff)
    assert found == {"u": {"metas": [meta("2", phx_ref_prev="1")]}}


def test_other_fields_of_an_entry_survive() -> None:
    state = {"u": {"metas": [meta("1"), meta("2")], "user": "ann"}}
    found, _, _ = sync_diff(state, {"joins": {}, "leaves": {"u": entry("1")}})
    assert found == {"u": {"metas": [meta("2")], "user": "ann"}}


@pytest.mark.conformance("PA12-PA14", "PP7-PP8")
@pytest.mark.parametrize("key", ODD_KEYS)
def test_odd_keys_are_plain_keys(key: str) -> None:
    found, joins, _ = sync_state({}, {key: entry("1")})
    assert found == joins == {key: entry("1")}
    assert transform(found) == {key: [{"presence_ref": "1"}]}
    assert sync_diff(found, {"joins": {}, "leaves": {key: entry("1")}})[0] == {}


# -- properties --------------------------------------------------------------------------

KEYS = st.sampled_from(["a", "b", *ODD_KEYS])


@st.composite
def states(draw: st.DrawFn) -> dict[str, Any]:
    """States in which a ref belongs to one key, as the server's do."""
    found = {}
    for key in draw(st.lists(KEYS, unique=True, max_size=4)):
        numbers = draw(st.lists(st.integers(0, 3), unique=True, min_size=1, max_size=4))
        found[key] = entry(*(f"{key}{number}" for number in numbers))
    return found


def as_sets(state: dict[str, Any]) -> dict[str, set[str]]:
    return {key: {each["phx_ref"] for each in value["metas"]} for key, value in state.items()}


@pytest.mark.conformance("PP1")
@given(states(), states())
def test_syncing_ends_in_the_new_state_and_mutates_nothing(old: Any, new: Any) -> None:
    before = copy.deepcopy((old, new))
    found, joins, leaves = sync_state(old, new)
    assert as_sets(found) == as_sets(new)
    assert (old, new) == before
    assert sync_state(found, new)[1:] == ({}, {})
    assert sync_diff(old, {"joins": joins, "leaves": leaves}) == (found, joins, leaves)
    assert (old, new) == before


@given(states(), states(), states())
def test_applying_a_diff_equals_syncing_to_its_result(old: Any, joins: Any, leaves: Any) -> None:
    before = copy.deepcopy((old, joins, leaves))
    found, _, _ = sync_diff(old, {"joins": joins, "leaves": leaves})
    assert (old, joins, leaves) == before
    assert as_sets(sync_state(old, found)[0]) == as_sets(found)


@given(states(), st.lists(st.tuples(states(), states()), max_size=4))
def test_each_event_shows_the_state_of_its_moment(first: Any, diffs: Any) -> None:
    state = joined(first)
    for joins, leaves in diffs:
        seen = shown(state)
        events = state.receive_diff({"joins": joins, "leaves": leaves}, "1")
        for event in events[:-1]:
            refs = [each["presence_ref"] for each in event.changed]
            left = [ref for ref in seen.get(event.key, []) if ref not in refs]
            seen[event.key] = left + refs if event.kind == "join" else left
            assert shown(event.state) == seen
            if not seen[event.key]:
                del seen[event.key]
        assert shown(events[-1].state) == shown(state) == seen


@given(states(), st.lists(st.tuples(states(), states()), max_size=6), st.data())
def test_what_is_applied_without_events_ends_in_the_same_state(
    first: Any, diffs: Any, data: st.DataObject
) -> None:
    """Diffs with and without events, and the state is read now and then."""
    mixed, whole = joined(first), joined(first)
    for joins, leaves in diffs:
        diff = {"joins": joins, "leaves": leaves}
        whole.receive_diff(diff, "1")
        if data.draw(st.booleans()):
            assert mixed.apply_diff(diff, "1", 100)
        else:
            mixed.receive_diff(diff, "1")
        if data.draw(st.booleans()):
            assert list(mixed.list().items()) == list(whole.list().items())
    assert list(mixed.list().items()) == list(whole.list().items())


@given(states(), st.lists(st.tuples(states(), states()), min_size=1, max_size=4), st.booleans())
def test_an_event_that_is_kept_goes_on_showing_its_moment(
    first: Any, diffs: Any, quietly: bool
) -> None:
    state = joined(first)
    kept: list[Any] = []
    seen: list[Any] = []
    for joins, leaves in diffs:
        events = state.receive_diff({"joins": joins, "leaves": leaves}, "1")
        kept += events
        seen += [shown(event.state) for event in events]
        if quietly:
            state.apply_diff({"joins": leaves, "leaves": joins}, "1", 100)
    assert [shown(event.state) for event in kept] == seen


def test_a_difference_without_events_waits_for_the_state_as_well() -> None:
    state = PresenceState()
    assert not state.apply_diff({"joins": {"u": entry("1")}, "leaves": {}}, "1", 100)
    assert state.list() == {}
    assert told(state.receive_state({}, "1")) == [("join", "u", [], ["1"]), SYNC]


def test_a_difference_costs_no_copy_of_the_state() -> None:
    """With and without events, the state stays one and the same object."""
    state = joined({f"u{number}": entry(str(number)) for number in range(50)})
    before = state._state
    for number in range(50, 60):
        diff = {"joins": {f"u{number}": entry(str(number))}, "leaves": {}}
        state.apply_diff(diff, "1", 100)
        state.receive_diff({"joins": {}, "leaves": diff["joins"]}, "1")
    assert len(state.list()) == 50
    assert state._state is before


# -- what users see ----------------------------------------------------------------------


@pytest.mark.conformance("PA1-PA7", "CR9", "PP9")
def test_metas_show_presence_ref_and_neither_phoenix_ref() -> None:
    state: dict[str, dict[str, Any]] = {
        "u": {"metas": [meta("1", phx_ref_prev="0", name="ann"), meta("2")]},
        "v": {"metas": []},
    }
    assert transform(state) == {
        "u": [{"presence_ref": "1", "name": "ann"}, {"presence_ref": "2"}],
        "v": [],
    }
    assert transform({}) == {}


@pytest.mark.conformance("PA9")
def test_a_tracked_presence_ref_does_not_hide_the_real_one() -> None:
    found = transform({"u": {"metas": [meta("1", presence_ref="mine", __proto__=1)]}})
    assert found == {"u": [{"presence_ref": "1", "__proto__": 1}]}


@pytest.mark.conformance("PA8")
def test_what_is_handed_out_can_be_changed_without_harm() -> None:
    new = {"u": {"metas": [meta("1", nested={"list": [{"n": 1}]})]}}
    state = PresenceState()
    [join, sync] = state.receive_state(new, "1")
    for found in (join.changed, state.list()["u"], sync.state.list()["u"]):
        found[0]["nested"]["list"][0]["n"] = 2
        found.clear()
    assert state.list() == {"u": [{"presence_ref": "1", "nested": {"list": [{"n": 1}]}}]}
    assert new == {"u": {"metas": [meta("1", nested={"list": [{"n": 1}]})]}}


def test_a_meta_nested_absurdly_deep_is_shared_rather_than_fatal() -> None:
    deep: list[Any] = []
    for _ in range(sys.getrecursionlimit() + 10):
        deep = [deep]
    state = joined({"u": {"metas": [meta("1", deep=deep, phx_ref_prev="0")]}})
    [found] = state.list()["u"]
    assert found["deep"] is deep
    assert list(found) == ["presence_ref", "deep"]


# -- a channel's presence ----------------------------------------------------------------


@pytest.mark.conformance("CR5", "PP2")
def test_a_state_tells_joins_and_leaves_and_one_sync() -> None:
    state = joined({"u1": entry("1", "2"), "u2": entry("9")})
    events = state.receive_state({"u1": entry("2", "3"), "u3": entry("4")}, "1")
    assert told(events) == [
        ("join", "u1", ["1", "2"], ["3"]),
        ("join", "u3", [], ["4"]),
        ("leave", "u2", [], ["9"]),
        ("leave", "u1", ["2", "3"], ["1"]),
        SYNC,
    ]
    assert shown(state) == {"u1": ["2", "3"], "u3": ["4"]}


def test_during_a_state_the_old_state_is_shown_until_the_sync() -> None:
    state = joined({"u1": entry("1")})
    join, leave, sync = state.receive_state({"u2": entry("2")}, "1")
    assert shown(join.state) == shown(leave.state) == {"u1": ["1"]}
    assert shown(sync.state) == {"u2": ["2"]}


def test_during_a_diff_the_state_is_shown_as_far_as_it_is_applied() -> None:
    state = joined({"u1": entry("1"), "u2": entry("2")})
    diff = {
        "joins": {"u3": entry("3"), "u1": entry("4")},
        "leaves": {"u2": entry("2"), "u1": entry("1")},
    }
    events = state.receive_diff(diff, "1")
    assert told(events) == [
        ("join", "u3", [], ["3"]),
        ("join", "u1", ["1"], ["4"]),
        ("leave", "u2", [], ["2"]),
        ("leave", "u1", ["4"], ["1"]),
        SYNC,
    ]
    assert [shown(event.state) for event in events] == [
        {"u1": ["1"], "u2": ["2"], "u3": ["3"]},
        {"u1": ["1", "4"], "u2": ["2"], "u3": ["3"]},
        {"u1": ["1", "4"], "u2": [], "u3": ["3"]},
        {"u1": ["4"], "u3": ["3"]},
        {"u1": ["4"], "u3": ["3"]},
    ]


@pytest.mark.conformance("PA10", "PP14")
def test_an_update_is_told_as_join_then_leave_then_one_sync() -> None:
    state = joined({"u": entry("1")})
    diff = {"joins": {"u": {"metas": [meta("2", phx_ref_prev="1")]}}, "leaves": {"u": entry("1")}}
    assert told(state.receive_diff(diff, "1")) == [
        ("join", "u", ["1"], ["2"]),
        ("leave", "u", ["2"], ["1"]),
        SYNC,
    ]
    assert shown(state) == {"u": ["2"]}


def test_a_join_without_metas_makes_a_key_without_metas() -> None:
    state = joined({})
    join, sync = state.receive_diff({"joins": {"u": entry()}, "leaves": {}}, "1")
    assert shown(join.state) == shown(sync.state) == {"u": []}


@pytest.mark.conformance("CR6", "PP12")
def test_a_diff_before_the_state_waits_for_it() -> None:
    state = PresenceState()
    assert state.receive_diff({"joins": {"u2": entry("2")}, "leaves": {}}, "1") == []
    assert state.receive_diff({"joins": {}, "leaves": {"u1": entry("1")}}, "1") == []
    assert state.list() == {}
    events = state.receive_state({"u1": entry("1")}, "1")
    assert told(events) == [
        ("join", "u1", [], ["1"]),
        ("join", "u2", [], ["2"]),
        ("leave", "u1", [], ["1"]),
        SYNC,
    ]
    assert [shown(event.state) for event in events] == [
        {},
        {"u1": ["1"], "u2": ["2"]},
        {"u1": [], "u2": ["2"]},
        {"u2": ["2"]},
    ]
    assert told(state.receive_state({"u2": entry("2")}, "1")) == [SYNC]


@pytest.mark.conformance("PP12")
def test_after_a_rejoin_the_old_state_stays_until_the_new_one_and_diffs_wait() -> None:
    state = joined({"u1": entry("1")}, "1")
    assert state.receive_diff({"joins": {"u3": entry("3")}, "leaves": {}}, "5") == []
    assert shown(state) == {"u1": ["1"]}
    events = state.receive_state({"u2": entry("2")}, "5")
    assert told(events) == [
        ("join", "u2", [], ["2"]),
        ("leave", "u1", [], ["1"]),
        ("join", "u3", [], ["3"]),
        SYNC,
    ]
    assert shown(state) == {"u2": ["2"], "u3": ["3"]}


@pytest.mark.parametrize("last_waits", [True, False])
def test_what_waited_in_an_earlier_join_brings_nobody_back(last_waits: bool) -> None:
    state = PresenceState()
    state.receive_diff({"joins": {"ghost": entry("1")}, "leaves": {}}, "1")
    if last_waits:
        state.receive_diff({"joins": {"u": entry("2")}, "leaves": {}}, "5")
    state.receive_state({}, "5")
    assert shown(state) == ({"u": ["2"]} if last_waits else {})


def test_without_a_join_diffs_wait_as_well() -> None:
    state = joined({}, None)
    assert state.receive_diff({"joins": {"u": entry("1")}, "leaves": {}}, None) == []


def test_waiting_diffs_are_bounded_and_the_latest_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence_state, "PENDING_LIMIT", 2)
    state = PresenceState()
    for number in "123":
        state.receive_diff({"joins": {number: entry(number)}, "leaves": {}}, "1")
    state.receive_state({}, "1")
    assert list(state.list()) == ["2", "3"]


def test_waiting_diffs_are_bounded_in_bytes_too() -> None:
    # Others choose the size of the diffs, and a channel that never asks for the state gets them
    # too.
    state = PresenceState()
    for number in range(40):
        large = {"metas": [{"phx_ref": str(number), "x": "x" * 2**20}]}
        state.receive_diff({"joins": {str(number): large}, "leaves": {}}, "1")
    state.receive_state({}, "1")
    assert list(state.list()) == [str(number) for number in range(33, 40)]


def test_a_waiting_diff_of_unknown_size_is_kept_alone() -> None:
    state = PresenceState()
    deep: Any = 1
    for _ in range(20_000):
        deep = [deep]
    for key, value in (("1", "x"), ("2", deep), ("3", "x")):
        metas = [{"phx_ref": key, "x": value}]
        state.receive_diff({"joins": {key: {"metas": metas}}, "leaves": {}}, "1")
    state.receive_state({}, "1")
    assert list(state.list()) == ["3"]


def crowd(group: int, count: int = 20_000) -> dict[str, Any]:
    return {f"{group}-{n}": entry(f"{group}-{n}") for n in range(count)}


def size_of(diff: Any) -> int:
    """About the bytes of its JSON."""
    return 48 * len(diff["joins"])


def test_a_server_that_invents_keys_does_not_fill_the_memory() -> None:
    state = joined({})
    errors = []
    for group in range(8):
        diff = {"joins": crowd(group), "leaves": {}}
        try:
            if group % 2:
                state.apply_diff(diff, "1", size_of(diff))
            else:
                state.receive_diff(diff, "1", size_of(diff))
        except DecodeError as error:
            errors.append(error)
    assert {error.code for error in errors} == {"PresenceTooLarge"}
    refused = len(errors)
    assert 80_000 <= len(state.list()) <= 120_000
    assert len(state.list()) == 20_000 * (8 - refused)


def test_small_diffs_do_not_fill_the_memory_either() -> None:
    state = joined({})
    refused = 0
    for group in range(2_000):
        diff = {"joins": crowd(group, 100), "leaves": {}}
        try:
            state.apply_diff(diff, "1", size_of(diff))
        except DecodeError:
            with contextlib.suppress(DecodeError):
                state.receive_diff(diff, "1", size_of(diff))
                continue
            refused += 1
    assert refused > 500
    assert len(state.list()) < 150_000


def test_lists_in_a_meta_count_by_the_memory_that_they_take() -> None:
    state = joined({"u": entry("1")})
    lists = {"metas": [meta("2", x=[[]] * 2**21)]}
    with pytest.raises(DecodeError, match="64 MiB"):
        state.receive_diff({"joins": {"v": lists}, "leaves": {}}, "1", 2**23)
    assert shown(state) == {"u": ["1"]}


def test_a_full_state_still_lets_leave_and_then_has_room_again() -> None:
    large = {str(n): {"metas": [meta(str(n), x="x" * 2**20)]} for n in range(63)}
    state = joined(large)
    more = {"v": {"metas": [meta("v", x="x" * 2**21)]}}
    with pytest.raises(DecodeError):
        state.receive_diff({"joins": more, "leaves": {}}, "1", 2**21)
    assert state.receive_diff({"joins": {}, "leaves": {"1": large["1"], "2": large["2"]}}, "1", 99)
    state.receive_diff({"joins": more, "leaves": {}}, "1", 2**21)
    assert len(state.list()) == 62


def test_a_state_beyond_the_bound_changes_nothing() -> None:
    state = joined({"u": entry("1")})
    with pytest.raises(DecodeError, match="64 MiB"):
        state.receive_state(crowd(0, 200_000), "2")
    assert told(state.receive_diff({"joins": {}, "leaves": {}}, "1")) == [SYNC]
    assert shown(state) == {"u": ["1"]}


def test_a_payload_of_absurd_depth_is_weighed_too() -> None:
    deep: Any = 1
    for _ in range(20_000):
        deep = [deep]
    state = joined({"u": {"metas": [meta("1", x=deep)]}})
    diff = {"joins": {"v": entry("2")}, "leaves": {}}
    for _ in range(10):
        state.receive_diff(diff, "1", 2**20)
    assert sorted(state.list()) == ["u", "v"]


def test_a_busy_room_is_weighed_seldom() -> None:
    """Its diffs are small, so that most of them are only added up."""
    state = joined(crowd(0, 1_000))
    for number in range(1_000):
        came = {"v": entry(str(number))}
        assert state.apply_diff({"joins": came, "leaves": {}}, "1", 300)
        assert state.apply_diff({"joins": {}, "leaves": came}, "1", 300)
    assert len(state.list()) == 1_000


BAD_STATES: list[Any] = [
    None,
    [],
    "state",
    {"u": None},
    {"u": []},
    {"u": {}},
    {"u": {"metas": {}}},
    {"u": {"metas": ["1"]}},
    {"u": {"metas": [{}]}},
    {"u": {"metas": [{"phx_ref": 1}]}},
    {"good": {"metas": [{"phx_ref": "1"}]}, "u": {"metas": [{"phx_ref": None}]}},
]


@pytest.mark.parametrize("bad", BAD_STATES)
def test_a_malformed_state_changes_nothing(bad: Any) -> None:
    state = joined({"u": entry("1")})
    with pytest.raises(DecodeError, match="presence state"):
        state.receive_state(bad, "2")
    with pytest.raises(DecodeError):
        sync_state({}, bad)
    assert told(state.receive_diff({"joins": {}, "leaves": {}}, "1")) == [SYNC]
    assert shown(state) == {"u": ["1"]}


@pytest.mark.parametrize("join_ref", ["1", "2"])
@pytest.mark.parametrize(
    "bad",
    [
        None,
        [],
        {},
        {"joins": {}},
        *({"joins": {"new": entry("9")}, "leaves": bad} for bad in BAD_STATES),
        *({"joins": bad, "leaves": {}} for bad in BAD_STATES),
    ],
)
def test_a_malformed_diff_changes_nothing(bad: Any, join_ref: str) -> None:
    state = joined({"u": entry("1")})
    with pytest.raises(DecodeError, match="presence diff"):
        state.receive_diff(bad, join_ref)
    assert shown(state) == {"u": ["1"]}
    state.receive_state({}, "2")
    assert shown(state) == {}
