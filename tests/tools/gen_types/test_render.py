"""Generated modules can be imported, match the schema, and read and write its rows."""

from __future__ import annotations

import dataclasses
import datetime as dt
import inspect
import itertools
import sys
import types
import typing
from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supabase_rt.cli.gen_types import Column, Enum, Schema, SchemaError, SchemaTable, render
from supabase_rt.rows import UNSET

STATE = Enum("public", "todo_state", ("new", "in progress", "done"))
TODOS = SchemaTable(
    "public",
    "todos",
    (
        Column("id", "int8", nullable=False, optional=True),
        Column("title", "text", nullable=False, optional=False),
        Column("class", "varchar", nullable=False, optional=False, comment="what kind"),
        Column("state", "todo_state", nullable=False, enum=STATE),
        Column("states", "todo_state", is_array=True, enum=STATE),
        Column("price", "numeric", nullable=False, optional=False),
        Column("prices", "numeric", is_array=True),
        Column("due", "timestamptz"),
        Column("on", "date"),
        Column("at", "time"),
        Column("owner", "uuid"),
        Column("meta", "jsonb"),
        Column("raw", "bytea"),
        Column("size", "int4range"),
        Column("total", "numeric", generated=True),
    ),
    ("id",),
    comment="Things to do",
)
ROW = {
    "id": 2**60,
    "title": "x",
    "class": "k",
    "state": "in progress",
    "states": ["new", "done"],
    "price": 1.5,
    "prices": ["1", 2.25],
    "due": "2026-01-01T00:00:00+00:00",
    "on": "2026-01-02",
    "at": "10:00:00",
    "owner": "6f1c5f9e-7c2b-4a0e-9d64-2f2f3d3f1111",
    "meta": {"a": [1]},
    "raw": "\\x0102",
    "size": "[1,3)",
    "total": None,
}
numbers = itertools.count()


@pytest.fixture(autouse=True)
def modules() -> Iterator[None]:
    """Dataclasses look their own module up by name."""
    yield
    for name in [name for name in sys.modules if name.startswith("generated_")]:
        del sys.modules[name]


def load(*tables: SchemaTable) -> Any:
    text, _ = render(Schema(tables))
    module = types.ModuleType(f"generated_{next(numbers)}")
    sys.modules[module.__name__] = module
    exec(compile(text, module.__name__, "exec"), module.__dict__)
    return module


def test_a_row_is_read_into_the_types_of_its_columns() -> None:
    row = load(TODOS).TodosRow.from_dict(ROW)
    assert (row.id, row.title, row.class_) == (2**60, "x", "k")
    assert [row.state, *row.states] == ["in progress", "new", "done"]
    assert type(row.state).__name__ == type(row.states[0]).__name__ == "TodoState"
    assert (row.price, row.prices) == (Decimal("1.5"), [Decimal("1"), Decimal("2.25")])
    assert row.due == dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    assert (row.on, row.at) == (dt.date(2026, 1, 2), dt.time(10))
    assert row.owner == UUID("6f1c5f9e-7c2b-4a0e-9d64-2f2f3d3f1111")
    assert (row.meta, row.raw, row.size, row.total) == ({"a": [1]}, b"\x01\x02", "[1,3)", None)


def test_an_element_of_an_array_may_be_null() -> None:
    kinds = ("int8", "text", "bool", "float8", "numeric")
    table = SchemaTable("public", "lists", tuple(Column(f"c_{k}", k, is_array=True) for k in kinds))
    row = {"c_int8": [1, None], "c_text": ["a", None], "c_bool": [True, None]}
    row |= {"c_float8": [[1.5], [None]], "c_numeric": None}
    found = load(table).ListsRow.from_dict(row)
    assert found.to_dict() == row


def test_a_row_is_written_as_it_was_read() -> None:
    """Numbers are written exactly, as text, which PostgREST accepts for numeric."""
    row = load(TODOS).TodosRow.from_dict(ROW)
    assert row.to_dict() == {**ROW, "price": "1.5", "prices": ["1", "2.25"]}


def test_inserts_and_updates_leave_out_what_is_not_set() -> None:
    found = load(TODOS)
    made = found.TodosInsert(title="x", class_="k", price=Decimal("1.10"))
    assert made.to_dict() == {"title": "x", "class": "k", "price": "1.10"}
    assert made.id is UNSET
    assert found.TodosUpdate(due=None).to_dict() == {"due": None}
    with pytest.raises(TypeError, match="title"):
        found.TodosInsert(class_="k", price=Decimal(1))
    with pytest.raises(TypeError, match="total"):
        found.TodosInsert(title="x", class_="k", price=Decimal(1), total=Decimal(1))


def test_a_class_knows_its_table() -> None:
    row = load(TODOS).TodosRow
    assert (row.__schema__, row.__table__, row.__primary_key__) == ("public", "todos", ("id",))
    assert inspect.getdoc(row) == "A row of public.todos.\n\nThings to do"


