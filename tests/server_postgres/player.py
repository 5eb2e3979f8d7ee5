"""Plays the client's side of a recording against our server, and compares the answers.

A recorded value that differs from run to run must correspond to one of ours, always the same
(``pairs.py``). All else must be equal, numbers to the last digit. Frames are compared by socket
and by stream, because frames of different sockets have no order.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import aiohttp

from supabase_rt.server import LocalRealtime
from tests.contract.replay.recordings import Recording, Step, load

from .credentials import Credentials, kinds
from .differences import DIFFERENCES, Difference
from .pairs import Pairs, stream

__all__ = ["Player", "Script", "play"]

QUIET = 0.15
PATIENCE = 5.0
BEGAN = re.compile(r'\\?"since\\?":(\d+)')
CUT_OFF = re.compile(r"(x+)\.\.\.\[(\d+) chars\]\Z")

Script = Mapping[int, Callable[["Player"], Awaitable[object]]]
"""Called before a step: an action of the script that is not in the recording."""


class Player:
    """One conversation."""

    def __init__(
        self, server: LocalRealtime, session: aiohttp.ClientSession, recording: Recording
    ) -> None:
        self.server = server
        self.session = session
        self.credentials = Credentials(server)
        self.compared = 0
        self._differences = [each for each in DIFFERENCES if recording.name in each.recordings]
        self._met: set[Difference] = set()
        self._extra = Counter(kind for each in self._differences for kind in each.more)
        self._recording = recording
        self._kinds = kinds(recording)
        self._sockets: dict[str, aiohttp.ClientWebSocketResponse[bool]] = {}
        self._arrived: dict[str, list[str | bytes]] = {}
        self._pairs = Pairs()
        self._request: asyncio.Task[tuple[int, Mapping[str, str], bytes]] | None = None
        self._began = int(time.time() * 1000)

    # -- the steps -----------------------------------------------------------------------

    async def take(self, step: Step) -> None:
        steps: dict[str, Callable[[Step], Awaitable[object]]] = {
            "open": self._open,
            "closed": self._closed,
            "send": self._send,
            "recv": self._recv,
            "sql": lambda step: self.server.sql(step.about["sql"]),
            "http_req": self._http_request,
            "http_resp": self._http_response,
        }
        if step.direction in steps:
            await steps[step.direction](step)

    async def _open(self, step: Step) -> None:
        if "url" in step.about:
            url = urlsplit(step.about["url"])
            path, params = url.path, dict(parse_qsl(url.query))
        else:
            path, params = step.about["path"], step.about["params"]
        await self.connect(step.conn, path, **params)

    async def connect(self, conn: str, path: str, **params: str) -> None:
        """Open a socket under a recorded name."""
        params["apikey"] = self.credentials.token(params["apikey"], conn)
        url = self.server.url + path
        self._sockets[conn] = await self.session.ws_connect(url, params=params)
        self._arrived[conn] = []

    async def _closed(self, step: Step) -> None:
        if step.about["code"] in (None, 1005):
            await self.hang_up(step.conn)
            return
        ws = self._sockets.pop(step.conn)
        message = await ws.receive(timeout=PATIENCE)
        assert message.type is aiohttp.WSMsgType.CLOSE, f"{message} for {step}"
        assert (message.data, message.extra) == (step.about["code"], ""), step

    async def hang_up(self, conn: str) -> None:
        """Close a socket whose script has ended."""
        ws = self._sockets.pop(conn)
        more = await self._more(conn, ws)
        await ws.close()
        assert not more, f"{conn} got more than was recorded: {more}"

    async def _more(
        self, conn: str, ws: aiohttp.ClientWebSocketResponse[bool]
    ) -> list[str | bytes]:
        found = self._arrived[conn]
        try:
            while True:
                found.append((await ws.receive(timeout=QUIET)).data)
        except TimeoutError:
            return [frame for frame in found if not self._is_explained(conn, frame)]

    def _is_explained(self, conn: str, frame: str | bytes) -> bool:
        if isinstance(frame, bytes):
            return False
        found = json.loads(frame)
        topic, event = found[2:4] if isinstance(found, list) else (found["topic"], found["event"])
        if self._extra[conn, topic, event] <= 0:
            return False
        self._extra[conn, topic, event] -= 1
        return self._explain(lambda each: (conn, topic, event) in each.more)

    def _explain(self, fits: Callable[[Difference], bool]) -> bool:
        found = next((each for each in self._differences if fits(each)), None)
        if found is not None:
            self._met.add(found)
        return found is not None

    def unneeded(self) -> list[object]:
        """Returns the explanations that were not needed."""
        left: list[object] = [each for each in self._differences if each not in self._met]
        return left + list(self._extra.elements())

    # -- frames --------------------------------------------------------------------------

    async def _send(self, step: Step) -> None:
        if "hex" in step.about:
            await self._sockets[step.conn].send_bytes(bytes.fromhex(step.about["hex"]))
            return
        kind = self._kinds.get(step.number)
        text = self.credentials.fill(step.about["text"], step.conn, kind)
        text = BEGAN.sub(lambda found: found[0].replace(found[1], str(self._began)), text)
        cut = CUT_OFF.search(text)
        if cut is not None:
            text = self._whole(step, text[: cut.start()], int(cut[2]))
        await self.say(step.conn, text)

    def _whole(self, step: Step, start: str, length: int) -> str:
        """Complete a frame whose text was cut; its end equals that of the frames before it."""
        later = self._recording.steps[step.number :]
        reply = next(each for each in later if each.direction == "recv")
        end = f'"}}}},"ref":"{reply.json["ref"]}","join_ref":"1"}}'
        return start + "x" * (length - len(start) - len(end)) + end

    async def say(self, conn: str, text: str) -> None:
        """Send a text frame."""
        await self._sockets[conn].send_str(text)

    async def _recv(self, step: Step) -> None:
        if self._explain(lambda each: step.number in each.never):
            return
        ours = await self.hear(step.conn, stream(step.raw))
        assert self._pairs.same_frame(step.raw, ours), f"{step}\nbut ours:\n{ours!r:.3000}"
        self.compared += 1

    async def hear(self, conn: str, wanted: tuple[str, str]) -> str | bytes:
        """Returns the next frame of a stream; keeps frames of other streams for later."""
        arrived = self._arrived[conn]
        seen = 0
        while True:
            for at, frame in enumerate(arrived[seen:], seen):
                if stream(frame) == wanted:
                    return arrived.pop(at)
            seen = len(arrived)
            try:
                message = await self._sockets[conn].receive(timeout=PATIENCE)
            except TimeoutError:
                raise AssertionError(f"{conn} waits for {wanted}, and has {arrived}") from None
            kinds = (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY)
            assert message.type in kinds, f"{conn}: {message} instead of {wanted}"
            arrived.append(message.data)

    # -- HTTP ----------------------------------------------------------------------------

    async def _http_request(self, step: Step) -> None:
        kind, body = self._kinds.get(step.number), step.about["body"]
        headers = {
            name: self.credentials.fill(text) for name, text in step.about["headers"].items()
        }
        about: dict[str, Any] = {"headers": headers}
        if isinstance(body, dict):
            about["json"] = body
        elif body is not None:
            binary = headers.get("Content-Type") == "application/octet-stream"
            about["data"] = bytes.fromhex(body) if binary else body
        if step.about["path"] == "/socket/websocket":
            about["params"] = self._refused(kind)
        url = self.server.url + step.about["path"]
        self._request = asyncio.ensure_future(self._ask(step.about["method"], url, about))

    def _refused(self, kind: str | None) -> dict[str, str]:
        """Returns the query of a handshake that is refused."""
        if kind == "unknown tenant":
            self.server.faults.refuse(404)
        vsn = "9.9.9" if kind == "unknown vsn" else "1.0.0"
        if kind in ("unknown vsn", "unknown tenant"):
            kind = None
        key = {} if kind == "missing" else {"apikey": self.credentials.token("JWT:anon", "", kind)}
        return {"vsn": vsn, **key}

    async def _ask(
        self, method: str, url: str, about: dict[str, Any]
    ) -> tuple[int, Mapping[str, str], bytes]:
        async with self.session.request(method, url, **about) as response:
            return response.status, response.headers, await response.read()

    async def _http_response(self, step: Step) -> None:
        assert self._request is not None
        status, headers, body = await self._request
        self.server.faults.refuse(None)
        assert (status, body.decode()) == (step.about["status"], step.about["body"]), step
        for name, value in step.about["headers"].items():
            if self._explain(lambda each, name=name: name in each.headers):  # type: ignore[misc]
                continue
            if name in ("Date", "X-Request-ID"):
                assert headers[name]
            else:
                assert headers.get(name) == value, f"{name} of {step}"
        self.compared += 1

    async def close(self) -> None:
        for ws in self._sockets.values():
            await ws.close()

    async def stay_quiet(self) -> None:
        """Check that no frame follows that was not recorded."""
        found = await asyncio.gather(*(self._more(conn, ws) for conn, ws in self._sockets.items()))
        more = {conn: frames for conn, frames in zip(self._sockets, found, strict=True) if frames}
        assert not more, f"more than was recorded: {more}"


def _without_the_end(steps: list[Step]) -> list[Step]:
    """Drop the end of the script, which does not concern the server."""
    while steps and (
        steps[-1].direction in ("check", "note", "sql")
        or (steps[-1].direction == "closed" and steps[-1].about["code"] in (None, 1000, 1005))
    ):
        steps.pop()
    return steps


async def play(server: LocalRealtime, name: str, script: Script) -> Player:
    """Play a whole recording; returns the compared steps, and the differences that occurred."""
    recording = load(name)
    async with aiohttp.ClientSession() as session:
        player = Player(server, session, recording)
        try:
            for step in _without_the_end(list(recording.steps)):
                if step.number in script:
                    await script[step.number](player)
                await player.take(step)
            await player.stay_quiet()
        finally:
            await player.close()
    return player
