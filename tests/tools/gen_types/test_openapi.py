"""PostgREST's own description of its tables."""

from __future__ import annotations

from typing import Any

import pytest

from supabase_rt.cli.gen_types import Column, Enum, SchemaError, read_openapi

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
