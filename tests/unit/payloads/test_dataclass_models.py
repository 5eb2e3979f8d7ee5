"""Rows of the database as instances of the user's dataclass."""

from __future__ import annotations

import copy
import dataclasses
import datetime
import enum
import json
import pickle
import uuid
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

import msgspec
import pytest
from dataclasses_json import LetterCase, config, dataclass_json
from hypothesis import given
from hypothesis import strategies as st

from supabase_rt import DecodeError, PostgresChange
from supabase_rt._payloads.models import converter_for
from supabase_rt._payloads.postgres_data import PostgresData, read_postgres_changes
from supabase_rt.rows import pg

COLUMNS = {
    "id": "int8",
    "text": "text",
    "price": "numeric",
    "at": "timestamptz",
    "owner": "uuid",
    "tags": "_text",
    "extra": "jsonb",
    "photo": "bytea",
    "ends": "timetz",
}


def change(
    model: Any,
    record: dict[str, Any] | str | None,
    old: dict[str, Any] | None = None,
    *,
    type: str = "INSERT",
    columns: dict[str, str] = COLUMNS,
    decoded: bool = False,
) -> PostgresChange[Any]:
    """A change as it comes from the wire; with ``decoded``, as if only the standard library could
    read it.
    """
    text = record if isinstance(record, str) else json.dumps(record)
    described = json.dumps([{"name": name, "type": kind} for name, kind in columns.items()])
    frame = (
        f'{{"ids": [1], "data": {{"type": "{type}", "schema": "public", "table": "todos", '
        f'"columns": {described}, "record": {text}, "old_record": {json.dumps(old)}}}}}'
    )
    raw: Any = json.loads(frame) if decoded else msgspec.Raw(frame.encode())
    return PostgresChange(read_postgres_changes(raw).data, converter_for(model))


class Mood(enum.Enum):
    CALM = "calm"


@dataclass
class Todo:
    id: int
    text: str


@dataclass
class Rich:
    id: int
    price: Decimal
    at: datetime.datetime
    owner: uuid.UUID
    tags: list[str]
    extra: dict[str, Any]
    photo: bytes
    ends: datetime.time
    text: Literal["a", "b"] = "a"
    mood: Mood | None = None


RICH = (
    '{"id": 9007199254740993, "price": 1.10, "at": "2026-01-01T00:00:00+00:00", '
    '"owner": "00000000-0000-0000-0000-000000000001", "tags": ["x"], "extra": {"a": [1]}, '
    '"photo": "\\\\x00ff", "ends": "12:00:00+00", "text": "b", "mood": "calm"}'
)


def test_columns_become_what_the_fields_say() -> None:
    assert change(Rich, RICH).new == Rich(
        9007199254740993,
        Decimal("1.10"),
        datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
        uuid.UUID(int=1),
        ["x"],
        {"a": [1]},
        b"\x00\xff",
        datetime.time(12, tzinfo=datetime.UTC),
        "b",
        Mood.CALM,
    )
    assert str(change(Rich, RICH).new.price) == "1.10"


def test_a_row_that_was_decoded_already_gives_the_same() -> None:
    found = change(Rich, RICH, decoded=True).new
    assert found == change(Rich, RICH).new


def test_values_that_old_servers_send_as_text_are_read_by_the_type_of_the_column() -> None:
    assert change(Todo, {"id": "5", "text": "6"}).new == Todo(5, "6")


def test_columns_that_the_model_does_not_name_are_left_out() -> None:
    assert change(Todo, {"id": 1, "text": "x", "owner": "anybody"}).new == Todo(1, "x")


def test_rows_that_are_not_there_are_none() -> None:
    assert change(Todo, {"id": 1, "text": "x"}).old is None
    deleted = change(Todo, None, {"id": 1}, type="DELETE")
    assert deleted.new is None
    assert deleted.old == Todo(1, None)  # type: ignore[arg-type]


def test_of_an_old_row_what_is_not_known_has_its_default() -> None:
    @dataclass
    class Item:
        id: int
        text: str = "-"
        tags: list[str] = field(default_factory=list)

    updated = change(Item, {"id": 1, "text": "x", "tags": []}, {"id": 1}, type="UPDATE")
    assert (updated.new, updated.old) == (Item(1, "x"), Item(1))


