"""Schemas with names chosen to break the generated code.

Names may be any text of Postgres: names that the module itself uses, names that Python folds
into them (NFKC), and texts that would end a docstring. Either the generated module can be
imported and reads a row, or the source is refused in one line.
"""

from __future__ import annotations

import ast
import builtins
import dataclasses
import enum
import itertools
import json
import keyword
import sys
import types
import typing
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supabase_rt.cli import main
from supabase_rt.cli.gen_types import (
    Column,
    Enum,
    Schema,
    SchemaError,
    SchemaTable,
    read_openapi,
    render,
)
from supabase_rt.cli.gen_types.from_database import _column

from ...support.raw_output import HOSTILE, found_raw

numbers = itertools.count()


@pytest.fixture(autouse=True)
def modules() -> Iterator[None]:
    """Dataclasses look their own module up by name."""
    yield
    for name in [name for name in sys.modules if name.startswith("hostile_")]:
        del sys.modules[name]


def load(schema: Schema) -> Any:
    text, collisions = render(schema)
    assert found_raw("\n".join([text, *collisions])) is None
    assert only_declarations(text), text
    module = types.ModuleType(f"hostile_{next(numbers)}")
    sys.modules[module.__name__] = module
    exec(compile(text, module.__name__, "exec"), module.__dict__)
    return module


def only_declarations(text: str) -> bool:
    """Returns True if the module has only imports, classes, annotated fields and members."""
    body = ast.parse(text).body
    docstring, *rest = body
    assert isinstance(docstring, ast.Expr)
    assert isinstance(docstring.value, ast.Constant)
    return all(
        isinstance(each, ast.ImportFrom | ast.Import | ast.ClassDef) for each in rest
    ) and all(
        isinstance(inner, ast.AnnAssign | ast.Assign | ast.Expr)
        and not (isinstance(inner, ast.Expr) and not isinstance(inner.value, ast.Constant))
        for each in rest
        if isinstance(each, ast.ClassDef)
        for inner in each.body
    )


def row_of(module: Any, table: str) -> Any:
    (found,) = (
        value
        for name, value in vars(module).items()
        if name.endswith("Row") and vars(value).get("__table__") == table
    )
    return found


VALUES = {
    "int4": (1, int),
    "text": ("x", str),
    "numeric": (1.5, None),
    "timestamptz": ("2026-01-01T00:00:00+00:00", None),
    "uuid": ("6f1c5f9e-7c2b-4a0e-9d64-2f2f3d3f1111", None),
    "bool": (True, bool),
}


def check(schema: Schema) -> None:
    """Check that each table's row, insert and update can be imported, read and written."""
    module = load(schema)
    for table in schema.tables:
        row = row_of(module, table.name)
        hints = typing.get_type_hints(row)
        given = {}
        for column in table.columns:
            if column.enum is not None:
                value: Any = column.enum.values[0]
            else:
                value = VALUES.get(column.type, ("x", str))[0]
            given[column.name] = [value] if column.is_array else value
        found = row.from_dict(given)
        assert len(dataclasses.fields(row)) == len(table.columns)
        for field, column in zip(dataclasses.fields(row), table.columns, strict=True):
            value = getattr(found, field.name)
            element = value[0] if column.is_array else value
            assert field.name in hints
            if column.enum is not None:
                assert type(element).__module__ == module.__name__
                assert element == column.enum.values[0]
                members: Any = type(element)
                assert list(members) == list(column.enum.values)
            else:
                kind = VALUES.get(column.type, ("x", str))[1]
                assert kind is None or type(element) is kind
        written = found.to_dict(encode_json=False)
        assert list(written) == [column.name for column in table.columns]
        assert row.from_json(found.to_json()) == found
        assert isinstance(repr(found), str)
        assert found == row.from_dict(given)
        for ending in ("Insert", "Update"):
            other = getattr(module, f"{row.__name__.removesuffix('Row')}{ending}", None)
            if other is not None:
                assert other.from_dict(given).to_dict().keys() == given.keys()
                typing.get_type_hints(other)
        assert module.__dict__["UNSET"] is not None


def columns(*names: str, type: str = "int4", **about: Any) -> tuple[Column, ...]:
    return tuple(Column(name, type, nullable=False, **about) for name in names)


