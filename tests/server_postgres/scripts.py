"""Actions of the recording scripts that the recordings do not contain."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import aiohttp
import pytest

from tests.contract.replay.recordings import Recording, Step, load

from .player import Player, Script

__all__ = ["SCRIPTS"]

Act = Callable[[Player], Awaitable[object]]


def _at(recording: Recording, **where: str) -> list[int]:
    """Returns the steps whose field contains a text, in order: ``_at(r, note="SIGTERM")``."""
    ((field, text),) = where.items()
    return [step.number for step in recording.steps if text in str(step.about.get(field, ""))]


def _fault(action: Callable[[Player], object]) -> Act:
    async def act(player: Player) -> None:
        action(player)

    return act


def _server_initiated() -> Script:
    recording = load("server_initiated")
    killed, disconnected, all_out = (step.number for step in recording.of("note"))
    return {
        killed: _fault(lambda player: player.server.faults.phx_error()),
        disconnected: _fault(lambda player: player.server.faults.close(1001)),
        all_out: _fault(lambda player: player.server.faults.disconnect()),
    }


def _server_restart() -> Script:
    recording = load("server_restart")
    stopping: list[asyncio.Task[None]] = []

    async def stop(player: Player) -> None:
        stopping.append(asyncio.ensure_future(player.server.stop()))

    async def try_in_vain(player: Player) -> None:
        await stopping.pop()
        with pytest.raises(aiohttp.ClientConnectorError):
            await player.connect("X", "/socket/websocket", apikey="JWT:anon", vsn="1.0.0")

    async def start(player: Player) -> None:
        await player.server.start()

    return {
        _at(recording, note="SIGTERM")[0]: stop,
        _at(recording, what="connect while down")[0]: try_in_vain,
        _at(recording, what="started again")[0]: start,
    }


def _rate_limit() -> Script:
    """Send the flood; the recording has only its first twenty frames."""
    recording = load("rate_limit")
    sends = [step for step in recording.of("send") if step.json["event"] == "broadcast"]
    told = next(step for step in recording.of("recv") if step.json["event"] == "system")
    answers = [int(step.json["ref"]) for step in recording.of("recv") if _is_reply(step)]
    first, last = min(answers[1:]), max(answers)

    async def flood(player: Player, refs: range) -> None:
        frame = sends[0].json
        for ref in refs:
            frame["ref"], frame["payload"]["payload"]["i"] = str(ref), ref - 2
            await player.say("A", json.dumps(frame))

    async def go_on(player: Player) -> None:
        await flood(player, range(len(sends) + 2, first - 1))
        for number in range(first - 3):
            own = json.loads(await player.hear("A", ("realtime:flood", "broadcast")))
            assert own["payload"]["payload"] == {"i": number}
        # The real server did this every five seconds; here it is done at the same step.
        player.server.backend.limits.tick()
        await flood(player, range(first - 1, last + 1))

    return {told.number: go_on}


def _is_reply(step: Step) -> bool:
    return bool(step.json["event"] == "phx_reply")


def _realtime_js() -> Script:
    """Insert the rows and send the requests of the script; only sockets were recorded."""
    recording = load("realtime_js")
    rows = [step.number for step in recording.of("recv") if "from js" in str(step.about)]
    sent = [
        step.number
        for step in recording.of("recv")
        if step.conn in ("B1", "B2")
        and ("viaHttp" in str(step.about) or b"viaHttp".hex() in str(step.about))
    ]

    async def insert(player: Player) -> None:
        await player.server.sql("insert into public.messages(room, body) values ('js', 'from js')")

    async def send(player: Player) -> None:
        assert await _post(player, "/api/broadcast/js/events/viaHttp", {"h": 1}) == 202

    return dict.fromkeys(rows, insert) | dict.fromkeys(sent, send)


def _gateway() -> Script:
    """Send the client's frames, which were not recorded."""
    recording = load("gateway")
    joined, _ = (step.number for step in recording.of("recv"))
    posted = _at(recording, what="POST /realtime/v1/api/broadcast")[0]

    async def join(player: Player) -> None:
        await player.connect("G", "/realtime/v1/websocket", apikey="JWT:anon", vsn="1.0.0")
        frame = {"topic": "realtime:gw", "event": "phx_join", "payload": {"config": {}}}
        await player.say("G", json.dumps(frame | {"ref": "1", "join_ref": "1"}))

    async def post(player: Player) -> None:
        body = {"messages": [{"topic": "gw", "event": "e", "payload": {}}]}
        assert await _post(player, "/realtime/v1/api/broadcast", body) == 202

    return {joined: join, posted: post}


async def _post(player: Player, path: str, body: object) -> int:
    headers = {"apikey": player.server.anon_key}
    async with player.session.post(player.server.url + path, json=body, headers=headers) as found:
        return found.status


SCRIPTS: dict[str, Callable[[], Script]] = {
    "gateway": _gateway,
    "rate_limit": _rate_limit,
    "realtime_js": _realtime_js,
    "server_initiated": _server_initiated,
    "server_restart": _server_restart,
}
"""The actions by recording; built when it is played, because they read the recording."""
