"""What a hostile client can do to the others: ``make bench-server BENCH=--attacks``.

Each attack has a fresh ``supabase-rt serve`` with the limits of a project, and a process of its
own. Meanwhile one joined client asks for an answer every 20 ms, and a new one comes now and then.

On a busy machine most of an answer's time is that of other programs. So each time is shown twice:
by the clock, and without the time in which the server or the asking process waited for a core.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import statistics
import struct
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from http import HTTPStatus
from pathlib import Path

import aiohttp

from .clients.driver import allow_many_sockets

__all__ = ["ATTACKS", "EXTRA", "Answers", "attacker", "late", "peak", "probe", "starved"]

MB = 1_000_000
PAUSE = 0.02
MOST_MEMORY = 256 * 2**20
LONGEST = 0.1


# -- a client without manners --------------------------------------------------------------


class Raw:
    """A WebSocket that sends what it likes. The mask is zero, so that a frame is only copied."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int, key: str) -> Raw:
        """Connect and shake hands."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        nonce = base64.b64encode(os.urandom(16)).decode()
        path = f"/realtime/v1/websocket?vsn=2.0.0&apikey={key}"
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {nonce}\r\n\r\n".encode()
        )
        await reader.readuntil(b"\r\n\r\n")
        return cls(reader, writer)

    async def write(self, data: bytes) -> None:
        """Write bytes as they are."""
        self._writer.write(data)
        await self._writer.drain()

    async def send(self, *fields: object) -> None:
        """Write a text frame."""
        await self.write(frame(json.dumps(fields).encode()))

    async def join(self, topic: str, **config: object) -> None:
        """Ask to join; the answer is left unread."""
        await self.send("1", "1", f"realtime:{topic}", "phx_join", {"config": config})

    def read_all(self) -> asyncio.Task[None]:
        """Read and forget everything from now on."""

        async def read() -> None:
            with contextlib.suppress(OSError):
                while await self._reader.read(2**20):
                    pass

        return asyncio.get_running_loop().create_task(read(), name="attack: reader")


def frame(data: bytes, opcode: int = 1, *, fin: bool = True, bits: int = 0) -> bytes:
    """A frame of a client."""
    first, size = (0x80 if fin else 0) | bits | opcode, len(data)
    if size < 126:
        head = struct.pack("!BB", first, 0x80 | size)
    elif size < 65_536:
        head = struct.pack("!BBH", first, 0xFE, size)
    else:
        head = struct.pack("!BBQ", first, 0xFF, size)
    return head + bytes(4) + data


Attack = Callable[[int, str], Awaitable[None]]
ATTACKS: dict[str, Attack] = {}
EXTRA: dict[str, list[str]] = {"flood while a join is undecided": ["--join-error-delay=5"]}
"""Options of the server for single attacks."""


def attack(name: str, sockets: int = 1) -> Callable[[Callable[[Raw, int], Awaitable[None]]], None]:
    """Register what each of so many sockets does."""

    def register(work: Callable[[Raw, int], Awaitable[None]]) -> None:
        async def one(port: int, key: str, number: int) -> None:
            # Whoever is thrown out comes again.
            while True:
                with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                    await work(await Raw.open(port, key), number)
                await asyncio.sleep(0.2)

        async def run(port: int, key: str) -> None:
            await asyncio.gather(*(one(port, key, number) for number in range(sockets)))

        ATTACKS[name] = run

    return register


def requests(name: str, connections: int) -> Callable[[Callable[[str], list[bytes]]], None]:
    """Register a request in pieces, a tenth of a second apart, of so many connections."""

    def register(pieces: Callable[[str], list[bytes]]) -> None:
        async def one(port: int, key: str) -> None:
            while True:
                with contextlib.suppress(OSError):
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                    for piece in pieces(key):
                        writer.write(piece)
                        await writer.drain()
                        await asyncio.sleep(0.1)
                    await reader.read()
                    writer.close()
                await asyncio.sleep(0.5)

        async def run(port: int, key: str) -> None:
            await asyncio.gather(*(one(port, key) for _ in range(connections)))

        ATTACKS[name] = run

    return register


async def none(_port: int, _key: str) -> None:
    """Nothing: what the machine itself takes."""
    await asyncio.sleep(3600)


ATTACKS["(none)"] = none


# -- the attacks ---------------------------------------------------------------------------


@attack("topics of 4.9 MB", 2)
async def _topics(raw: Raw, number: int) -> None:
    raw.read_all()
    while True:
        await raw.send("1", "1", "t" * (4_900_000 + number), "x", {})


@attack("one emoji in topics of 4.9 MB", 2)
async def _wide_topics(raw: Raw, _number: int) -> None:
    raw.read_all()
    text = json.dumps(["1", "1", "t" * 4_900_000 + "😀", "x", {}], ensure_ascii=False)
    while True:
        await raw.write(frame(text.encode()))


@attack("flood while a join is undecided")
async def _undecided(raw: Raw, _number: int) -> None:
    raw.read_all()
    data = frame(b"x" * (4 * MB))
    while True:
        await raw.send("1", "1", "realtime:", "phx_join", {})
        for _ in range(256):
            await raw.write(data)


@attack("unfinished fragments", 190)
async def _fragments(raw: Raw, _number: int) -> None:
    raw.read_all()
    for _ in range(48):
        await raw.write(frame(b"x" * 100_000, fin=False, opcode=1 if not _ else 0))
    while True:
        await raw.write(frame(b"", opcode=9))
        await asyncio.sleep(1)


@requests("requests without an end", 950)
def _heads(_key: str) -> list[bytes]:
    return [b"GET / HTTP/1.1\r\nHost: localhost\r\n", *(b"X: y\r\n" for _ in range(600))]


@requests("headers of 500 KB", 400)
def _headers(_key: str) -> list[bytes]:
    lines = b"".join(b"X-%d: %s\r\n" % (number, b"y" * 8000) for number in range(60))
    return [b"GET /healthcheck HTTP/1.1\r\nHost: localhost\r\n" + lines, b"Z: z"]


@requests("slow bodies of 7 MB", 100)
def _bodies(key: str) -> list[bytes]:
    head = f"POST /api/broadcast HTTP/1.1\r\nHost: localhost\r\napikey: {key}\r\n"
    return [f"{head}Content-Length: 7000001\r\n\r\n".encode(), *(b"x" * 700_000 for _ in range(10))]


@requests("bodies of 7 MB that decode to 300", 20)
def _bombs(key: str) -> list[bytes]:
    body = b'{"messages":[' + b"[]," * 2_300_000 + b"0]}"
    head = f"POST /api/broadcast HTTP/1.1\r\nHost: localhost\r\napikey: {key}\r\n"
    return [f"{head}Content-Length: {len(body)}\r\n\r\n".encode(), body]


@attack("tiny frames", 20)
async def _tiny(raw: Raw, _number: int) -> None:
    raw.read_all()
    data = frame(b"") * 20_000
    while True:
        await raw.write(data)


@attack("heartbeats, read by nobody", 20)
async def _unread(raw: Raw, _number: int) -> None:
    data = frame(b'[null,"1","phoenix","heartbeat",{}]') * 1_000
    while True:
        await raw.write(data)


@attack("pings, read by nobody", 20)
async def _pings(raw: Raw, _number: int) -> None:
    data = frame(b"x" * 100, opcode=9) * 1_000
    while True:
        await raw.write(data)


@attack("answers of 4.9 MB, read by nobody", 40)
async def _large_answers(raw: Raw, number: int) -> None:
    while True:
        await raw.send("1", "1", "t" * (4_900_000 + number), "x", {})


@attack("broadcasts of 2.9 MB to 150 that do not read", 151)
async def _broadcasts(raw: Raw, number: int) -> None:
    await raw.join("room")
    payload = {"type": "broadcast", "event": "x", "payload": "x" * (2_900_000)}
    while True:
        if number == 0:
            await raw.send("1", "1", "realtime:room", "broadcast", payload)
        else:
            await raw.send(None, "1", "phoenix", "heartbeat", {})
            await asyncio.sleep(5)


@attack("presence of 1 MB each", 60)
async def _presence(raw: Raw, number: int) -> None:
    raw.read_all()
    for nth in range(50):
        topic = f"p{nth}"
        await raw.join(topic, presence={"enabled": True, "key": f"{number}"})
        payload = {"event": "track", "payload": {"x": "x" * MB, "n": number}}
        await raw.send("1", "1", f"realtime:{topic}", "presence", payload)
    await asyncio.sleep(3600)


@attack("a million bindings in a join", 10)
async def _bindings(raw: Raw, _number: int) -> None:
    raw.read_all()
    payload = b'{"config":{"postgres_changes":[' + b"{}," * 1_200_000 + b"{}]}}"
    data = frame(b'["1","1","realtime:room","phx_join",' + payload + b"]")
    while True:
        await raw.write(data)


@attack("100 channels each with topics of 80 KB", 190)
async def _channels(raw: Raw, number: int) -> None:
    raw.read_all()
    for nth in range(100):
        await raw.join(f"{number}-{nth}-" + "t" * 80_000)
    while True:
        await raw.send(None, "1", "phoenix", "heartbeat", {})
        await asyncio.sleep(5)


@attack("filters of 60 KB in many channels", 20)
async def _filters(raw: Raw, number: int) -> None:
    raw.read_all()
    for nth in range(10**6):
        changes = {"schema": "public", "table": f"{nth}", "filter": "t=like." + "%e" * 30_000}
        await raw.join(f"{number}-{nth}", postgres_changes=[changes])


@attack("nested JSON and endless numbers", 10)
async def _nested(raw: Raw, number: int) -> None:
    raw.read_all()
    await raw.join("room", presence={"enabled": True})
    bombs = [b"[" * MB, b"9" * 5_000, b"9" * MB, b"1e400", b"[]," * MB + b"0", b'{"a":' * MB]
    bombs = [b'["1","1","realtime:room","presence",' + bomb + b"]" for bomb in bombs] + bombs
    while True:
        for bomb in bombs:
            await raw.write(frame(bomb))
        await raw.join(f"room-{number}")


@attack("access_token frames", 20)
async def _tokens(raw: Raw, number: int) -> None:
    raw.read_all()
    await raw.join("room")
    texts = ["a" * 200, "e30.e30.e30", base64.b64encode(b"[]," * MB).decode() + ".a.b"]
    while True:
        for text in texts:
            topic = f"realtime:room-{number}"
            await raw.send("1", "1", topic, "phx_join", {"config": {}})
            await raw.send("1", "1", topic, "access_token", {"access_token": text})


@attack("compressed frames", 20)
async def _compressed(raw: Raw, _number: int) -> None:
    raw.read_all()
    for _ in range(1000):
        await raw.write(frame(b"x" * MB, bits=0x40))


@attack("sockets that never join", 950)
async def _idle(raw: Raw, _number: int) -> None:
    raw.read_all()
    while True:
        await raw.send(None, "1", "phoenix", "heartbeat", {})
        await asyncio.sleep(5)


# -- the client beside it ------------------------------------------------------------------


class Times:
    """The seconds that answers took: by the clock, and as if nobody had to wait for a core."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.own: list[float] = []

    def add(self, wall: float, worked: float, starved: float) -> None:
        """Add an answer for which the server worked, and processes waited for a core, so long."""
        self.wall.append(wall)
        self.own.append(max(worked, wall - starved))


