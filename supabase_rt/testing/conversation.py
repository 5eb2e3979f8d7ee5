"""Conversations with a real server: recorded once, and played to the bot in every test.

A file has the client's view of the conversation, without keys and tokens. Each line is a JSON
object: ``{"ms", "conn", "dir": "open" | "send" | "recv" | "closed", "text" | "hex"}``.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import WSMsgType, web

__all__ = ["Player", "Recorder", "play", "record"]

PATHS = ("/realtime/v1/websocket", "/socket/websocket")
HEARTBEAT = ("phoenix", "heartbeat")
_HEAD = re.compile(r'\[(null|"[^"]*"),(null|"[^"]*"),')


@asynccontextmanager
async def _serving(handler: Any) -> AsyncIterator[str]:
    app = web.Application()
    for path in PATHS:
        app.router.add_get(path, handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


# -- recording -----------------------------------------------------------------------------


class Recorder:
    """A proxy between a client and a real server that records their messages."""

    def __init__(self, target: str, path: Path) -> None:
        base = re.sub(r"^http", "ws", target.rstrip("/"))
        self._target = base if base.endswith("/websocket") else f"{base}/realtime/v1/websocket"
        self._file = path.open("w", encoding="utf-8")
        self._started = time.monotonic()
        self._sockets = 0
        self.url = ""
        """The URL for ``create_client(url, key)``, with the key of the real project."""

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        """Connect one socket of the client to the server."""
        self._sockets += 1
        conn = f"{self._sockets}"
        headers = {
            name: request.headers[name] for name in ("x-api-key",) if name in request.headers
        }
        tracing = aiohttp.TraceConfig()
        tracing.on_request_redirect.append(_refuse_redirect)
        async with (
            aiohttp.ClientSession(trace_configs=[tracing]) as session,
            session.ws_connect(
                self._target, params=request.query, headers=headers, max_msg_size=0
            ) as far,
        ):
            near = web.WebSocketResponse(max_msg_size=0)
            await near.prepare(request)
            self._note(conn, "open", {"params": {"vsn": request.query.get("vsn", "1.0.0")}})
            passing = [
                asyncio.create_task(self._pass(conn, "send", near, far), name="recorder: send"),
                asyncio.create_task(self._pass(conn, "recv", far, near), name="recorder: recv"),
            ]
            try:
                await asyncio.wait(passing, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in passing:
                    task.cancel()
                await asyncio.gather(*passing, return_exceptions=True)
            await near.close()
        self._note(conn, "closed", {"code": near.close_code})
        return near

    async def _pass(self, conn: str, direction: str, source: Any, target: Any) -> None:
        async for message in source:
            if message.type is WSMsgType.TEXT:
                self._note(conn, direction, {"text": _without_tokens(message.data)})
                await target.send_str(message.data)
            elif message.type is WSMsgType.BINARY:
                self._note(conn, direction, {"hex": message.data.hex()})
                await target.send_bytes(message.data)

    def _note(self, conn: str, direction: str, about: dict[str, Any]) -> None:
        since = round(1000 * (time.monotonic() - self._started), 1)
        line = {"ms": since, "conn": conn, "dir": direction, **about}
        self._file.write(json.dumps(line) + "\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


async def _refuse_redirect(*_: object) -> None:
    """Refuse a redirect, so that the key of a real project goes to no other address."""
    raise aiohttp.ClientError("the server answers with a redirect; give its target as the URL")


def _without_tokens(text: str) -> str:
    return re.sub(r'("access_token"\s*:\s*)"(?:[^"\\]|\\.)*"', r'\1"TOKEN"', text)


@asynccontextmanager
async def record(target: str, path: str | Path) -> AsyncIterator[Recorder]:
    """Record the conversation of a client with the project at ``target``.

    Give the client ``recorder.url`` as its URL. Raises ``OSError`` if ``path`` cannot be written.
    """
    recorder = Recorder(target, Path(path))
    try:
        async with _serving(recorder.handle) as recorder.url:
            yield recorder
    finally:
        recorder.close()


# -- playing -------------------------------------------------------------------------------


@dataclass
class _RecordedStep:
    number: int
    conn: str
    direction: str
    raw: str | bytes

    @property
    def kind(self) -> tuple[str, str]:
        found = _read(self.raw)
        return ("", "") if found is None else found[:2]


@dataclass
class _Socket:
    ws: web.WebSocketResponse
    arrived: list[tuple[tuple[str, str], str | None]] = field(default_factory=list)
    refs: dict[str, str | None] = field(default_factory=dict)


class Player:
    """A server that plays a recording to a client.

    It waits for each recorded message of the client, by topic and event; the payload is not
    compared. Then it sends the recorded answers. Heartbeats are answered at any time. Messages
    that are not in the recording are in ``unexpected``.
    """

    def __init__(self, path: Path) -> None:
        self._steps = list(_steps(path))
        self._sockets: dict[str, _Socket] = {}
        self._names = [step.conn for step in self._steps if step.direction == "open"]
        self._at = 0
        self._news = asyncio.Event()
        self._done = asyncio.Event()
        self.url = ""
        """The URL for ``create_client(url, key)``, with any key."""

    @property
    def unexpected(self) -> list[tuple[str, str]]:
        """Topic and event of the client's messages that are not in the recording."""
        return [kind for socket in self._sockets.values() for kind, _ in socket.arrived]

    async def finished(self, timeout: float = 5.0) -> None:
        """Wait for the end of the recording.

        Raises ``TimeoutError``, which names the message that the client still has to send.
        """
        try:
            async with asyncio.timeout(timeout):
                await self._done.wait()
        except TimeoutError:
            step = self._steps[self._at]
            topic, event = step.kind
            raise TimeoutError(
                f"line {step.number}: waiting for {event or step.direction} on {topic!r}; "
                f"the client said {self.unexpected or 'nothing more'}"
            ) from None

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        """Serve a socket; the nth socket of the client plays the nth socket of the recording."""
        ws = web.WebSocketResponse(max_msg_size=0, timeout=0.5)
        await ws.prepare(request)
        name = self._names[len(self._sockets)] if len(self._sockets) < len(self._names) else "?"
        socket = self._sockets[name] = _Socket(ws)
        self._news.set()
        async for message in ws:
            if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                await self._take(socket, message.data)
        return ws

    async def _take(self, socket: _Socket, raw: str | bytes) -> None:
        found = _read(raw)
        if found is None:
            return
        topic, event, ref = found
        if (topic, event) == HEARTBEAT:
            reply = {"status": "ok", "response": {}}
            if isinstance(raw, str) and raw.lstrip().startswith("["):
                await socket.ws.send_json([None, ref, topic, "phx_reply", reply])
            else:
                about = {"topic": topic, "event": "phx_reply", "payload": reply, "ref": ref}
                await socket.ws.send_json(about)
            return
        socket.arrived.append(((topic, event), ref))
        self._news.set()

    async def run(self) -> None:
        """Play the recording, step by step."""
        for at, step in enumerate(self._steps):
            self._at = at
            while not await self._take_step(step):
                self._news.clear()
                await self._news.wait()
        self._done.set()

    async def _take_step(self, step: _RecordedStep) -> bool:
        socket = self._sockets.get(step.conn)
        if socket is None:
            return False
        if step.direction == "send":
            return self._match(socket, step)
        if step.direction == "recv":
            if isinstance(step.raw, bytes):
                await socket.ws.send_bytes(step.raw)
            else:
                await socket.ws.send_str(_renumbered(step.raw, socket.refs))
        return True

    def _match(self, socket: _Socket, step: _RecordedStep) -> bool:
        recorded = _read(step.raw)
        if recorded is None:
            return True
        for at, (kind, ref) in enumerate(socket.arrived):
            if kind == recorded[:2]:
                del socket.arrived[at]
                if recorded[2] is not None:
                    socket.refs[recorded[2]] = ref
                return True
        return False