def test_a_view_that_cannot_be_written_has_rows_only() -> None:
    view = dataclasses.replace(TODOS, name="open_todos", writable=False)
    found = load(view)
    assert hasattr(found, "OpenTodosRow")
    assert not hasattr(found, "OpenTodosInsert")


def test_an_unknown_value_of_an_enum_is_an_error() -> None:
    with pytest.raises(ValueError, match="nonsense"):
        load(TODOS).TodosRow.from_dict({**ROW, "state": "nonsense"})


def test_names_that_collide_are_numbered_and_said() -> None:
    """Both tables and both columns are there, and the renaming is reported."""
    columns = tuple(Column(name, "int4") for name in ("a-b", "a b", "a_b", "todo", "Todo"))
    enum = Enum("public", "todo", ("a-b", "a b", ""))
    tables = [SchemaTable("public", name, columns) for name in ("to_do", "to do", "to-do")]
    tables.append(SchemaTable("public", "holder", (Column("kind", "todo", enum=enum),)))
    text, collisions = render(Schema(tuple(tables)))
    assert "class ToDoRow" in text
    assert "class ToDo_2Row" in text
    assert "class ToDo_3Row" in text
    assert collisions[:2] == [
        "table public.to do is ToDo_2: ToDo is taken",
        "table public.to-do is ToDo_3: ToDo is taken",
    ]
    assert "column public.to_do.a b is a_b_2: the name is taken" in collisions
    found = load(*tables)
    assert [field.name for field in dataclasses.fields(found.ToDoRow)] == [
        "a_b",
        "a_b_2",
        "a_b_3",
        "todo",
        "Todo_2",
    ]
    assert list(found.Todo) == ["a-b", "a b", ""]


def test_tables_of_two_schemas_with_one_name_are_told_apart_by_it() -> None:
    tables = [
        SchemaTable(schema, "todos", (Column("id", "int4"),)) for schema in ("public", "shop")
    ]
    found = load(*tables)
    assert (found.PublicTodosRow.__schema__, found.ShopTodosRow.__schema__) == ("public", "shop")


def test_only_and_exclude_choose_tables() -> None:
    schema = Schema((TODOS, dataclasses.replace(TODOS, name="notes")))
    assert [table.name for table in schema.only(["notes"], []).tables] == ["notes"]
    assert [table.name for table in schema.only([], ["public.notes"]).tables] == ["todos"]
    with pytest.raises(SchemaError, match="no table 'todo'; the tables: notes, todos"):
        schema.only(["todo"], [])


def test_the_same_schema_gives_the_same_text() -> None:
    assert render(Schema((TODOS,))) == render(Schema((TODOS,)))


# Any names, and any comments.
NAMES = st.text(min_size=1, max_size=12) | st.sampled_from(
    [
        "class",
        "schema",
        "list",
        "self",
        "dt",
        "field",
        "__init__",
        "None",
        "2fa",
        "to_dict",
        "_",
        "'",
    ]
)
COMMENTS = st.text(max_size=20) | st.sampled_from(['"""', "\\", '\\"', "\n", "{x}", "'''", "#"])
TYPES = st.sampled_from(["int4", "text", "numeric", "timestamptz", "uuid", "bytea", "jsonb", "x"])


@st.composite
def columns(draw: st.DrawFn) -> tuple[Column, ...]:
    enum = draw(st.none() | st.builds(Enum, NAMES, NAMES, st.lists(NAMES, unique=True).map(tuple)))
    made = [
        Column(
            name,
            draw(TYPES),
            is_array=draw(st.booleans()),
            nullable=draw(st.booleans()),
            optional=draw(st.booleans()),
            enum=draw(st.sampled_from([None, enum])),
            comment=draw(COMMENTS),
        )
        for name in draw(st.lists(NAMES, unique=True, min_size=1, max_size=3))
    ]
    return tuple(made)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(NAMES, columns(), COMMENTS),
        min_size=1,
        max_size=2,
        unique_by=lambda each: each[0],
    )
)
def test_any_names_and_comments_give_a_module_with_every_column(
    found: list[tuple[str, tuple[Column, ...], str]],
) -> None:
    """This includes the names of an attacker who wants to run code where types are generated."""
    tables = [SchemaTable("public", name, columns, comment=about) for name, columns, about in found]
    module = load(*tables)
    rows = {
        vars(value)["__table__"]: value
        for name, value in vars(module).items()
        if name.endswith("Row") and dataclasses.is_dataclass(value)
    }
    assert set(rows) == {table.name for table in tables}
    for table in tables:
        row: Any = rows[table.name]
        typing.get_type_hints(row)
        if any(not column.nullable for column in table.columns):
            continue
        empty = dict.fromkeys((column.name for column in table.columns), None)
        assert row.from_dict(empty).to_dict() == empty
