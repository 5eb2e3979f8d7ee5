"""What the local server bears: ``make bench-server``.

``supabase-rt serve`` in a process of its own, and a crowd of bare WebSockets in this one. Every
topic has its share of the sockets; one more socket sends numbered broadcasts to all topics in
turn, at a fixed pace, and each delivery is held against the number that is due.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import aiohttp

from .attacks import ATTACKS, EXTRA, Answers, attacker, late, peak, probe, starved
from .clients.driver import allow_many_sockets

DOCUMENT = Path(__file__).parents[1] / "docs" / "local-server.md"
HEADING = "## What the local server bears"
PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
TICK = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
HEARTBEAT = 20.0
UNLIMITED = [
    f"--max-{name}=none"
    for name in (
        "connections",
        "concurrent-users",
        "channels-per-client",
        "joins-per-second",
        "events-per-second",
        "presence-events-per-second",
    )
]


@dataclasses.dataclass
class Load:
    """How much there is to bear."""

    sockets: int = 1_000
    channels: int = 5
    members: int = 50
    """Sockets in each topic."""
    deliveries: int = 5_000
    """A second, in total."""
    seconds: float = 60.0

    @property
    def topics(self) -> int:
        """How many topics there are."""
        return self.sockets * self.channels // self.members

    @property
    def interval(self) -> float:
        """Seconds between two broadcasts."""
        return self.members / self.deliveries


@dataclasses.dataclass
class Found:
    """What came of it."""

    delivered: int = 0
    expected: int = 0
    wrong: int = 0
    """Deliveries out of turn: lost, repeated or in another order."""
    closed: int = 0
    """Sockets that the server closed."""
    late: list[float] = dataclasses.field(default_factory=list)
    cpu: float = 0.0
    """Seconds of the server's process a second."""
    idle_socket: float = 0.0
    """Bytes of the server for an open socket."""
    joined_socket: float = 0.0
    """Bytes of the server for a socket with all its channels."""
    after: float = 0.0
    """The same after the load."""
    busy: bool = False
    """Whether other work had the cores when it began."""
    joining: float = 0.0
    """Seconds for all sockets to connect and join."""

    @property
    def correct(self) -> bool:
        """Whether everything came, once and in order."""
        return self.delivered == self.expected and not self.wrong and not self.closed