def late(times: list[float]) -> float:
    """Returns the 99th percentile; the slowest of few times."""
    if not times:
        return float("inf")
    return statistics.quantiles(times, n=100, method="inclusive")[98] if times[1:] else times[0]


class Answers:
    """How long the server took to answer."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.joined = Times()
        """To a client that was there before."""
        self.new = Times()
        """To a client that has just come."""
        self.missing = 0
        """Answers that did not come within five seconds."""

    @contextlib.contextmanager
    def timed(self, times: Times) -> Iterator[None]:
        """Time what happens within the block; an exception adds nothing."""
        started, before = time.perf_counter(), _schedule(self._pid, os.getpid())
        yield
        after = _schedule(self._pid, os.getpid())
        worked, waited = after[0] - before[0], after[1] - before[1]
        times.add(time.perf_counter() - started, worked, waited)

    def fine(self, memory: int) -> bool:
        """Returns True if the others hardly noticed."""
        slow = max(late(self.joined.own), late(self.new.own))
        return memory < MOST_MEMORY and slow < LONGEST and not self.missing


def _schedule(server: int, client: int) -> tuple[float, float]:
    """Returns the seconds that the server has worked, and that both have waited for a core."""
    worked, waited = Path(f"/proc/{server}/schedstat").read_text().split()[:2]
    return int(worked) / 1e9, int(waited) / 1e9 + starved(client)


def starved(pid: int) -> float:
    """Returns the seconds that a process has waited for a core that others had."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9


