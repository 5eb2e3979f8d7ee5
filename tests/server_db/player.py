"""Plays the client's side of a recording against our server and compares what comes back.

Ids, references and times differ from run to run: each recorded value has to stand for one of
ours, always the same. All else must be equal, numbers to the last digit. Frames are compared
per socket, because what happens on different sockets is not ordered.
"""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import aiohttp

from supabase_rt.server import LocalRealtime

from .tables import OTHER, OWNER

__all__ = ["play"]

RECORDINGS = Path(__file__).parent.parent / "recordings"
QUIET = 0.15
TIMES = {"commit_timestamp", "inserted_at"}
NAMES = {"id", "phx_ref", "phx_ref_prev"}
BEGAN = re.compile(r'\\?"since\\?":(\d+)')


def _loads(text: str | bytes) -> Any:
    """Numbers stay texts, so that 1.50 is not 1.5."""
    return json.loads(text, parse_float=str, parse_int=lambda digits: f"int {digits}")


def _kind_4(data: bytes) -> Any:
    """A binary broadcast of the server, taken apart."""
    assert data[0] == 4
    fields, start = [], 5
    for length in data[1:4]:
        fields.append(data[start : start + length])
        start += length
    meta = _loads(fields[2]) if fields[2] else None
    body = _loads(data[start:]) if data[4] else data[start:]
    return [fields[0].decode(), fields[1].decode(), meta, body]


class Pairs:
    """Which of our names stands for which recorded one."""

    def __init__(self) -> None:
        self._ours: dict[str, str] = {}
        self._theirs: dict[str, str] = {}

    def same(self, theirs: str, ours: str) -> bool:
        return (
            self._ours.setdefault(theirs, ours) == ours
            and self._theirs.setdefault(ours, theirs) == theirs
        )

    def match(self, theirs: Any, ours: Any, name: str = "", table: object = None) -> bool:
        """Whether two decoded values say the same; ``name`` is their key."""
        if theirs is None or type(theirs) is not type(ours):
            return theirs is ours
        if name == "ids":
            known = {self._ours.get(f"None id {each}") for each in theirs}
            return len(theirs) == len(ours) and known == {f"None id {each}" for each in ours}
        if name in NAMES:
            # Rows of different tables may have the same number.
            return self.same(f"{table} {name} {theirs}", f"{table} {name} {ours}")
        if name in TIMES:
            return re.sub(r"\d+", "0", ours) == re.sub(r"\d+", "0", theirs)
        if isinstance(theirs, dict):
            rows = theirs.get("table") if "record" in theirs or "old_record" in theirs else table
            return theirs.keys() == ours.keys() and all(
                self.match(theirs[key], ours[key], key, rows) for key in theirs
            )
        if isinstance(theirs, list):
            return len(theirs) == len(ours) and all(
                self.match(a, b, table=table) for a, b in zip(theirs, ours, strict=True)
            )
        same: bool = theirs == ours
        return same


class Player:
    """One conversation."""

    def __init__(self, server: LocalRealtime, session: aiohttp.ClientSession) -> None:
        self._server = server
        self._session = session
        self._sockets: dict[str, aiohttp.ClientWebSocketResponse] = {}
        self._pairs = Pairs()
        self._tokens: dict[tuple[str, str], str] = {}
        self._began = int(time.time() * 1000)
        self.compared = 0

    def _token(self, placeholder: str, conn: str) -> str:
        """The second user of a recording is the one on socket B."""
        if placeholder == "JWT:anon":
            return self._server.anon_key
        if (placeholder, conn) not in self._tokens:
            sub = OTHER if conn == "B" else OWNER
            role = placeholder.split(":")[1]
            self._tokens[placeholder, conn] = self._server.token(role, sub)
        return self._tokens[placeholder, conn]

    async def take(self, step: dict[str, Any]) -> None:
        kind, conn = step["dir"], step.get("conn", "")
        if kind == "open":
            params = step["params"] | {"apikey": self._token(step["params"]["apikey"], conn)}
            url = self._server.url + step["path"]
            self._sockets[conn] = await self._session.ws_connect(url, params=params)
        elif kind == "sql":
            await self._server.sql(step["sql"])
        elif kind == "send":
            await self._send(step, conn)
        elif kind == "recv":
            await self._compare(step, conn)

    async def _send(self, step: dict[str, Any], conn: str) -> None:
        if "hex" in step:
            await self._sockets[conn].send_bytes(bytes.fromhex(step["hex"]))
            return
        text = re.sub(r"JWT:[a-z_:]+", lambda found: self._token(found[0], conn), step["text"])
        text = BEGAN.sub(lambda found: found[0].replace(found[1], str(self._began)), text)
        await self._sockets[conn].send_str(text)

    async def _compare(self, step: dict[str, Any], conn: str) -> None:
        message = await self._sockets[conn].receive(timeout=5)
        recorded = step.get("text") or bytes.fromhex(step["hex"])
        if isinstance(recorded, bytes):
            assert message.type is aiohttp.WSMsgType.BINARY, f"{conn}: {message} for {recorded!r}"
            theirs, ours = _kind_4(recorded), _kind_4(message.data)
        else:
            assert message.type is aiohttp.WSMsgType.TEXT, f"{conn}: {message} for {recorded}"
            theirs, ours = _loads(recorded), _loads(message.data)
        assert self._pairs.match(theirs, ours), (
            f"{conn} at {step['ms']} ms:\n{recorded!r:.3000}\nbut ours:\n{message.data!r:.3000}"
        )
        self.compared += 1

    async def close(self) -> None:
        for ws in self._sockets.values():
            await ws.close()

    async def stay_quiet(self) -> None:
        """Nothing that was not recorded may follow."""
        for conn, ws in self._sockets.items():
            try:
                extra = await ws.receive(timeout=QUIET)
            except TimeoutError:
                continue
            raise AssertionError(f"{conn} got more than was recorded: {extra}")


async def play(server: LocalRealtime, name: str, until: float = float("inf")) -> int:
    """Play ``name`` as far as ``until`` (recorded ms); how many frames were compared."""
    lines = (RECORDINGS / f"{name}.jsonl").read_text().splitlines()
    steps = [step for line in lines if (step := json.loads(line))["ms"] < until]
    async with aiohttp.ClientSession() as session:
        player = Player(server, session)
        try:
            # The sockets are closed at the end: a close that is recorded ahead of a frame did
            # not cause it.
            for step in steps:
                await player.take(step)
            await player.stay_quiet()
        finally:
            await player.close()
    return player.compared