def folded(name: str) -> str:
    """Returns another name that Python takes for the same identifier."""
    letters = {c: chr(0x1D5BA + ord(c) - 97) for c in "abcdefghijklmnopqrstuvwxyz"}
    return name[0].translate({ord(k): v for k, v in letters.items()}) + name[1:]


USED = [
    "tuple",
    "dataclass",
    "dataclass_json_config",
    "field",
    "pg",
    "dt",
    "int",
    "str",
    "bool",
    "list",
    "float",
    "bytes",
    "dict",
    "object",
    "type",
    "property",
    "classmethod",
    "Any",
    "ClassVar",
    "Decimal",
    "UUID",
    "UNSET",
    "StrEnum",
    "DataClassJsonMixin",
    "annotations",
    "schema",
    "from_dict",
    "to_dict",
    "from_json",
    "to_json",
    "self",
    "cls",
    "_",
    "__class__",
    "__init__",
    "__post_init__",
    "__slots__",
    "__dict__",
    "__eq__",
    "__hash__",
    "__repr__",
    "__schema__",
    "__table__",
    "__primary_key__",
    "__annotations__",
    "__dataclass_fields__",
    "__match_args__",
    "__module__",
    "__name__",
    "__doc__",
    "__debug__",
    "__mod",
    "_private",
    "_FIELD",
    "MISSING",
    "None",
    "True",
    "debug",
    "match",
    "case",
    "type",
    "print",
    "exec",
    "__import__",
    "__builtins__",
    "TRow",
    "TInsert",
    *keyword.kwlist,
    *keyword.softkwlist,
]
NAMES = list(dict.fromkeys([*USED, *(folded(name) for name in USED if name[0].islower())]))


ALL = [*NAMES, "ᵈataclass", "ⁱnt", "ﬁeld", "ｓtr", "𝓁ist"]
BUILTINS = [name for name in dir(builtins) if name not in ALL]


@pytest.mark.parametrize("name", ["tuple", "dataclass_json_config", "ᵈataclass", "ⁱnt"])
def test_a_name_of_the_module_may_be_a_column_an_enum_or_a_table(name: str) -> None:
    check(with_names([name]))


@pytest.mark.parametrize("start", range(0, len(ALL + BUILTINS), 40))
def test_all_names_of_the_module_and_of_python_may_be_columns_enums_and_tables(start: int) -> None:
    check(with_names((ALL + BUILTINS)[start : start + 40]))


def with_names(names: list[str]) -> Schema:
    enums = [Enum("public", name, ("a", "b", name)) for name in names if name not in ("a", "b")]
    typed = (
        *columns("title\n", "tags\n", type="text", optional=False),
        Column("prices\n", "numeric", is_array=True),
        *columns("price\n", type="numeric"),
        *columns("due\n", type="timestamptz"),
        *columns("owner\n", type="uuid"),
        *columns("done\n", type="bool"),
    )
    states = [
        Column(f"{name}\n", name, nullable=False, is_array=n % 2 == 0, enum=enum)
        for n, (name, enum) in enumerate(zip(names, enums, strict=False))
    ]
    # The column is in the middle, because a field hides a name from the fields below it.
    mine = (*typed[:3], *columns(*names), *typed[3:], *states)
    return Schema(
        (
            SchemaTable("public", "all of them", mine, tuple(names)),
            *(SchemaTable("public", name, columns(name, "n\n"), (name,)) for name in names),
        )
    )


def test_names_that_python_takes_for_one_become_two() -> None:
    mine = columns("int", "ⁱnt", "a", "ª", "ﬁ", "fi", "field", "ﬁeld")
    enums = [Enum("public", name, ("x",)) for name in ("state", "ˢtate", "State", "STATE")]
    states = (Column(f"c{n}", e.name, nullable=False, enum=e) for n, e in enumerate(enums))
    tables = [SchemaTable("public", name, (*mine, *states)) for name in ("t", "ᵗ", "T")]
    module = load(Schema(tuple(tables)))
    assert len([name for name in vars(module) if name.endswith("Row")]) == 3
    check(Schema(tuple(tables)))


