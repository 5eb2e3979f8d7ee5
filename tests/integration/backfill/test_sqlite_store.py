"""``SqliteStore``: notes in a file outlive the process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from supabase_rt import SqliteStore

from ...support.programs import run_program


async def test_notes_are_kept_by_name_and_replaced(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "notes.db")
    assert await store.load("a") == {}
    await store.save("a", {"x": "1", "y": "2"}, [])
    await store.save("b", {"x": "3"}, [])
    await store.save("a", {"x": "4", "z": "5"}, ["y", "unknown"])
    assert await store.load("a") == {"x": "4", "z": "5"}
    assert await store.load("b") == {"x": "3"}
    store.close()
    assert await SqliteStore(tmp_path / "notes.db").load("b") == {"x": "3"}
    # A closed store opens its file again.
    assert await store.load("b") == {"x": "3"}


async def test_a_save_is_all_or_nothing(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "notes.db")
    await store.save("a", {"x": "1"}, [])
    with pytest.raises(sqlite3.Error):
        await store.save("a", {"y": "2", "z": None}, ["x"])  # type: ignore[dict-item]
    assert await store.load("a") == {"x": "1"}


async def test_many_save_at_once(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "notes.db")
    other = SqliteStore(tmp_path / "notes.db")
    saves = [
        (store if number % 2 else other).save(f"n{number % 5}", {str(number): "x"}, [])
        for number in range(50)
    ]
    await asyncio.gather(*saves)
    found = [await store.load(f"n{number}") for number in range(5)]
    assert sum(map(len, found)) == 50


async def test_many_begin_with_a_new_file_at_once(tmp_path: Path) -> None:
    """Bots that are started together do this."""
    for number in range(20):
        stores = [SqliteStore(tmp_path / f"{number}.db") for _ in range(8)]
        await asyncio.gather(*(store.save("a", {repr(store): "x"}, []) for store in stores))
        for store in stores:
            store.close()


async def test_a_folder_that_is_missing_is_an_error_at_the_first_use(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "nowhere" / "notes.db")
    with pytest.raises(sqlite3.OperationalError):
        await store.load("a")


def rights(path: Path) -> dict[str, int]:
    return {
        each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.glob(f"{path.name}*")
    }


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("open_umask")
async def test_only_the_owner_reads_the_files(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "notes.db"
    store = SqliteStore(path)
    await store.save("a", {"x": "1"}, [])
    assert rights(path) == {"notes.db": 0o600, "notes.db-wal": 0o600, "notes.db-shm": 0o600}
    store.close()
    assert caplog.text == ""


@pytest.mark.usefixtures("open_umask")
async def test_a_file_that_others_could_read_is_closed_to_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Version 0.1.0 made such files."""
    path = tmp_path / "notes.db"
    with contextlib.closing(sqlite3.connect(path)) as old:
        old.execute("pragma journal_mode = wal")
        old.execute("create table other (x)")
        assert set(rights(path).values()) == {0o644}
        store = SqliteStore(path)
        await store.save("a", {"x": "1"}, [])
        assert set(rights(path).values()) == {0o600}
    assert "was open to other users" in caplog.text
    store.close()
    caplog.clear()
    assert await SqliteStore(path).load("a") == {"x": "1"}
    assert caplog.text == ""


async def test_a_store_in_memory_makes_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = SqliteStore(":memory:")
    await store.save("a", {"x": "1"}, [])
    assert await store.load("a") == {"x": "1"}
    assert os.listdir(tmp_path) == []
    store.close()


KILLED = """
import asyncio, os, sys
from supabase_rt import SqliteStore

async def main():
    store = SqliteStore(sys.argv[1])
    for number in range(20):
        await store.save("a", {str(number): "x"}, [])
    print("saved", flush=True)
    os.kill(os.getpid(), 9)

asyncio.run(main())
"""


async def test_what_was_saved_outlives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    program = await run_program(KILLED, str(path))
    assert (program.code, program.out.strip()) == (-9, "saved")
    assert len(await SqliteStore(path).load("a")) == 20