async def probe(url: str, key: str, seconds: float, found: Answers) -> None:
    """Ask for answers for so long."""
    async with aiohttp.ClientSession() as session:
        path = f"{url}/websocket?apikey={key}&vsn=2.0.0"
        async with session.ws_connect(path) as socket:
            await socket.send_str('["1","1","realtime:mine","phx_join",{"config":{}}]')
            await socket.receive()
            yield_to = time.monotonic() + seconds
            for nth in range(10**9):
                if time.monotonic() > yield_to:
                    return
                await asyncio.sleep(PAUSE)
                await _ask(socket, found)
                if nth % 10 == 0:
                    await _come(path, found)


async def _ask(socket: aiohttp.ClientWebSocketResponse[bool], found: Answers) -> None:
    try:
        with found.timed(found.joined):
            await socket.send_str('[null,"hb","phoenix","heartbeat",{}]')
            message = await socket.receive(timeout=5)
            assert message.type is aiohttp.WSMsgType.TEXT, message
    except (TimeoutError, AssertionError, ConnectionError):
        found.missing += 1


async def _come(path: str, found: Answers) -> None:
    timeout = aiohttp.ClientTimeout(total=5)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session:
            with found.timed(found.new):
                socket = await _connected(session, path)
                if socket is None:
                    return
                await socket.send_str('[null,"hb","phoenix","heartbeat",{}]')
                await socket.receive(timeout=5)
            await socket.close()
    except (TimeoutError, OSError, aiohttp.ClientError):
        found.missing += 1