def _steps(path: Path) -> Iterator[_RecordedStep]:
    """Yields the lines to play, without heartbeats and their answers."""
    silent: set[tuple[str, str | None]] = set()
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        found = json.loads(line)
        direction = found.get("dir")
        if direction not in ("open", "send", "recv"):
            continue
        raw = bytes.fromhex(found["hex"]) if "hex" in found else found.get("text", "")
        step = _RecordedStep(number, found["conn"], direction, raw)
        about = _read(raw) if direction != "open" else None
        if about is not None and about[:2] == HEARTBEAT:
            silent.add((step.conn, about[2]))
            continue
        if about is not None and about[0] == "phoenix" and (step.conn, about[2]) in silent:
            continue
        yield step


def _read(raw: str | bytes) -> tuple[str, str, str | None] | None:
    """Returns topic, event and ref of a frame of either side; None if it is no message."""
    if isinstance(raw, bytes):
        return _read_push(raw)
    try:
        found = json.loads(raw)
    except ValueError:
        return None
    if isinstance(found, list) and len(found) >= 5:
        return found[2], found[3], found[1]
    if isinstance(found, dict) and "topic" in found:
        return found["topic"], found["event"], found.get("ref")
    return None


def _read_push(raw: bytes) -> tuple[str, str, str | None] | None:
    """Read a client's broadcast of binary kind 3 (docs/protocol.md#version-2-binary)."""
    if len(raw) < 7 or raw[0] != 3:
        return None
    join_ref, ref, topic = raw[1], raw[2], raw[3]
    start = 7 + join_ref
    name = raw[start : start + ref].decode(errors="replace")
    return raw[start + ref : start + ref + topic].decode(errors="replace"), "broadcast", name


def _renumbered(text: str, refs: dict[str, str | None]) -> str:
    """Replace the recorded refs in a frame of the server by those of this client."""

    def ours(literal: str) -> str:
        ref = json.loads(literal)
        return json.dumps(refs.get(ref, ref))

    if text.startswith("["):
        return _HEAD.sub(lambda head: f"[{ours(head[1])},{ours(head[2])},", text, count=1)
    found = json.loads(text)
    return json.dumps({**found, "ref": refs.get(found.get("ref"), found.get("ref"))})


@asynccontextmanager
async def play(path: str | Path) -> AsyncIterator[Player]:
    """Play a recording to a client; give it ``player.url``."""
    player = Player(Path(path))
    async with _serving(player.handle) as player.url:
        running = asyncio.create_task(player.run(), name="supabase_rt player")
        try:
            yield player
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