def test_members_of_an_enum_are_those_of_the_type_whatever_they_are_called() -> None:
    values = (
        *dir(str),
        *dir(enum.Enum),
        *keyword.kwlist,
        "name",
        "value",
        "mro",
        "_value_",
        "_missing_",
        "_ignore_",
        "_order_",
        "_generate_next_value_",
        "_sunder_",
        "__dunder__",
        "__private",
        "_State__x",
        "",
        " ",
        "ª",
        "a",
        "A",
        "\u202e",
        HOSTILE.replace("\ud800", ""),
        '"""',
        "\\",
        "\n    import os",
    )
    state = Enum("public", "state", tuple(dict.fromkeys(values)))
    check(
        Schema((SchemaTable("public", "t", (Column("s", "state", nullable=False, enum=state),)),))
    )


def test_an_array_of_more_dimensions_than_there_are_is_one_of_six() -> None:
    module = load(Schema((SchemaTable("public", "t", (Column("a", "int4", True, 5000),)),)))
    assert row_of(module, "t").from_dict({"a": [[1]]}).a == [[1]]


@pytest.mark.parametrize(
    "words",
    [
        '"""\nimport os\n"""',
        '"',
        '""" + x',
        "\\",
        '\\"""',
        "\nx = 1",
        "\r",
        "\x0c",
        "\u2028x = 1",
        "'''",
    ],
)
def test_names_and_comments_cannot_leave_their_place(words: str) -> None:
    kind = Enum(words, words, (words, "b"))
    mine = (
        Column(words, "int4", nullable=False, comment=words),
        Column("e", words, nullable=False, enum=kind, comment=words),
    )
    check(Schema((SchemaTable(words, words, mine, (words,), comment=words),)))


# -- any names -----------------------------------------------------------------------------

ANY_NAME = (
    st.text(
        st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=9
    )
    | st.sampled_from(NAMES)
    | st.sampled_from(NAMES).map(lambda name: f"_{name}")
    | st.sampled_from(NAMES).map(lambda name: f"{name}_")
    | st.sampled_from(NAMES).map(str.upper)
    | st.sampled_from(NAMES).map(lambda name: unicodedata.normalize("NFD", name))
)
TYPES = st.sampled_from([*VALUES, "x"])


@st.composite
def schemas(draw: st.DrawFn) -> Schema:
    enums = draw(
        st.lists(
            st.builds(
                Enum, ANY_NAME, ANY_NAME, st.lists(ANY_NAME, min_size=1, unique=True).map(tuple)
            ),
            max_size=3,
        )
    )
    tables = []
    for name in draw(st.lists(ANY_NAME, min_size=1, max_size=3, unique=True)):
        mine = []
        for column in draw(st.lists(ANY_NAME, min_size=1, max_size=5, unique=True)):
            kind = draw(st.sampled_from([None, *enums]))
            mine.append(
                Column(
                    column,
                    draw(TYPES) if kind is None else kind.name,
                    is_array=draw(st.booleans()),
                    nullable=draw(st.booleans()),
                    optional=draw(st.booleans()),
                    enum=kind,
                    comment=draw(ANY_NAME),
                )
            )
        keys = tuple(column.name for column in mine[: draw(st.integers(0, 2))])
        tables.append(SchemaTable("public", name, tuple(mine), keys, comment=draw(ANY_NAME)))
    return Schema(tuple(tables))


@settings(max_examples=25, deadline=None)
@given(schemas())
def test_any_names_give_a_module_that_reads_and_writes_rows(schema: Schema) -> None:
    check(schema)


@settings(max_examples=15, deadline=None)
@given(schemas())
def test_any_names_of_a_catalog_give_such_a_module(schema: Schema) -> None:
    """Through the rows that ``read_database`` makes columns of."""
    tables = []
    for table in schema.tables:
        mine = []
        for each in table.columns:
            kind = "e" if each.enum else "b"
            space = each.enum.schema if each.enum else "pg_catalog"
            values = list(each.enum.values) if each.enum else None
            about = [each.name, each.type, kind, space, each.is_array, not each.nullable]
            mine.append(_column([*about, False, False, each.comment, values, int(each.is_array)]))
        tables.append(dataclasses.replace(table, columns=tuple(mine)))
    check(Schema(tuple(tables)))


