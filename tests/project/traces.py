"""Records the functions that three calls go through, by ``sys.setprofile``.

``docs/contributing/traces.md`` shows them between markers, and ``test_traces.py`` compares. After a
change of the path run ``python -m tests.project.traces --write``.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from supabase_rt import SupabaseClient, create_client
from supabase_rt.testing import ThreadedRealtime

__all__ = ["PAGE", "TRACES", "shown_on_page"]

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "supabase_rt"
PAGE = ROOT / "docs" / "contributing" / "traces.md"

LEFT_OUT = ("server", "testing", "_printable", "_runtime.log_fields")
"""The local server, and modules that only write log records."""

WIDTH = 88
"""Columns of the lists on the page."""

TIMEOUT = 10.0

RESUMED = 3
"""Bits in the argument of the instruction RESUME; they are 0 at the start of a function."""

Call = tuple[str, str]
"""A module without ``supabase_rt.``, and a function in it."""


class Recorder:
    """Records each call of a function of the package in this thread, and of one handler."""

    def __init__(self, handler: CodeType | None = None) -> None:
        self.calls: list[Call] = []
        self.callers: set[int] = set()
        """Positions in ``calls`` of the functions that called another one."""
        self._handler = handler
        self._frames: dict[FrameType, int] = {}
        self._passed_through = False

    @contextmanager
    def recording(self) -> Iterator[None]:
        # The garbage collector could run a finalizer, which is not part of the path.
        gc.disable()
        sys.setprofile(self._on_event)
        try:
            yield
        finally:
            sys.setprofile(None)
            gc.enable()
            self._frames.clear()

    def _on_event(self, frame: FrameType, event: str, _: Any) -> None:
        # A coroutine that goes on is reported as a call again, with the same frame.
        if event != "call" or frame in self._frames:
            return
        found = self._name_of(frame.f_code)
        if found is None:
            return
        # All coroutines of a chain of awaits go on; only the innermost one does something.
        goes_on = frame.f_lasti >= 0 and frame.f_code.co_code[frame.f_lasti + 1] & RESUMED != 0
        if goes_on and self._passed_through:
            self.calls.pop()
        self._passed_through = goes_on
        caller = self._frames.get(frame.f_back) if frame.f_back is not None else None
        if caller is not None:
            self.callers.add(caller)
        self._frames[frame] = len(self.calls)
        self.calls.append(found)

    def _name_of(self, code: CodeType) -> Call | None:
        if code is self._handler:
            return "your program", "the handler"
        if not code.co_filename.startswith(str(PACKAGE)):
            return None
        path = Path(code.co_filename).relative_to(PACKAGE).with_suffix("")
        module = ".".join(path.parts)
        function = code.co_qualname.replace(".<locals>", "")
        if module.startswith(LEFT_OUT) or "<" in function or function.endswith("__del__"):
            return None
        return module, function


async def _open(server: ThreadedRealtime) -> SupabaseClient:
    supabase = create_client(server.url, server.anon_key)
    await supabase.realtime.connect()
    return supabase


async def broadcast(server: ThreadedRealtime) -> list[Call]:
    """Traces a text broadcast to an ``async`` handler, the second of its event."""
    handled = asyncio.Event()

    async def handler(_: Any) -> None:
        handled.set()

    async def arrive() -> None:
        handled.clear()
        message = {"type": "broadcast", "event": "cursor", "payload": {"x": 1}}
        server.emit("room", "broadcast", message)
        await handled.wait()

    recorder = Recorder(handler.__code__)
    supabase = await _open(server)
    async with supabase.realtime:
        channel = supabase.channel("room").on("broadcast", {"event": "cursor"}, handler)
        await channel.subscribe()
        await arrive()
        await asyncio.sleep(0.05)  # the worker of the first one is asleep again
        with recorder.recording():
            await arrive()
    return recorder.calls


async def send(server: ThreadedRealtime) -> list[Call]:
    """Traces ``await channel.send(...)`` on a joined channel, without ``ack``."""
    recorder = Recorder()
    supabase = await _open(server)
    async with supabase.realtime:
        channel = supabase.channel("room")
        await channel.subscribe()
        message: Any = {"type": "broadcast", "event": "cursor", "payload": {"x": 1}}
        await channel.send(message)
        with recorder.recording():
            await channel.send(message)
    return recorder.calls


async def subscribe(server: ThreadedRealtime) -> list[Call]:
    """Traces ``await channel.subscribe()`` without a connection, shortened."""
    recorder = Recorder()
    supabase = create_client(server.url, server.anon_key)
    channel = supabase.channel("room")
    try:
        with recorder.recording():
            await channel.subscribe()
    finally:
        await supabase.realtime.disconnect()
    return _entries(recorder)


def _entries(recorder: Recorder) -> list[Call]:
    """Returns the functions that enter a module and call others, each once."""
    found = []
    before = ""
    for position, call in enumerate(recorder.calls):
        if call[0] != before and position in recorder.callers:
            found.append(call)
        before = call[0]
    return list(dict.fromkeys(found))


TRACES: dict[str, Callable[[ThreadedRealtime], Awaitable[list[Call]]]] = {
    function.__name__: function for function in (broadcast, send, subscribe)
}


async def shown_now(name: str, server: ThreadedRealtime) -> str:
    """Returns the list of one trace as the page must show it."""
    async with asyncio.timeout(TIMEOUT):
        return rendered(await TRACES[name](server))


def rendered(calls: list[Call]) -> str:
    """Returns one line for each stay in a module, with the functions in the order of the calls."""
    stays: list[tuple[str, list[str]]] = []
    for module, function in calls:
        if not stays or stays[-1][0] != module:
            stays.append((module, []))
        if function not in stays[-1][1]:
            stays[-1][1].append(function)
    column = max(len(module) for module, _ in stays) + 2
    lines = []
    for module, functions in stays:
        line = module.ljust(column)
        for function in functions:
            if len(line) > column and len(line) + len(function) + 2 > WIDTH:
                lines.append(line.rstrip())
                line = " " * column
            line += f"{function}  "
        lines.append(line.rstrip())
    return "".join(f"{line}\n" for line in lines)


def _parts(name: str, text: str) -> tuple[str, str, str]:
    """Returns the text before the list of a trace, the list, and the text after it."""
    before, mark, rest = text.partition(f"<!-- trace: {name} -->\n```text\n")
    assert mark, f"traces.md has no list marked {name}"
    found, end, after = rest.partition("```\n")
    return before + mark, found, end + after


def shown_on_page(name: str) -> str:
    """Returns the list between the markers of the page."""
    return _parts(name, PAGE.read_text())[1]


async def main(*, write: bool) -> None:
    text = PAGE.read_text()
    with ThreadedRealtime() as server:
        for name in TRACES:
            found = await shown_now(name, server)
            sys.stdout.write(f"{name}\n{found}\n")
            before, _, after = _parts(name, text)
            text = before + found + after
    if write:
        PAGE.write_text(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="rewrite the lists of the page")
    asyncio.run(main(write=parser.parse_args().write))