def test_the_field_configs_of_dataclasses_json_are_honoured() -> None:
    @dataclass_json
    @dataclass
    class Item:
        key: int = field(metadata=config(field_name="id"))
        words: list[str] = field(metadata=config(field_name="text", decoder=str.split))

    assert change(Item, {"id": 1, "text": "a b"}).new == Item(1, ["a", "b"])


def test_decoders_of_the_standard_library_make_what_they_would() -> None:
    @dataclass
    class Item:
        price: Decimal = field(metadata=config(decoder=Decimal))
        at: datetime.datetime = field(metadata=config(decoder=datetime.datetime.fromisoformat))
        owner: uuid.UUID = field(metadata=config(decoder=uuid.UUID))

    some = str(uuid.UUID(int=1))
    usual = f'{{"price": 1.10, "at": "2026-01-02T03:04:05+05:30", "owner": "{some}"}}'
    found = change(Item, usual).new
    assert str(found.price) == "1.10"
    assert (found.at.isoformat(), found.owner) == ("2026-01-02T03:04:05+05:30", uuid.UUID(int=1))
    other = usual.replace("05+05:30", "05+05").replace(some, f"{{{'0' * 32}}}")
    found = change(Item, other).new
    assert (found.at.isoformat(), found.owner) == ("2026-01-02T03:04:05+05:00", uuid.UUID(int=0))
    with pytest.raises(DecodeError, match="column 'owner' is of type NoneType"):
        change(Item, usual.replace(f'"{some}"', "null")).new


def test_a_generated_row_keeps_every_digit() -> None:
    """Its decoders get the number as it was written."""

    @dataclass(kw_only=True)
    class Item:
        price: Decimal = field(metadata=pg("numeric"))
        steps: list[Decimal | None] = field(metadata=pg("_numeric"))
        class_: str = field(metadata=pg(name="class"))
        photo: bytes | None = field(default=None, metadata=pg("bytea"))

    columns = {"price": "numeric", "steps": "_numeric", "class": "text", "photo": "bytea"}
    row = '{"price": 1.10, "steps": [2.50, null, 3], "class": "x", "photo": "\\\\x01"}'
    wanted = "[Decimal('1.10'), Decimal('2.50'), None, Decimal('3'), 'x', b'\\x01']"
    found = change(Item, row, columns=columns).new
    assert str([found.price, *found.steps, found.class_, found.photo]) == wanted
    again = change(Item, row, columns=columns, decoded=True).new
    assert again == found


@dataclass(kw_only=True)
class Generated:
    """As ``gen types`` writes it."""

    price: Decimal | None = field(metadata=pg("numeric"))
    at: datetime.datetime | None = field(metadata=pg("timestamptz"))
    owner: uuid.UUID = field(metadata=pg("uuid"))
    day: datetime.date = field(default=datetime.date(2026, 1, 1), metadata=pg("date"))
    ends: datetime.time | None = field(default=None, metadata=pg("timetz"))


GENERATED = {
    "price": "numeric",
    "at": "timestamptz",
    "owner": "uuid",
    "day": "date",
    "ends": "timetz",
}
dates = st.dates().map(str) | st.sampled_from(["infinity", "0044-03-15 BC", "10000-01-01"])
moments = st.one_of(
    st.datetimes(timezones=st.timezones()).map(datetime.datetime.isoformat),
    st.sampled_from(["infinity", "2026-01-02 03:04:05+01", "0044-03-15T00:00:00+00:00 BC"]),
)
owners = st.uuids().map(str) | st.uuids().map(lambda found: str(found).upper())
generated = st.fixed_dictionaries(
    {
        "price": st.none() | st.decimals(-1000, 1000, places=2).map(str) | st.just("NaN"),
        "at": st.none() | moments,
        "owner": st.none() | owners | st.text(),
    },
    optional={"day": dates, "ends": st.none() | st.just("12:00:00+00"), "more": st.text()},
)


