"""The fixtures of the pytest plugin, in a user's project."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest_plugins = ["pytester"]

CONFTEST = """
import pytest

@pytest.fixture
def realtime_settings():
    return {"max_channels_per_client": 1}

@pytest.fixture
def realtime_schema():
    return '''
        create table orders (id serial primary key, item text);
        alter publication supabase_realtime add table orders;
    '''
"""
USERS_TESTS = """
import asyncio

import pytest

from supabase_rt import Refused, create_client


async def one_broadcast(server):
    supabase = create_client(server.url, server.anon_key)
    async with supabase.realtime:
        room = supabase.channel("room")
        coming = asyncio.ensure_future(room.wait_for("broadcast", {"event": "hi"}, timeout=10))
        await room.subscribe()
        assert await server.broadcast("room", "hi", {"x": 1}) == 1
        return (await coming).payload["x"]


def test_a_plain_test(realtime_server):
    assert asyncio.run(one_broadcast(realtime_server)) == 1
    assert realtime_server.joins == realtime_server.connections == 1


@pytest.mark.asyncio
async def test_an_async_test_with_a_new_server(realtime_server):
    assert realtime_server.joins == 0
    assert await one_broadcast(realtime_server) == 1
    sent = [found.event for found in realtime_server.received]
    assert sent[0] == "phx_join"


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_test_of_anyio_with_its_settings(realtime_server, anyio_backend):
    supabase = create_client(realtime_server.url, realtime_server.anon_key)
    async with supabase.realtime:
        await supabase.channel("one").subscribe()
        with pytest.raises(Refused, match="Too many channels"):
            await supabase.channel("two").subscribe()


async def orders(server):
    supabase = create_client(server.url, server.anon_key)
    filter = {"event": "INSERT", "schema": "public", "table": "orders"}
    async with supabase.realtime:
        room = supabase.channel("orders")
        coming = asyncio.ensure_future(room.wait_for("postgres_changes", filter, timeout=10))
        await room.subscribe().ready(10)
        server.sql("insert into orders (item) values (%s)", "tea")
        return (await coming).new


@pytest.mark.parametrize("time", [1, 2])
def test_a_database_of_its_own(realtime_db, time):
    assert asyncio.run(orders(realtime_db)) == {"id": 1, "item": "tea"}
"""
WITHOUT = """
import sys
sys.modules[{name!r}] = None
"""


def test_the_fixtures_work_in_every_kind_of_test(pytester: pytest.Pytester) -> None:
    pytest.importorskip("psycopg")
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(USERS_TESTS)
    done = pytester.runpytest_subprocess(
        "-q", "-W", "error", "-o", "asyncio_default_fixture_loop_scope=function"
    )
    done.assert_outcomes(passed=5)


@pytest.mark.parametrize(
    ("name", "fixture", "line"),
    [
        ("jwt", "realtime_server", "*pip install 'supabase-rt[[]server]'*"),
        ("psycopg", "realtime_db", "*needs psycopg; install it with: pip install*"),
    ],
)
def test_what_is_missing_is_said_in_one_line(
    pytester: pytest.Pytester, name: str, fixture: str, line: str
) -> None:
    pytester.makeconftest(WITHOUT.format(name=name))
    pytester.makepyfile(f"def test_it({fixture}): pass\ndef test_other(): pass")
    done = pytester.runpytest_subprocess("-q")
    done.assert_outcomes(errors=1, passed=1)
    done.stdout.fnmatch_lines([line])
    done.stdout.no_fnmatch_line("*Traceback*")
    done.stdout.no_fnmatch_line("*pytest_supabase_rt.py:*")


def test_a_run_without_these_fixtures_loads_nothing() -> None:
    code = "import sys, pytest_supabase_rt; print('supabase_rt' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == "False\n"
