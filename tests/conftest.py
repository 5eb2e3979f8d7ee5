"""The fixtures of all tests: a server, fast clients, and a check that no task is left."""

from __future__ import annotations

import asyncio
import inspect
import signal
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from supabase_rt import RealtimeClient
from supabase_rt.server import LocalRealtime

from .support.clients import QUICK, MakeClient
from .support.markers import pytest_runtest_makereport

__all__ = ["pytest_runtest_makereport"]

pytest_plugins = (
    "pytester",
    "tests.support.leaks",
    "tests.support.loop_errors",
    "tests.support.raw_output",
)

# A shell that starts the tests in the background makes them ignore Ctrl+C, including programs that
# tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def no_file_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The state folder of the tests and of the programs that they start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(autouse=True)
def no_task_left_behind(request: pytest.FixtureRequest) -> None:
    """This check is for tests that run in a loop; other tests cannot leave a task behind."""
    function = getattr(request.node, "function", None)
    if function is not None and inspect.iscoroutinefunction(function):
        request.getfixturevalue("task_watch")


@pytest.fixture
async def task_watch() -> AsyncIterator[None]:
    """Fails the test if a task is alive when everything of the test is over."""
    before = asyncio.all_tasks()
    yield
    for _ in range(3):
        await asyncio.sleep(0)
    left = [
        task
        for task in asyncio.all_tasks() - before
        if task is not asyncio.current_task() and not task.done()
    ]
    assert not left, f"left running: {left}"


@pytest.fixture
async def server() -> AsyncIterator[LocalRealtime]:
    async with LocalRealtime() as found:
        yield found


@pytest.fixture
async def make_client(server: LocalRealtime) -> AsyncIterator[MakeClient]:
    """Makes clients of the server; at the end they are disconnected in any state."""
    made: list[RealtimeClient] = []

    def make(url: str | None = None, **options: Any) -> RealtimeClient:
        options = {
            "params": {"apikey": server.anon_key},
            "timeout": 5.0,
            "heartbeat_interval": 5.0,
            "reconnect": QUICK,
            **options,
        }
        made.append(RealtimeClient(server.ws_url if url is None else url, **options))
        return made[-1]

    yield make
    for client in made:
        await client.disconnect()


@pytest.fixture
async def client(make_client: MakeClient) -> RealtimeClient:
    return make_client()


@pytest.fixture
def settings(server: LocalRealtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment variables of a program."""
    monkeypatch.setenv("SUPABASE_URL", server.url)
    monkeypatch.setenv("SUPABASE_KEY", server.anon_key)
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
