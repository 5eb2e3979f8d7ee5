"""PostgREST's own description of its tables."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from supabase_rt.cli.gen_types import Column, Enum, SchemaError, read_openapi, render
from supabase_rt.rows import UNSET

PK = "Note:\nThis is a Primary Key.<pk/>"
FK = "the owner\n\nNote:\nThis is a Foreign Key to `users.id`.<fk table='users' column='id'/>"
STATES = ["new", "done"]


def document(properties: dict[str, Any], required: list[str] | None = None) -> dict[str, Any]:
    table = {"type": "object", "description": "Things", "properties": properties}
    if required is not None:
        table["required"] = required
    return {"swagger": "2.0", "paths": {"/t": {"get": {}, "post": {}}}, "definitions": {"t": table}}


def column(about: dict[str, Any], **document_options: Any) -> Column:
    (table,) = read_openapi(document({"c": about}, **document_options)).tables
    return table.columns[0]


@pytest.mark.parametrize(
    ("format", "type_name"),
    [
        ("bigint", "int8"),
        ("integer", "int4"),
        ("double precision", "float8"),
        ("numeric", "numeric"),
        ("boolean", "bool"),
        ("character varying", "varchar"),
        ("timestamp with time zone", "timestamptz"),
        ("timestamp(3) without time zone", "timestamp"),
        ("time without time zone", "time"),
        ("uuid", "uuid"),
        ("extensions.citext", "citext"),
        ('public."Odd Name"', "Odd Name"),
    ],
)
def test_formats_become_types(format: str, type_name: str) -> None:
    found = column({"format": format, "type": "string"})
    assert (found.type, found.is_array) == (type_name, False)


@pytest.mark.parametrize(
    ("json_type", "type_name"),
    [("integer", "int8"), ("number", "float8"), ("boolean", "bool"), (None, "jsonb")],
)
def test_without_a_format_the_json_type_counts(json_type: str | None, type_name: str) -> None:
    assert column({"type": json_type} if json_type else {}).type == type_name


def test_arrays_have_the_type_of_their_elements() -> None:
    found = column({"format": "numeric[]", "type": "array", "items": {"type": "number"}})
    assert (found.type, found.is_array) == ("numeric", True)


def test_enums_carry_their_values_in_arrays_too() -> None:
    enum = Enum("shop", "state", ("new", "done"))
    plain = column({"format": "shop.state", "type": "string", "enum": STATES})
    array = column(
        {"format": "shop.state[]", "type": "array", "items": {"type": "string", "enum": STATES}}
    )
    assert (plain.enum, array.enum, array.is_array) == (enum, enum, True)


def test_required_columns_are_not_null_and_defaults_are_optional() -> None:
    text = {"format": "text", "type": "string"}
    assert column(text).nullable
    required = column(text, required=["c"])
    assert (required.nullable, required.optional) == (False, False)
    assert column({**text, "default": "x"}, required=["c"]).optional


CASE = {
    "id": {"format": "bigint", "type": "integer", "description": PK},
    "seq": {"format": "integer", "type": "integer"},
    "meta": {"format": "jsonb"},
    "number": {"format": "integer", "type": "integer"},
    "home": {"format": "public.addr", "type": "string"},
    "tags": {"format": "public.mood[]", "type": "array", "items": {"type": "string"}},
}


def written(properties: dict[str, Any]) -> dict[str, Any]:
    """Returns the names of the module that is generated for one table without nullable columns."""
    names: dict[str, Any] = {}
    exec(render(read_openapi(document(properties, list(properties))))[0], names)
    return names


def types(names: dict[str, Any]) -> dict[str, Any]:
    """Returns the types of the columns; outside of a module dataclasses sees no ClassVar."""
    fields = dataclasses.fields(names["TRow"])
    return {field.name: field.type for field in fields if not field.name.startswith("__")}


def test_columns_that_the_database_may_fill_in_are_optional_and_unknown_types_are_any() -> None:
    names = written(CASE)
    made = names["TInsert"]()
    assert [getattr(made, name) for name in CASE] == [UNSET] * len(CASE)
    assert types(names) == {
        "id": "int",
        "seq": "int",
        "meta": "Any",
        "number": "int",
        "home": "Any",
        "tags": "list[Any]",
    }


@pytest.mark.parametrize(
    ("about", "optional"),
    [
        ({"format": "text", "type": "string"}, False),
        ({"format": "uuid", "type": "string"}, False),
        ({"format": "timestamp with time zone", "type": "string"}, False),
        ({"format": "character varying(20)", "type": "string"}, False),
        ({"format": "shop.state", "type": "string", "enum": STATES}, False),
        ({"format": "extensions.citext", "type": "string"}, False),
        ({"format": "uuid", "type": "string", "default": "gen_random_uuid()"}, True),
        ({"format": "numeric(10,2)", "type": "number"}, True),
        ({"format": "double precision", "type": "number"}, True),
        ({"format": "boolean", "type": "boolean"}, True),
        ({"format": "text[]", "type": "array", "items": {"type": "string"}}, True),
        ({"format": "public.addr", "type": "string"}, True),
        ({"format": "addr", "type": "string"}, True),
    ],
)
def test_a_column_is_needed_in_an_insert_only_if_its_default_would_be_shown(
    about: dict[str, Any], optional: bool
) -> None:
    found = column(about, required=["c"])
    assert (found.nullable, found.optional) == (False, optional)


@pytest.mark.parametrize(
    ("format", "json_type", "wanted"),
    [
        ("public.addr", "string", "Any"),
        ("public.date", "string", "Any"),
        ("extensions.hstore", "string", "Any"),
        ("addr", "string", "Any"),
        ("date", "string", "dt.date"),
        ("inet", "string", "str"),
        ('"char"', "string", "str"),
        ("int4range", "string", "str"),
        ("character(3)", "string", "str"),
        ("timestamp(3) without time zone", "string", "dt.datetime"),
        ("extensions.citext", "string", "str"),
        ("extensions.vector(3)", "string", "str"),
    ],
)
def test_a_type_of_unknown_form_is_any(format: str, json_type: str, wanted: str) -> None:
    names = written({"c": {"format": format, "type": json_type}})
    assert types(names) == {"c": wanted}


def test_an_array_of_an_enum_takes_the_values_of_a_column_that_lists_them() -> None:
    names = written(
        {
            "mood": {"format": "public.mood", "type": "string", "enum": ["sad", "glad"]},
            "moods": {"format": "public.mood[]", "type": "array", "items": {"type": "string"}},
        }
    )
    assert types(names) == {"mood": "Mood", "moods": "list[Mood]"}


def test_keys_are_found_and_a_numbered_one_is_optional() -> None:
    found = read_openapi(
        document(
            {
                "id": {"format": "bigint", "type": "integer", "description": PK},
                "owner": {"format": "uuid", "type": "string", "description": FK},
            },
            ["id", "owner"],
        )
    ).tables[0]
    assert found.primary_key == ("id",)
    assert [each.optional for each in found.columns] == [True, False]
    assert [each.comment for each in found.columns] == ["", "the owner"]


def test_a_view_without_post_is_not_writable() -> None:
    described = document({"c": {"format": "text"}})
    assert read_openapi(described).tables[0].writable
    described["paths"]["/t"] = {"get": {}}
    assert not read_openapi(described).tables[0].writable


@pytest.mark.parametrize("wrong", [None, [], {}, {"openapi": "3.0.0", "paths": {}}, "x"])
def test_another_document_is_refused_with_words(wrong: Any) -> None:
    with pytest.raises(SchemaError, match="no OpenAPI description by PostgREST"):
        read_openapi(wrong)
