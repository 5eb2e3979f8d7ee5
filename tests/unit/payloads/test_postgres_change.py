"""Changes of the database as handlers see them."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supabase_rt._payloads.postgres_change import PostgresChange
from supabase_rt._payloads.postgres_data import PostgresData, read_postgres_changes
from supabase_rt._payloads.presence_events import PresenceSync
from supabase_rt._wire.serializer import decode_text
from supabase_rt.errors import DecodeError

# As a real server sent them.
UPDATE = (
    '{"ref":null,"payload":{"data":{"table":"messages","type":"UPDATE","record":{"n": 7, "id": 665,'
    ' "body": "changed", "meta": {"a": [1, 2]}, "room": "r1", "inserted_at": '
    '"2026-11-23T16:34:10.447753+00:00"},"columns":[{"name": "id", "type": "int8"}, {"name": "room"'
    ', "type": "text"}, {"name": "body", "type": "text"}, {"name": "n", "type": "int4"}, {"name": '
    '"meta", "type": "jsonb"}, {"name": "inserted_at", "type": "timestamptz"}],"errors":null,'
    '"schema":"public","commit_timestamp":"2026-11-23T16:34:11.274Z","old_record":{"n": 7, "id": '
    '665, "body": "héllo \\"wörld\\"", "meta": {"a": [1, 2]}, "room": "r1", "inserted_at": '
    '"2026-11-23T16:34:10.447753+00:00"}},"ids":[124973000,72696871]},"event":"postgres_changes",'
    '"topic":"realtime:pgc"}'
)
INSERT = (
    '{"ref":null,"payload":{"data":{"table":"plain","type":"INSERT","record":{"v": "x", "id": 3},'
    '"columns":[{"name": "id", "type": "int8"}, {"name": "v", "type": "text"}],"errors":null,'
    '"schema":"public","commit_timestamp":"2026-11-23T16:34:12.310Z"},"ids":[29290737]},'
    '"event":"postgres_changes","topic":"realtime:pgc"}'
)
DELETE = (
    '{"ref":null,"payload":{"data":{"table":"plain","type":"DELETE","columns":[{"name": "id", '
    '"type": "int8"}, {"name": "v", "type": "text"}],"errors":null,"schema":"public",'
    '"commit_timestamp":"2026-11-23T16:34:12.310Z","old_record":{"id": 3}},"ids":[29290737]},'
    '"event":"postgres_changes","topic":"realtime:pgc"}'
)
TOO_LARGE = (
    '[null,null,"realtime:bulk","postgres_changes",{"data":{"table":"messages","type":"INSERT",'
    '"record":{"id": 4442, "room": "big"},"columns":[{"name": "id", "type": "int8"}, '
    '{"name": "room", "type": "text"}, {"name": "body", "type": "text"}],'
    '"errors":["Error 413: Payload Too Large"],"schema":"public",'
    '"commit_timestamp":"2026-11-23T17:15:52.391Z"},"ids":[72696871]}]'
)
EXACT: dict[str, Any] = {
    "type": "INSERT",
    "schema": "public",
    "table": "prices",
    "columns": [{"name": "price", "type": "numeric"}, {"name": "at", "type": "timestamptz"}],
}


def data_of(frame: str) -> PostgresData:
    message = decode_text("2.0.0" if frame.startswith("[") else "1.0.0", frame)
    return read_postgres_changes(message.payload).data


def change_of(frame: str, types: str = "js") -> PostgresChange:
    return PostgresChange(data_of(frame), types)


def raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(value if isinstance(value, bytes) else json.dumps(value).encode())


def exact(types: str) -> PostgresChange:
    record = b'{"price": 1.10, "at": "2026-01-02T03:04:05+00:00"}'
    text = json.dumps({"ids": [1], "data": EXACT})[:-2].encode() + b', "record": ' + record + b"}}"
    return PostgresChange(read_postgres_changes(raw(text)).data, types)


# -- the envelope -----------------------------------------------------------------------------


def test_the_ids_and_the_data_of_a_change_are_read() -> None:
    found = read_postgres_changes(decode_text("1.0.0", UPDATE).payload)
    assert found.ids == [124973000, 72696871]
    assert (found.data.type, found.data.schema, found.data.table) == (
        "UPDATE",
        "public",
        "messages",
    )
    assert found.data.commit_timestamp == "2026-11-23T16:34:11.274Z"
    assert found.data.errors is None
    assert isinstance(found.data.record, msgspec.Raw)


def test_ids_may_be_texts() -> None:
    assert read_postgres_changes(raw({"ids": ["a", 1], "data": {"type": "x"}})).ids == ["a", 1]
    assert read_postgres_changes({"ids": ["a", 1], "data": {"type": "x"}}).ids == ["a", 1]


def test_plain_data_is_read_alike() -> None:
    plain = json.loads(UPDATE)["payload"]
    found = read_postgres_changes(plain)
    assert found.ids == plain["ids"]
    assert PostgresChange(found.data) == change_of(UPDATE)


def test_a_frame_that_only_json_reads_is_read() -> None:
    text = b'{"ids":[1],"data":{"type":"INSERT","table":"\\ud800","record":{"a":1e400}}}'
    found = PostgresChange(read_postgres_changes(raw(text)).data)
    assert found.table == "\ud800"
    assert found.new == {"a": float("inf")}


@pytest.mark.parametrize(
    "bad",
    [
        None,
        1,
        [],
        {},
        {"ids": [1]},
        {"data": {"type": "INSERT"}},
        {"ids": {}, "data": {"type": "INSERT"}},
        {"ids": [1], "data": []},
        {"ids": [1], "data": {}},
        {"ids": [1], "data": {"type": 1}},
        {"ids": [1.5], "data": {"type": "INSERT"}},
        {"ids": [True], "data": {"type": "INSERT"}},
        {"ids": [None], "data": {"type": "INSERT"}},
        {"ids": [1], "data": {"type": "INSERT", "schema": 1}},
        {"ids": [1], "data": {"type": "INSERT", "table": []}},
        {"ids": [1], "data": {"type": "INSERT", "commit_timestamp": 5}},
    ],
)
def test_a_malformed_change_is_a_decode_error(bad: Any) -> None:
    with pytest.raises(DecodeError, match="postgres_changes"):
        read_postgres_changes(bad)
    with pytest.raises(DecodeError, match="postgres_changes"):
        read_postgres_changes(raw(bad))


def test_a_change_that_is_no_json_is_a_decode_error() -> None:
    with pytest.raises(DecodeError):
        read_postgres_changes(raw(b'{"ids":[1],'))


# -- rows -------------------------------------------------------------------------------------


@pytest.mark.conformance("CP21")
def test_an_update_has_both_rows() -> None:
    change = change_of(UPDATE)
    plain = json.loads(UPDATE)["payload"]["data"]
    assert change.new == plain["record"]
    assert change.old == plain["old_record"]
    assert (change.event_type, change.schema, change.table) == ("UPDATE", "public", "messages")
    assert change.commit_timestamp == "2026-11-23T16:34:11.274Z"
    assert change.errors is None


def test_an_insert_has_no_old_row() -> None:
    change = change_of(INSERT)
    assert (change.new, change.old) == ({"v": "x", "id": 3}, {})


@pytest.mark.conformance("CP21")
def test_a_delete_has_no_new_row() -> None:
    change = change_of(DELETE)
    assert (change.new, change.old) == ({}, {"id": 3})


def test_rows_of_an_unknown_type_are_empty() -> None:
    data = PostgresData("TRUNCATE", "public", "t", record={"a": 1}, old_record={"a": 1})
    change = PostgresChange(data)
    assert (change.event_type, change.new, change.old) == ("TRUNCATE", {}, {})


@pytest.mark.parametrize("kind", ["INSERT", "UPDATE", "DELETE"])
def test_missing_rows_are_empty(kind: str) -> None:
    change = PostgresChange(PostgresData(kind))
    assert (change.new, change.old) == ({}, {})
    assert (change.schema, change.table, change.commit_timestamp) == (None, None, None)


def test_the_errors_of_the_server_are_passed_on() -> None:
    change = change_of(TOO_LARGE)
    assert change.errors == ["Error 413: Payload Too Large"]
    assert change.new == {"id": 4442, "room": "big"}


def test_a_row_is_converted_once_and_only_when_read() -> None:
    bad = raw(b'{"ids":[1],"data":{"type":"UPDATE","columns":1,"record":[],"old_record":"x"}}')
    change = PostgresChange(read_postgres_changes(bad).data)
    assert change.event_type == change["eventType"] == "UPDATE"
    assert repr(change) == "<PostgresChange UPDATE unreadable: DecodeError>"
    for key in ("new", "old"):
        with pytest.raises(DecodeError):
            change[key]
    good = change_of(UPDATE)
    assert good.new is good.new
    assert good.old is good.old


def test_rows_are_converted_as_types_say() -> None:
    assert repr(exact("js").new["price"]) == "1.1"
    assert repr(exact("python").new["price"]) == "Decimal('1.10')"
    assert exact("python").new["at"].year == 2026
    assert exact("raw").new["at"] == "2026-01-02T03:04:05+00:00"
    with pytest.raises(ValueError, match='"js", "python" or "raw"'):
        exact("JS").new


# -- the mapping ------------------------------------------------------------------------------

KEYS = ["schema", "table", "commit_timestamp", "eventType", "new", "old", "errors"]


@pytest.mark.conformance("CP15", "CP19")
def test_a_change_is_a_mapping_with_the_keys_of_js() -> None:
    change = change_of(INSERT)
    assert isinstance(change, Mapping)
    assert list(change) == list(change.keys()) == KEYS
    assert len(change) == 7
    assert dict(change) == {
        "schema": "public",
        "table": "plain",
        "commit_timestamp": "2026-11-23T16:34:12.310Z",
        "eventType": "INSERT",
        "new": {"v": "x", "id": 3},
        "old": {},
        "errors": None,
    }
    assert "eventType" in change
    assert "event_type" not in change
    assert "errors" in change
    assert change.get("errors", 1) is None
    assert change.get("columns") is None


def test_a_change_can_be_matched() -> None:
    match change_of(INSERT):
        case {"eventType": "INSERT", "new": {"id": row_id}}:
            assert row_id == 3
        case _:
            raise AssertionError("not matched")
    match change_of(DELETE):
        case PostgresChange(event_type="DELETE", old={"id": row_id}):
            assert row_id == 3
        case _:
            raise AssertionError("not matched")


def test_the_other_spelling_is_answered_with_the_right_one() -> None:
    change: Any = change_of(INSERT)
    with pytest.raises(KeyError, match="the key is 'eventType'"):
        change["event_type"]
    with pytest.raises(AttributeError, match="in Python it is 'event_type'"):
        change.eventType
    with pytest.raises(KeyError, match=r"^'columns'$"):
        change["columns"]
    with pytest.raises(AttributeError, match="has no attribute 'record'"):
        change.record


@pytest.mark.parametrize("name", ["event_type", "new", "old", "schema", "made_up"])
def test_a_change_is_read_only(name: str) -> None:
    change = change_of(INSERT)
    with pytest.raises(AttributeError):
        setattr(change, name, 1)
    assert not hasattr(change, "__dict__")


def test_the_repr_shows_the_row_and_is_short() -> None:
    columns = [{"name": name, "type": "text"} for name in ("text", "id")]
    row = {"text": "hello", "id": 1}
    data = PostgresData("INSERT", "public", "messages", columns=columns, record=row)
    assert repr(PostgresChange(data)) == "<PostgresChange INSERT public.messages " + repr(row) + ">"
    gone = PostgresChange(PostgresData("DELETE", "public", "messages", old_record={"id": 7}))
    assert repr(gone) == "<PostgresChange DELETE public.messages {'id': 7}>"
    data.record = {"text": "x" * 10**6, "id": [[[[[1]]]]] * 10**4}
    assert len(repr(PostgresChange(data))) <= 122
    assert repr(PostgresChange(data)).endswith("...>")
    found = repr(change_of(TOO_LARGE))
    assert found == (
        "<PostgresChange INSERT public.messages errors=['Error 413: Payload Too Large'] "
        "{'id': 4442, 'room': 'big'}>"
    )
    huge = PostgresData("x" * 9999, "y" * 9999, "z" * 9999, errors=["w" * 9999] * 9999)
    assert len(repr(PostgresChange(huge))) <= 122


# -- equality and conversion ------------------------------------------------------------------


@pytest.mark.parametrize("types", ["js", "python", "raw"])
@pytest.mark.parametrize("frame", [INSERT, UPDATE, DELETE, TOO_LARGE])
def test_a_change_goes_to_plain_data_and_back(frame: str, types: str) -> None:
    change = change_of(frame, types)
    plain = change.to_dict()
    assert list(plain) == KEYS
    assert json.loads(change.to_json()) == plain
    assert change == plain
    assert PostgresChange.from_dict(plain) == change
    assert PostgresChange.from_json(change.to_json()) == change
    assert PostgresChange.from_dict(plain).to_dict() == plain
    for made in (copy.copy(change), copy.deepcopy(change), pickle.loads(pickle.dumps(change))):
        assert made == change
        assert dict(made) == dict(change)


def test_python_objects_turn_plain() -> None:
    change = exact("python")
    plain = change.to_dict()
    assert plain["new"] == {"price": 1.1, "at": "2026-01-02T03:04:05+00:00"}
    assert json.loads(change.to_json()) == plain
    assert change == PostgresChange.from_dict(plain) == plain
    assert change == {**plain, "new": {"price": Decimal("1.10"), "at": change.new["at"]}}


def test_numbers_that_json_lacks_are_texts() -> None:
    columns = [{"name": "f", "type": "float8"}]
    data = PostgresData("INSERT", columns=columns, record={"f": "-Infinity"})
    for types in ("js", "python"):
        change = PostgresChange(data, types)
        assert change.new == {"f": -float("inf")}
        assert change.to_dict()["new"] == {"f": "-Infinity"}
        assert PostgresChange.from_json(change.to_json()) == change


def test_what_is_given_out_is_a_copy() -> None:
    change = change_of(UPDATE)
    change.to_dict()["new"]["meta"]["a"].append(3)
    assert change.new["meta"] == {"a": [1, 2]}


def test_changes_are_equal_by_value() -> None:
    assert change_of(INSERT) == change_of(INSERT, "python")
    assert change_of(INSERT) != change_of(DELETE)
    assert change_of(INSERT) != PresenceSync()
    assert change_of(INSERT) != {}
    assert change_of(INSERT) != 1
    with pytest.raises(TypeError):
        hash(change_of(INSERT))


def test_what_is_missing_in_a_dict_is_empty() -> None:
    change = PostgresChange.from_dict({"eventType": "INSERT", "new": {"a": 1}})
    assert change == {**dict.fromkeys(KEYS), "eventType": "INSERT", "new": {"a": 1}, "old": {}}


@pytest.mark.parametrize(
    "bad",
    [
        None,
        [],
        {},
        {"event_type": "INSERT"},
        {"eventType": 1},
        {"eventType": "INSERT", "new": None},
        {"eventType": "INSERT", "old": []},
        {"eventType": "INSERT", "schema": 1},
        {"eventType": "INSERT", "table": 1},
        {"eventType": "INSERT", "commit_timestamp": 1},
        {"eventType": "INSERT", "errors": "x"},
    ],
)
def test_a_dict_of_another_shape_is_refused(bad: Any) -> None:
    with pytest.raises(ValueError):
        PostgresChange.from_dict(bad)
    with pytest.raises(ValueError):
        PostgresChange.from_json(json.dumps(bad))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
rows = st.dictionaries(st.sampled_from("abc"), json_values)


@given(
    st.sampled_from(["INSERT", "UPDATE", "DELETE"]),
    st.dictionaries(
        st.sampled_from("abc"), st.sampled_from(["numeric", "text", "_int4", "bool", "jsonb"])
    ),
    rows,
    rows,
    st.sampled_from(["js", "python", "raw"]),
)
def test_every_change_survives_its_dict_and_its_json(
    kind: str, types: dict[str, str], new: Any, old: Any, mode: str
) -> None:
    columns = [{"name": name, "type": type_name} for name, type_name in types.items()]
    data = {"type": kind, "columns": columns, "record": new, "old_record": old}
    change = PostgresChange(read_postgres_changes(raw({"ids": [], "data": data})).data, mode)
    assert PostgresChange.from_dict(change.to_dict()) == change
    assert PostgresChange.from_json(change.to_json()) == change


@given(st.binary() | json_values, json_values)
def test_nothing_but_a_decode_error_comes_out_of_garbage(payload: Any, record: Any) -> None:
    data = {"type": "UPDATE", "record": record, "old_record": record, "columns": record}
    for found in (payload, {"ids": [1], "data": payload}, {"ids": [1], "data": data}):
        try:
            dict(PostgresChange(read_postgres_changes(found).data))
        except DecodeError:
            pass
