"""The progress of a handler: the rows it remembers, and where the next reading begins."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supabase_rt._backfill.progress import Progress, RowPosition, Window

NOW = 1_700_000_000.0


def progress(rows: int = 3, seconds: float = 60.0, **about: Any) -> Progress:
    found = Progress("id", ("id",), rows=rows, seconds=seconds, page=5)
    found.set_start([], NOW)
    return found


def place(found: Progress, **row: Any) -> RowPosition:
    position = found.position_of(row)
    assert position is not None
    return position


def after(found: Progress) -> Any:
    found.begin()
    try:
        return found.window().after
    finally:
        found.end()


def handle(found: Progress, *numbers: int, at: float = NOW) -> None:
    for number in numbers:
        found.handled(place(found, id=number), at)


def test_reading_begins_so_many_rows_back() -> None:
    found = progress(rows=3, seconds=0.0)
    handle(found, 1, 2, 3)
    assert after(found) is None
    handle(found, 4, at=NOW + 1000)
    assert after(found) == (1,)
    handle(found, 5, at=NOW + 1001)
    assert after(found) == (2,)


def test_reading_begins_so_many_seconds_back_if_that_is_further() -> None:
    found = progress(rows=1, seconds=60.0)
    for number in range(1, 11):
        handle(found, number, at=NOW + 10.0 * number)
    # 60 s of overlap and 10 s for delivery before the last row: row 3 came at that moment.
    assert after(found) == (2,)
    handle(found, 11, at=NOW + 10_000.0)
    assert after(found) == (10,)


def test_rows_from_before_the_start_are_never_read() -> None:
    found = Progress("id", ("id",), rows=3, seconds=60.0)
    assert found.start_window() == Window(None, 4, newest=True)
    found.set_start([{"id": number} for number in (9, 8, 7, 6)], NOW)
    assert after(found) == (6,)
    notes = found.handled(place(found, id=10), NOW + 1)
    assert after(found) == (6,)
    again = Progress("id", ("id",), rows=3, seconds=60.0)
    base = Progress("id", ("id",), rows=3, seconds=60.0).set_start(
        [{"id": number} for number in (9, 8, 7, 6)], NOW
    )
    again.restore({**base.put, **notes.put})
    assert (again.started, after(again)) == (True, (6,))


def test_a_table_that_was_empty_is_read_from_its_first_row() -> None:
    assert after(progress()) is None


def test_an_empty_store_is_no_start() -> None:
    found = Progress("id", ("id",), rows=3, seconds=60.0)
    found.restore({})
    assert not found.started


@pytest.mark.parametrize(
    "notes",
    [
        {"heard": "x"},
        {"heard": "1.0", "[null]": "1.0"},
        {"heard": "1.0", "[7]": "1.0", "[8, 8]": "1.0"},
        {"heard": "1.0", "[7]": "1.0", "floor": "8"},
        {"heard": "1.0", "[7]": "1.0", "nonsense": "1.0"},
        {"heard": "1.0", "[7]": "1.0", '"8"': "1.0"},
        {"heard": "1.0", "[7]": "inf"},
        {"heard": "nan", "[7]": "1.0"},
    ],
)
def test_nonsense_in_a_store_is_refused_as_a_whole(notes: dict[str, str]) -> None:
    found = Progress("id", ("id",), rows=3, seconds=60.0)
    with pytest.raises((ValueError, TypeError)):
        found.restore(notes)
    assert (len(found), found.started) == (0, False)


def test_rows_below_the_oldest_needed_are_forgotten_in_the_store_too() -> None:
    found = progress(rows=10, seconds=5.0)
    kept: dict[str, str] = {}
    for number in range(2000):
        notes = found.handled(place(found, id=number), NOW + number)
        kept.update(notes.put)
        for name in notes.remove:
            del kept[name]
    assert len(found) < 300
    assert len(kept) == len(found) + 1
    assert after(found) == (1983,)
    again = Progress("id", ("id",), rows=10, seconds=5.0)
    again.restore(kept)
    assert after(again) in ((1982,), (1983,))


@given(st.datetimes(), st.datetimes())
def test_moments_are_ordered_as_moments_however_they_are_written(one: Any, other: Any) -> None:
    found = Progress("at", ("id",), rows=3, seconds=60.0)

    def position(moment: Any, zone: str) -> Any:
        return place(found, at=f"{moment.isoformat()}{zone}", id=1).sort_key

    if abs((one - other).total_seconds()) > 0.001:
        assert (position(one, "Z") < position(other, "+00:00")) == (one < other)
    assert position(one, "Z") == position(one, "+00:00") == position(one, "")


def test_a_position_needs_every_column() -> None:
    found = Progress("at", ("a", "b"), rows=3, seconds=60.0)
    assert found.columns == ("at", "a", "b")
    assert not found.by_key
    assert found.position_of({"at": None, "a": 1, "b": 2}) is None
    assert found.position_of({"at": "2026-01-01", "a": 1}) is None
    row = {"at": "2026-01-01T00:00:00Z", "a": 1, "b": "x"}
    position = place(found, **row)
    assert position.values == ("2026-01-01T00:00:00Z", 1, "x")
    assert position.key == '["2026-01-01T00:00:00Z",1,"x"]'


def test_older_versions_of_a_row_that_was_read_are_known() -> None:
    found = Progress("at", ("id",), rows=3, seconds=60.0)
    found.set_start([], NOW)

    def version(second: int, number: int = 1) -> RowPosition:
        return place(found, at=f"2026-01-01T00:00:{second:02}+00:00", id=number)

    found.handled(version(1), NOW)
    assert not found.is_known(version(1)), "a change may come twice in one transaction"
    found.handled(version(5), NOW, read=True)
    assert [found.is_known(version(second)) for second in (1, 4, 5, 6)] == [True, True, True, False]
    assert not found.is_known(version(4, number=2))


def test_text_that_is_no_moment_is_ordered_as_text() -> None:
    found = Progress("code", ("id",), rows=3, seconds=60.0)
    places = [place(found, code=code, id=1).sort_key for code in ("b", "a", "B")]
    assert sorted(places) == [places[2], places[1], places[0]]


def test_rows_that_the_reading_still_needs_are_not_forgotten() -> None:
    found = Progress("id", ("id",), rows=2, seconds=0.0, page=5, prune_every=1)
    found.set_start([], NOW)
    handle(found, 10, 20, 30, at=NOW)
    found.begin()
    for number in (1, 2, 3, 4):
        position = place(found, id=number)
        found.handled(position, NOW + 100 + number, read=True)
        found.advance(position)
        found.page_done(NOW + 100)
    assert found.heard_until == NOW
    assert all(found.is_handled(place(found, id=number)) for number in (10, 20, 30))
    found.page_done(NOW + 200, is_last=True)
    found.end()
    assert found.heard_until == NOW + 200
    # The last three rows are 20, 30 and 40 now.
    assert found.handled(place(found, id=40), NOW + 201).remove != []
    assert not found.is_handled(place(found, id=4))


def test_versions_that_were_read_are_forgotten_with_their_positions() -> None:
    found = Progress("at", ("id",), rows=1, seconds=0.0, prune_every=1)
    found.set_start([], NOW)

    def version(number: int) -> RowPosition:
        return place(found, at=number, id=1)

    for number in range(1, 6):
        found.handled(version(number), NOW + 100.0 * number, read=True)
    assert not found.is_handled(version(1))
    assert found.is_known(version(1)), "an older version than one that is remembered"
    for number in range(6, 12):
        found.handled(version(number), NOW + 100.0 * number)
    assert not found.is_known(version(5))