class Server:
    """``supabase-rt serve`` and what the system says of its process."""

    def __init__(self, process: asyncio.subprocess.Process, url: str, key: str) -> None:
        self._process = process
        self.url = url
        self.key = key

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self._process.pid

    @property
    def resident(self) -> int:
        """Bytes in memory."""
        return int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]) * PAGE

    @property
    def cpu(self) -> float:
        """Seconds of CPU so far."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK


@contextlib.asynccontextmanager
async def serving(options: Sequence[str] = UNLIMITED) -> AsyncIterator[Server]:
    """A server, without limits where no others are given, until the end of the block."""
    words = [sys.executable, "-m", "supabase_rt", "serve", "--port=0", "--quiet", *options]
    process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        shown: dict[str, str] = {}
        while (line := (await process.stdout.readline()).decode()) and "Ctrl+C" not in line:
            if found := re.match(r"  (\S.*?)\s{2,}(\S+)$", line):
                shown[found[1]] = found[2]
        yield Server(process, shown["WebSocket"], shown["anon key"])
    finally:
        process.terminate()
        await process.wait()


class Crowd:
    """All sockets that listen."""

    def __init__(self, load: Load, found: Found, session: aiohttp.ClientSession) -> None:
        self._load = load
        self._found = found
        self._session = session
        self._sockets: list[aiohttp.ClientWebSocketResponse[bool]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._due: list[dict[str, int]] = []
        self.leaving = False

    async def open(self, server: Server) -> None:
        """Connect all sockets."""
        url = f"{server.url}/websocket?apikey={server.key}&vsn=2.0.0"
        for first in range(0, self._load.sockets, 50):
            count = min(50, self._load.sockets - first)
            opened = (self._session.ws_connect(url, max_msg_size=0) for _ in range(count))
            self._sockets += await asyncio.gather(*opened)

    async def join(self) -> None:
        """Join all channels: the n-th channel of a socket is one of the n-th share of topics."""
        for number, socket in enumerate(self._sockets):
            due = {}
            for nth in range(self._load.channels):
                topic = f"realtime:topic-{(number * self._load.channels + nth) % self._load.topics}"
                due[topic] = 0
                await socket.send_str(_join(topic, nth))
                reply = json.loads((await socket.receive()).data)
                assert reply[4]["status"] == "ok", reply
            self._due.append(due)
        for number, (socket, due) in enumerate(zip(self._sockets, self._due, strict=True)):
            work = self._listen(socket, due)
            self._tasks.append(asyncio.create_task(work, name=f"bench: socket {number}"))

    async def _listen(
        self, socket: aiohttp.ClientWebSocketResponse[bool], due: dict[str, int]
    ) -> None:
        found, clock = self._found, time.perf_counter
        async for message in socket:
            _, _, topic, event, payload = json.loads(message.data)
            if event != "broadcast":
                continue
            content = payload["payload"]
            found.delivered += 1
            found.wrong += content["n"] != due[topic]
            due[topic] = content["n"] + 1
            found.late.append(clock() - content["at"])
        found.closed += not self.leaving

    async def beat(self) -> None:
        """Keep all sockets alive."""
        pause = HEARTBEAT / len(self._sockets)
        while True:
            for socket in self._sockets:
                await asyncio.sleep(pause)
                await socket.send_str('[null,"hb","phoenix","heartbeat",{}]')

    async def close(self) -> None:
        """Leave."""
        self.leaving = True
        for first in range(0, len(self._sockets), 50):
            await asyncio.gather(*(each.close() for each in self._sockets[first : first + 50]))
        await asyncio.gather(*self._tasks)


async def send(load: Load, found: Found, session: aiohttp.ClientSession, server: Server) -> None:
    """Broadcast to all topics in turn, at the pace of the load."""
    url = f"{server.url}/websocket?apikey={server.key}&vsn=2.0.0"
    async with session.ws_connect(url) as socket:
        for number in range(load.topics):
            await socket.send_str(_join(f"realtime:topic-{number}", number))
            await socket.receive()
        started = time.perf_counter()
        total = int(load.seconds / load.interval)
        for nth in range(total):
            pause = started + nth * load.interval - time.perf_counter()
            if pause > 0:
                await asyncio.sleep(pause)
            round_, topic = divmod(nth, load.topics)
            content = {"n": round_, "at": time.perf_counter()}
            payload = {"type": "broadcast", "event": "tick", "payload": content}
            name = f"realtime:topic-{topic}"
            await socket.send_str(json.dumps([str(topic), "1", name, "broadcast", payload]))
            if nth % 1000 == 0:
                await socket.send_str('[null,"hb","phoenix","heartbeat",{}]')
        found.expected = total * load.members


def _join(topic: str, number: int) -> str:
    payload = {"config": {"broadcast": {"ack": False, "self": False}}}
    return json.dumps([str(number), str(number), topic, "phx_join", payload])


async def measure(load: Load) -> Found:
    """One run."""
    found = Found(busy=hasattr(os, "getloadavg") and os.getloadavg()[0] > 1)
    connector = aiohttp.TCPConnector(limit=0)
    async with serving() as server, aiohttp.ClientSession(connector=connector) as session:
        crowd = Crowd(load, found, session)
        before, started = server.resident, time.monotonic()
        await crowd.open(server)
        found.idle_socket = (server.resident - before) / load.sockets
        await crowd.join()
        found.joining = time.monotonic() - started
        found.joined_socket = (server.resident - before) / load.sockets
        beating = asyncio.create_task(crowd.beat(), name="bench: heartbeats")
        cpu, started = server.cpu, time.monotonic()
        await send(load, found, session, server)
        found.cpu = (server.cpu - cpu) / (time.monotonic() - started)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(10):
                while found.delivered < found.expected:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        found.after = (server.resident - before) / load.sockets
        beating.cancel()
        await crowd.close()
    return found


async def attack(name: str, seconds: float) -> bool:
    """Attack for so long, and print what the others noticed; whether it was little."""
    async with serving(EXTRA.get(name, [])) as server:
        found = Answers(server.pid)
        port = int(server.url.rpartition(":")[2].partition("/")[0])
        async with attacker(name, port, server.key):
            await probe(server.url, server.key, seconds, found)
        memory, waited = peak(server.pid), starved(server.pid)
    times = [
        f"{late(each.own) * 1000:5.0f} ({late(each.wall) * 1000:4.0f}) ms"
        for each in (found.joined, found.new)
    ]
    verdict = "" if found.fine(memory) else "  <--"
    shown = [
        f"{memory / 2**20:6.0f} MiB",
        *times,
        f"{waited:6.1f} s",
        f"{found.missing:4} missing{verdict}",
    ]
    print(f"{name:<46}", *shown, flush=True)
    return found.fine(memory)


async def attacks(only: str | None, seconds: float) -> bool:
    """All attacks, one after the other; whether all were borne."""
    print("bounds: 256 MiB and 100 ms; in brackets with the time without a core")
    print(f"{'attack':<46}   memory       joined p99          new p99  no core")
    names = [name for name in ATTACKS if only is None or only in name]
    return all([await attack(name, seconds) for name in names])


def rows(load: Load, found: Found) -> list[tuple[str, str]]:
    """What is shown and saved."""
    late = statistics.quantiles(found.late, n=100) if len(found.late) > 1 else [0.0] * 99
    kilobytes = [f"{size / 1024:.1f} KB" for size in (found.idle_socket, found.joined_socket)]
    return [
        ("deliveries", f"{found.delivered:,} of {found.expected:,}"),
        ("lost, repeated or out of order", f"{found.wrong}"),
        ("sockets that the server closed", f"{found.closed}"),
        ("from sending to arrival, median", f"{late[49] * 1000:.1f} ms"),
        ("from sending to arrival, 99 %", f"{late[98] * 1000:.1f} ms"),
        ("CPU of the server", f"{found.cpu * 100:.0f} % of a core"),
        ("connecting and joining all", f"{found.joining:.1f} s"),
        ("memory of an idle socket", kilobytes[0]),
        (f"memory of a socket with {load.channels} channels", kilobytes[1]),
        ("the same after the load", f"{found.after / 1024:.1f} KB"),
    ]


def section(load: Load, found: Found) -> str:
    """The part of the document."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    lines = [
        HEADING,
        "",
        f"{load.sockets:,} sockets with {load.channels} channels each, {load.members} sockets in",
        f"a topic, {load.deliveries:,} deliveries a second in total for {load.seconds:g} s; the",
        "limits were lifted by options. Server and sockets ran on one machine",
        f"({cores} cores, Python {platform.python_version()}, {platform.system()}).",
        "`make bench-server` measures again and rewrites this section.",
        *(
            ["The machine was busy with other work, which makes the times longer."]
            if found.busy
            else []
        ),
        "",
        "| measured | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in rows(load, found)),
        "",
    ]
    return "\n".join(lines)


