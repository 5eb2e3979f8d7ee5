"""The server in a thread of its own, with the names of ``LocalRealtime``."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from supabase_rt import Broadcast, PostgresChange, create_client
from supabase_rt.server import Happening, LocalRealtime
from supabase_rt.testing import Rows, ThreadedRealtime
from tests.support.waiting import until


@pytest.fixture
def threaded() -> Iterator[ThreadedRealtime]:
    with ThreadedRealtime(jwt_secret="x" * 40) as server:
        yield server


def test_it_ends_with_its_thread() -> None:
    with ThreadedRealtime() as server:
        assert server.url.startswith("http://127.0.0.1:")
        assert [t for t in threading.enumerate() if t.name == "supabase_rt test server"]
    assert not [t for t in threading.enumerate() if t.name == "supabase_rt test server"]
    with pytest.raises(RuntimeError, match="not running"):
        server.url
    server.stop()


def test_a_server_that_cannot_start_leaves_no_thread() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        ThreadedRealtime(jwt_secret="short").start()
    assert not [t for t in threading.enumerate() if t.name == "supabase_rt test server"]


async def test_everything_can_be_done_from_another_loop(threaded: ThreadedRealtime) -> None:
    happened: list[Happening] = []
    end = threaded.watch(happened.append)
    supabase = create_client(threaded.url, threaded.token("authenticated", "u1"))
    changes: list[PostgresChange] = []
    broadcasts: list[Broadcast] = []
    async with supabase.realtime:
        room = supabase.channel("room", {"config": {"private": True}})
        room.on("postgres_changes", {"event": "*", "schema": "public"}, changes.append)
        await room.on("broadcast", {"event": "*"}, broadcasts.append).subscribe().ready(10)
        threaded.table("t", {"id": "int4", "v": "text"})
        assert threaded.insert("t", {"v": "a"}) == 1
        assert await threaded.update("t", {"id": 1, "v": "b"}) == 1
        assert threaded.delete("t", {"id": 1}) == 1
        assert threaded.broadcast("room", "hi", {}, private=True) == 1
        await until(lambda: len(changes) == 3 and broadcasts)
        threaded.faults.heartbeat_replies = False
        assert threaded.faults.heartbeat_replies is False
        threaded.faults.heartbeat_replies = True
        statuses: list[str] = []
        room.subscribe(lambda status: statuses.append(status))
        threaded.faults.cut()
        await until(lambda: threaded.connections == 2 and threaded.joins == 2)
        await asyncio.to_thread(threaded.restart)
        await until(lambda: threaded.connections == 3 and threaded.joins == 3)
        assert threaded.open_connections == 1
    assert {"connect", "join", "change", "broadcast", "disconnect"} <= {
        found.kind for found in happened
    }
    end()
    assert [found.event for found in threaded.received].count("phx_join") == 3
    with pytest.raises(AttributeError, match="no fault 'laser'"):
        threaded.faults.laser = True  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match="has no database"):
        threaded.sql("select 1")


async def test_the_servers_own_loop_is_told_not_to_wait_for_itself(
    threaded: ThreadedRealtime,
) -> None:
    problems: list[str] = []

    def listen(found: Happening) -> None:
        with pytest.raises(RuntimeError, match=r"use the methods of \.server") as caught:
            threaded.broadcast("room", "again", {})
        problems.append(str(caught.value))

    threaded.watch(listen)
    threaded.broadcast("room", "once", {})
    assert len(problems) == 1


async def test_rows_may_be_awaited() -> None:
    rows = Rows([{"n": 1}])
    assert await rows == rows == [{"n": 1}]


def test_it_has_the_names_of_the_server_itself() -> None:
    """Names that only the server's own loop may use are reached through ``server``."""
    own = {"has_database", "malformed", "backend", "settings", "host", "port", "ws_url"}
    names = {name for name in vars(LocalRealtime) if not name.startswith("_")}
    assert names - own <= set(vars(ThreadedRealtime))