@settings(max_examples=15, deadline=None)
@given(
    st.dictionaries(
        ANY_NAME,
        st.dictionaries(
            ANY_NAME, st.lists(ANY_NAME, max_size=3, unique=True), min_size=1, max_size=4
        ),
        min_size=1,
        max_size=3,
    )
)
def test_any_names_of_a_description_give_such_a_module(
    found: dict[str, dict[str, list[str]]],
) -> None:
    definitions = {
        table: {
            "properties": {
                name: {"type": "string", "format": f"public.{name}", "enum": values}
                if values
                else {"type": "integer", "format": "integer"}
                for name, values in mine.items()
            },
            "required": list(mine),
            "description": table,
        }
        for table, mine in found.items()
    }
    document = json.loads(json.dumps({"definitions": definitions}))
    schema = read_openapi(document)
    assert [table.name for table in schema.tables] == list(found)
    check(schema)


# -- descriptions of another shape ---------------------------------------------------------

JUNK: list[Any] = [
    5,
    5.5,
    True,
    None,
    "text",
    [],
    [5],
    {},
    {"a": 5},
    [None],
    [[["a"]]],
    [{"a": []}],
    "",
]


@pytest.mark.parametrize("junk", JUNK, ids=repr)
@pytest.mark.parametrize("place", ["required", "properties", "description", "type"])
def test_a_table_of_another_shape_is_read_or_refused(place: str, junk: Any) -> None:
    about = {"properties": {"a": {"type": "integer"}}, "required": ["a"], place: junk}
    readable({"definitions": {"t": about}})


@pytest.mark.parametrize("junk", JUNK, ids=repr)
@pytest.mark.parametrize("place", ["enum", "type", "format", "items", "default", "description"])
def test_a_column_of_another_shape_is_read_or_refused(place: str, junk: Any) -> None:
    readable({"definitions": {"t": {"properties": {"a": {"type": "string", place: junk}}}}})
    items = {"type": "string", place: junk}
    column = {"type": "array", "items": items}
    readable({"definitions": {"t": {"properties": {"a": column}}}})


@pytest.mark.parametrize("junk", JUNK, ids=repr)
@pytest.mark.parametrize("place", ["definitions", "paths"])
def test_a_document_of_another_shape_is_read_or_refused(place: str, junk: Any) -> None:
    table = {"properties": {"a": {"type": "integer"}}}
    readable({"definitions": {"t": table}, "paths": {}, place: junk})
    readable({"definitions": {"t": junk}, "paths": {"/t": junk}})
    readable({"definitions": {"t": {"properties": {"a": junk}}}, "paths": {"/t": junk}})
    readable(junk)


def readable(document: Any) -> None:
    try:
        schema = read_openapi(document)
    except SchemaError:
        return
    load(schema)


def test_required_and_enum_of_another_shape_are_named_in_the_refusal() -> None:
    about: dict[str, Any]
    for place, about in (
        ("required", {"properties": {"a": {}}, "required": 5}),
        ("enum", {"properties": {"a": {"enum": 5}}}),
    ):
        with pytest.raises(SchemaError, match=f"'t.*{place!r}"):
            read_openapi({"definitions": {"t": about}})


@pytest.mark.parametrize("depth", [500, 5000, 200_000])
def test_nesting_without_end_is_refused_in_one_line(
    depth: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "openapi.json"
    nested = '{"a":' * depth + "1" + "}" * depth
    path.write_text(
        f'{{"definitions": {{"t": {{"properties": {nested}, "description": {nested}}}}}}}'
    )
    code = main(["gen", "types", "--from-file", str(path)])
    said = capsys.readouterr()
    assert code in (0, 1)
    assert "Traceback" not in said.err
    assert code == 0 or len(said.err.splitlines()) == 1


def test_a_name_with_a_lone_surrogate_gives_a_file_of_python(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """JSON may contain a NUL, though Postgres may not."""
    path = tmp_path / "openapi.json"
    for place in ("table", "column", "enum", "comment"):
        words = {
            each: "\ud800" if each == place else each
            for each in ("table", "column", "enum", "comment")
        }
        about = {"enum": [words["enum"]], "description": words["comment"]}
        table = {"properties": {words["column"]: about}}
        path.write_text(json.dumps({"definitions": {words["table"]: table}}))
        output = tmp_path / f"{place}.py"
        code = main(["gen", "types", "--from-file", str(path), "-o", str(output)])
        assert found_raw(capsys.readouterr().err) is None
        assert code == 0
        compile(output.read_text(encoding="utf-8"), "x", "exec")