@given(generated, st.booleans())
def test_a_generated_row_is_that_of_its_decoders(row: dict[str, Any], is_number: bool) -> None:
    """Rows that are decoded at once equal rows that are decoded field by field."""
    values: dict[str, Any] = {}
    for one in dataclasses.fields(Generated):
        if one.name in row:
            values[one.name] = one.metadata["dataclasses_json"]["decoder"](row[one.name])
    text = json.dumps(row)
    if is_number and row["price"] not in (None, "NaN"):
        text = text.replace(f'"{row["price"]}"', row["price"], 1)
    for found in (
        change(Generated, text, columns=GENERATED).new,
        change(Generated, None, json.loads(text), type="DELETE", columns=GENERATED).old,
        change(Generated, text, columns=GENERATED, decoded=True).new,
    ):
        assert found == Generated(**values) or "NaN" in text
        assert repr(found.at) == repr(values["at"])


def test_what_does_not_fit_costs_the_other_fields_no_digit() -> None:
    @dataclass
    class Item:
        price: Decimal = field(metadata=pg("numeric"))
        ends: datetime.time

    row = '{"price": 0.10000000000000000001, "ends": "12:00:00+00"}'
    found = change(Item, row).new
    assert str(found.price) == "0.10000000000000000001"
    assert found.ends == datetime.time(12, tzinfo=datetime.UTC)


def test_fields_are_given_as_their_class_takes_them() -> None:
    """Fields are not passed by position if the constructor takes more or fewer arguments."""

    @dataclass
    class Scaled:
        id: int
        scale: dataclasses.InitVar[int] = 3
        text: str = "-"

        def __post_init__(self, scale: int) -> None:
            self.id *= scale

    @dataclass(init=False)
    class Own:
        id: int
        text: str = "-"

        def __init__(self, *, id: int, text: str = "own") -> None:
            self.id, self.text = id, text

    class Hidden(Own):
        """A class whose signature cannot be read, as for some compiled classes."""

        __signature__ = "?"

    assert change(Hidden, {"id": 2, "text": "x"}).new == Hidden(id=2, text="x")
    assert change(Scaled, {"id": 2, "text": "x"}).new == Scaled(2, 3, "x")
    assert change(Own, {"id": 2}).new == Own(id=2)
    assert change(Own, {"id": 2, "text": "x"}).new == Own(id=2, text="x")


def test_the_letter_case_of_a_class_is_honoured() -> None:
    camel: Any = LetterCase.CAMEL

    @dataclass_json(letter_case=camel)
    @dataclass
    class Item:
        due_date: str

    assert change(Item, {"dueDate": "today"}).new == Item("today")


def test_json_columns_become_nested_dataclasses() -> None:
    @dataclass
    class Inner:
        photo: bytes
        n: int = field(default=0, metadata=config(field_name="N"))

    @dataclass
    class Item:
        one: Inner
        maybe: Inner | None
        many: list[Inner]
        named: dict[str, Inner]

    Item.__annotations__.update(one=Inner, maybe=Inner | None, many=list[Inner])
    Item.__annotations__.update(named=dict[str, Inner])
    inner = {"photo": "00", "N": 3}
    row = {"one": inner, "maybe": None, "many": [inner, inner], "named": {"a": inner}}
    wanted = Inner(b"\x00", 3)
    assert change(Item, row).new == Item(wanted, None, [wanted, wanted], {"a": wanted})


def test_keyword_only_and_computed_fields() -> None:
    @dataclass(kw_only=True)
    class Item:
        id: int
        text: str
        size: int = field(init=False)

        def __post_init__(self) -> None:
            self.size = len(self.text)

    found = change(Item, {"id": 1, "text": "abc"}).new
    assert (found.id, found.size) == (1, 3)


def test_a_type_that_nobody_can_check_is_handed_on() -> None:
    class Odd:
        pass

    @dataclass
    class Item:
        id: int
        text: Any

    Item.__annotations__["text"] = Odd | dict[str, int] | tuple[int, ...] | list[int]
    assert change(Item, {"id": 1, "text": [1]}).new.text == [1]


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"id": "x", "text": "y"}, "column 'id' is of type str, Todo.id expects int"),
        ({"id": 1, "text": None}, "column 'text' is of type NoneType, Todo.text expects str"),
        ({"id": 1, "text": {"a": 1}}, "column 'text' is of type dict, Todo.text expects str"),
        ({"text": "y"}, "column 'id' is missing, Todo.id expects int"),
    ],
)
@pytest.mark.parametrize("decoded", [False, True])
def test_a_row_that_does_not_fit_says_where_and_what(
    row: dict[str, Any], text: str, decoded: bool
) -> None:
    with pytest.raises(DecodeError) as caught:
        change(Todo, row, decoded=decoded).new
    assert str(caught.value) == f"public.todos: {text}"
    assert (caught.value.code, caught.value.retryable) == ("ModelMismatch", False)
    assert "default" in caught.value.hint


