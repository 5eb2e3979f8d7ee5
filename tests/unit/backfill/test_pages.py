"""Checks that the query strings ask PostgREST for the page that was meant."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supabase_rt._backfill.pages import BackfillPage, carried_over, read_page, read_params
from supabase_rt._protocol.changes_filter import postgres_changes_filter
from supabase_rt.server._http.postgrest.memory_rows import read_rows
from supabase_rt.server._http.postgrest.query import Group, parse_query
from supabase_rt.server._tables.filter_matching import parse, passes
from supabase_rt.server._tables.tables import Table

COLUMNS = {"id": "int8", "at": "timestamptz", "name": "text", "n": "int4"}
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="*\0"), max_size=6)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.integers(0, 20),
            "at": st.sampled_from(["2026-01-01T00:00:00+00:00", "2026-01-01T00:00:00.5+00:00"]),
            "name": st.sampled_from(["a", "a,b", '"', "(x)", "\\", "not.eq.a", ""]),
            "n": st.integers(0, 3) | st.none(),
        }
    ),
    max_size=12,
    unique_by=lambda row: row["id"],
)


def table(rows: list[dict[str, Any]]) -> Table:
    found = Table("public", "things", dict(COLUMNS), ("id",))
    for row in rows:
        found.keep(row)
    return found


def read(found: Table, page: BackfillPage) -> list[dict[str, Any]]:
    return read_rows(found, parse_query(read_params(page)), {})


@given(ROWS, st.integers(1, 4), st.sampled_from([("id",), ("at", "id"), ("name", "at", "id")]))
def test_pages_give_every_row_once_and_in_order(
    rows: list[dict[str, Any]], limit: int, order: tuple[str, ...]
) -> None:
    found, seen = table(rows), []
    page = BackfillPage("public", "things", order, limit=limit)
    while part := read(found, page):
        assert len(part) <= limit
        seen += part
        after = tuple(part[-1][name] for name in order)
        page = BackfillPage("public", "things", order, limit=limit, after=after)
    assert seen == sorted(rows, key=lambda row: tuple(row[name] for name in order))


def test_the_newest_come_last_one_first_and_without_nulls() -> None:
    rows = [{"id": number, "at": None, "name": "", "n": number or None} for number in range(5)]
    page = BackfillPage("public", "things", ("n", "id"), limit=3, newest=True)
    assert [row["id"] for row in read(table(rows), page)] == [4, 3, 2]


@given(
    ROWS,
    st.sampled_from(["eq", "neq", "gt", "lte", "is_distinct", "in_", "not_in"]),
    TEXT | st.sampled_from(["a,b", '"', "(x)", "\\", "not.eq.a"]),
)
def test_a_filter_means_the_same_to_postgrest(
    rows: list[dict[str, Any]], method: str, value: str
) -> None:
    build = postgres_changes_filter()
    if method == "in_":
        build = build.in_("name", [value, "a,b"])
    elif method == "not_in":
        build = build.not_("name", "in", [value, "a"])
    else:
        build = getattr(build, method)("name", value)
    text = build.gte("n", 1).build()
    page = BackfillPage("public", "things", ("id",), filter=text)
    expected = sorted(row["id"] for row in rows if passes(parse(text), row, COLUMNS))
    assert [row["id"] for row in read(table(rows), page)] == expected


def test_columns_and_names_that_need_quotes_get_them() -> None:
    page = BackfillPage("public", "t", ('a "b"', "id"), select=("id", "x.y"), after=("o'\"", 5))
    assert read_params(page) == [
        ("select", 'id,"x.y"'),
        (
            "and",
            (
                '("a \\"b\\"".not.is.null,'
                'or("a \\"b\\"".gt."o\'\\"",and("a \\"b\\"".eq."o\'\\"",id.gt.5)))'
            ),
        ),
        ("order", '"a \\"b\\"".asc,id.asc'),
        ("limit", "500"),
    ]


@pytest.mark.parametrize("filter", ["id", "id=5", "=eq.5", "name=like.a*", "name=not.ilike.*"])
def test_a_filter_with_another_meaning_in_postgrest_is_refused(filter: str) -> None:
    with pytest.raises(ValueError):
        carried_over(filter)


RESERVED = ("order", "limit", "offset", "select", "and", "or", "not", "columns", "apikey")


@pytest.mark.parametrize("name", RESERVED)
@pytest.mark.parametrize("order", [("id",), None])
def test_a_column_with_the_name_of_an_option_of_postgrest_is_a_column(
    name: str, order: tuple[str, ...] | None
) -> None:
    found = Table("public", "things", {"id": "int8", name: "int8"}, ("id",))
    for number in range(6):
        found.keep({"id": number, name: number % 3})
    cursor = order or (name, "id")
    text = postgres_changes_filter().gt(name, 0).in_(name, [0, 2]).is_(name, None).build()
    shorter = text.rpartition(",")[0]
    page = BackfillPage("public", "things", cursor, filter=shorter, select=(name, "id"))
    first, second = read(found, page)
    assert (first, second) == ({name: 2, "id": 2}, {name: 2, "id": 5})
    behind = dataclasses.replace(page, after=tuple(first[column] for column in cursor))
    assert read(found, behind) == [second]
    assert read(found, dataclasses.replace(page, filter=text)) == []


@given(st.lists(TEXT, min_size=1, max_size=3), st.lists(TEXT, min_size=1, max_size=3), TEXT)
def test_no_value_of_a_filter_ends_its_condition(
    first: list[str], second: list[str], third: str
) -> None:
    build = postgres_changes_filter().in_("a", first).not_("b", "in", second).eq("c", third)
    text = build.like("d", third).build()
    (group,) = parse_query(read_params(BackfillPage("public", "t", ("id",), filter=text))).where
    assert isinstance(group, Group)
    found = [(each.column, each.values or each.value) for each in group.parts]  # type: ignore[union-attr]
    assert found == [
        ("a", tuple(dict.fromkeys(first))),
        ("b", tuple(dict.fromkeys(second))),
        ("c", third),
        ("d", third),
        ("id", "null"),
    ]


@pytest.mark.parametrize(
    ("filter", "found"),
    [
        ("n=in.(1, 2)", 'n.in.("1","2")'),
        ('n=in.(a\\,b,"c,d" )', 'n.in.("a,b","c,d")'),
        ("n=in.(f(x),b)", 'n.in.("f(x)","b")'),
        ("n=eq.x)", 'n.eq."x)"'),
        ("n=is.null", "n.is.null"),
        ("n=not.is.true", "n.not.is.true"),
        ("a b=eq.1", '"a b".eq."1"'),
    ],
)
def test_a_filter_written_by_hand_is_carried_over_whole(filter: str, found: str) -> None:
    assert carried_over(filter) == [found]


@pytest.mark.parametrize(
    "filter",
    [
        "n=eq),or(id.gt.0",
        "n=is.null),or(id.gt.0",
        "n=in.1",
        "n=in.(1),or(id.gt.0",
        "n=in.(1,null)",
        'n=in.(1,"2)',
        "id),or(id=gt.0",
    ],
)
def test_a_filter_that_would_read_more_rows_is_refused(filter: str) -> None:
    with pytest.raises(ValueError, match=r"cannot (be read|carry over)"):
        carried_over(filter)


def test_an_empty_filter_is_none() -> None:
    assert carried_over(" ") == []


def test_the_rows_of_an_answer_keep_their_texts() -> None:
    found = read_page(b'[{"id": 1, "n": 1.10}, {"id": 2}]')
    assert found == [{"id": 1, "n": 1.1}, {"id": 2}]
    assert [bytes(row.text or b"") for row in found or ()] == [
        b'{"id": 1, "n": 1.10}',
        b'{"id": 2}',
    ]
    only_json = read_page(b'[{"id": 1, "n": NaN}]')
    assert only_json is not None
    assert (only_json[0]["id"], only_json[0].text) == (1, None)


@pytest.mark.parametrize("body", [b"{}", b"null", b"[1]", b'[{}, "x"]'])
def test_an_answer_that_is_no_list_of_rows_is_none(body: bytes) -> None:
    assert read_page(body) is None