def save(text: str) -> None:
    """Put the section into the document in place of the last one, or at its end."""
    document = DOCUMENT.read_text() if DOCUMENT.exists() else "# The local server\n"
    old = re.compile(rf"^{re.escape(HEADING)}\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    if old.search(document):
        document = old.sub(lambda _: text, document)
    else:
        document = f"{document.rstrip()}\n\n{text}"
    DOCUMENT.write_text(document)


def main() -> int:
    """Measure, print and save; 1 where something was lost."""
    parser = argparse.ArgumentParser(prog="make bench-server", description=__doc__)
    for field in dataclasses.fields(Load):
        kind = int if isinstance(field.default, int) else float
        parser.add_argument(f"--{field.name}", type=kind, default=field.default)
    parser.add_argument("--dry", action="store_true", help="do not save the result")
    parser.add_argument(
        "--attacks",
        nargs="?",
        const="",
        metavar="PART",
        help="attack it instead, with all attacks or those with PART in their name",
    )
    options = vars(parser.parse_args())
    only = options.pop("attacks")
    if only is not None:
        allow_many_sockets()
        return 0 if asyncio.run(attacks(only or None, min(options["seconds"], 10.0))) else 1
    dry = options.pop("dry")
    load = Load(**options)
    allow_many_sockets()
    limit = 60 + load.seconds * 2
    found = asyncio.run(asyncio.wait_for(measure(load), limit))
    for name, value in rows(load, found):
        print(f"{name:<40} {value}")
    if not dry:
        save(section(load, found))
    return 0 if found.correct else 1


if __name__ == "__main__":
    sys.exit(main())