def test_a_mismatch_shows_no_value() -> None:
    with pytest.raises(DecodeError) as caught:
        change(Rich, RICH.replace('"b"', '"secret"')).new
    assert "column 'text' is of type str, Rich.text expects" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_decoder_of_decimals_that_fails_names_the_type_of_the_value() -> None:
    @dataclass
    class Item:
        price: Decimal = field(metadata=config(decoder=Decimal))

    with pytest.raises(DecodeError, match="column 'price' is of type str, Item"):
        change(Item, {"price": "much"}).new


def test_a_decoder_that_fails_and_a_nested_column_name_the_column() -> None:
    @dataclass
    class Item:
        id: int
        photo: bytes
        tags: list[int]

    with pytest.raises(DecodeError, match="column 'photo' is of type str"):
        change(Item, {"id": 1, "photo": "zz", "tags": []}).new
    with pytest.raises(DecodeError, match=r"column 'tags' is of type list, .* expects list\[int\]"):
        change(Item, {"id": 1, "photo": "00", "tags": [1, "x"]}).new


def test_half_a_character_costs_no_more_than_the_field_it_stands_in() -> None:
    """Found by fuzzing: if msgspec cannot encode a value, it cannot convert it either."""
    other = RICH.replace('"photo"', r'"\ud800": "\ud800", "photo"')
    # The standard library reads this frame, so the price was a float in between.
    assert change(Rich, other).new == change(Rich, RICH).new
    nested = change(Rich, RICH.replace('{"a": [1]}', r'{"\ud800": [1]}')).new
    assert nested.extra == {"\ud800": [1]}
    with pytest.raises(DecodeError, match="Rich"):
        change(Rich, RICH.replace('"calm"', r'"\ud800"')).new

    @dataclass
    class Priced:
        price: Decimal = field(metadata=pg("numeric"))

    with pytest.raises(DecodeError, match="price"):
        change(Priced, r'{"price": ["\ud800", NaN]}', columns={"price": "numeric"}).new


def test_a_record_that_is_no_row_is_no_model() -> None:
    with pytest.raises(DecodeError, match="missing"):
        change(Todo, "[]").new


def test_a_change_with_a_model_converts_like_any_other() -> None:
    found = change(Todo, {"id": 1, "text": "x", "price": 5})
    assert found.new == Todo(1, "x")
    assert found["new"] is found.new
    as_dict: Any = found.to_dict()
    assert as_dict["new"] == {"id": 1, "text": "x", "price": 5}
    assert PostgresChange.from_dict(as_dict) == found
    assert found == change(Todo, {"id": 1, "text": "x", "price": 5})
    assert PostgresChange[Todo] is PostgresChange


@pytest.mark.parametrize("other", [dict, Todo(1, "x"), 5, "Todo"])
def test_only_a_dataclass_is_a_model(other: Any) -> None:
    with pytest.raises(TypeError, match="model is a dataclass, not"):
        converter_for(other)


def test_two_fields_of_one_column_are_refused() -> None:
    @dataclass
    class Item:
        id: int
        key: int = field(metadata=config(field_name="id"))

    with pytest.raises(TypeError, match="two fields of Item are read from the same column"):
        converter_for(Item)


def test_the_converter_is_compiled_once() -> None:
    assert converter_for(Todo) is converter_for(Todo)


def test_a_change_with_a_model_can_be_copied_and_pickled() -> None:
    found = change(Todo, {"id": 1, "text": "x"})
    for made in (copy.copy(found), copy.deepcopy(found), pickle.loads(pickle.dumps(found))):
        assert made == found
        assert made.new == Todo(1, "x")


@given(st.integers(-(2**70), 2**70), st.text())
def test_whatever_fits_comes_through_unchanged(number: int, text: str) -> None:
    data = PostgresData(type="INSERT", record={"id": number, "text": text})
    decoded: PostgresChange[Any] = PostgresChange(data, converter_for(Todo))
    found = change(Todo, {"id": number, "text": text}).new
    assert found == decoded.new == Todo(number, text)