async def _connected(
    session: aiohttp.ClientSession, path: str
) -> aiohttp.ClientWebSocketResponse[bool] | None:
    try:
        return await session.ws_connect(path)
    except aiohttp.WSServerHandshakeError as exc:
        if exc.status == HTTPStatus.TOO_MANY_REQUESTS:
            # The attack has reached a limit of the project, and this is the answer.
            return None
        raise


@contextlib.asynccontextmanager
async def attacker(name: str, port: int, key: str) -> AsyncIterator[None]:
    """The process of an attack, until the end of the block."""
    words = [sys.executable, "-m", "benchmarks.attacks", name, str(port)]
    # The key comes by the environment: a command line is everybody's to read.
    environment = {**os.environ, "ATTACKED": key}
    process = await asyncio.create_subprocess_exec(
        *words, env=environment, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        await process.stdout.readline()
        yield
    finally:
        process.kill()
        await process.wait()


def peak(pid: int) -> int:
    """The most memory that a process has had, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def main() -> None:
    """Attack, in the process made for it."""
    allow_many_sockets()
    name, port = sys.argv[1], int(sys.argv[2])

    async def attack_it() -> None:
        print("ready", flush=True)
        await ATTACKS[name](port, os.environ["ATTACKED"])

    asyncio.run(attack_it())


if __name__ == "__main__":
    main()
