"""Clients for the tests of the server.

They read and write JSON and raw bytes without our serializer. With it on both ends, a
misreading of the protocol would not show.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from supabase_rt.server import LocalRealtime
from supabase_rt.server._machine.outgoing import Close, Text
from supabase_rt.server._machine.server_session import ServerSession
from supabase_rt.server._machine.server_state import Backend
from supabase_rt.server.settings import Settings
from supabase_rt.server.tokens import Policy, Tokens, default_policy

START = 1_800_000_000.0


class World:
    """A backend whose clock the test moves, and clients without sockets."""

    def __init__(self, policy: Policy = default_policy, **settings: Any) -> None:
        self.now = START
        self.backend = Backend(Settings(**settings), tokens=Tokens(), policy=policy)
        self._number = 0
        self.clients: list[Client] = []

    def token(self, role: str = "anon", **about: Any) -> str:
        return self.backend.tokens.issue(role, now=self.now, **about)

    def client(self, vsn: str = "2.0.0", token: str | None = None) -> Client:
        self._number += 1
        found = Client(self, vsn, token or self.token(), self._number)
        self.clients.append(found)
        return found

    def advance(self, seconds: float) -> None:
        self.now += seconds
        for client in self.clients:
            client.session.advance(self.now)


class Client:
    """The client of one session; every client numbers its refs from 1."""

    def __init__(self, world: World, vsn: str, token: str, number: int) -> None:
        self.world = world
        self.vsn = vsn
        self.session = ServerSession(world.backend, vsn, token, now=world.now, number=number)
        self._ref = 0
        self.join_refs: dict[str, str] = {}

    def raw(self, data: str | bytes) -> list[Any]:
        """Send a frame; returns all frames that have arrived since the last call."""
        self.session.receive(data, self.world.now)
        return self.heard()

    def heard(self) -> list[Any]:
        found: list[Any] = []
        while self.session.outbox:
            item = self.session.outbox.popleft()
            if isinstance(item, Close):
                found.append(item)
            elif isinstance(item.data, bytes) and not isinstance(item.data, Text):
                found.append(item.data)
            else:
                found.append(json.loads(item.data))
        return found

    def events(self) -> list[str]:
        """The names of the events that arrived."""
        index = "event" if self.vsn == "1.0.0" else 3
        return [frame[index] for frame in self.heard()]

    def push(self, topic: str, event: str, payload: Any, *, ref: str | None = None) -> list[Any]:
        self._ref += 1
        ref = ref or str(self._ref)
        if event == "phx_join":
            self.join_refs[topic] = ref
        join_ref = self.join_refs.get(topic)
        return self.raw(frame(self.vsn, join_ref, ref, topic, event, payload))

    def join(self, topic: str = "realtime:room", token: str | None = None, **config: Any) -> Any:
        """Join; returns the frames that came back."""
        payload: dict[str, Any] = {"config": config}
        if token is not None:
            payload["access_token"] = token
        return self.push(topic, "phx_join", payload)

    def reason(self, topic: str = "realtime:room", **about: Any) -> Any:
        """Join and be refused; returns the reason."""
        reply = payload_of(self.join(topic, **about)[0])
        assert reply["status"] == "error"
        return reply["response"]["reason"]


def frame(
    vsn: str, join_ref: str | None, ref: str | None, topic: str, event: str, payload: Any
) -> str:
    if vsn == "2.0.0":
        return json.dumps([join_ref, ref, topic, event, payload])
    found = {"topic": topic, "event": event, "payload": payload, "ref": ref, "join_ref": join_ref}
    return json.dumps(found)


def payload_of(found: Any) -> Any:
    return found["payload"] if isinstance(found, dict) else found[4]


class Wire:
    """A plain WebSocket to a real server."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse[bool]) -> None:
        self.ws = ws

    async def send(self, *fields: Any) -> None:
        await self.ws.send_str(json.dumps(list(fields)))

    async def recv(self, timeout: float = 2.0) -> Any:
        """Returns the next frame: a list, the bytes of a binary one, or ("closed", code)."""
        message = await self.ws.receive(timeout=timeout)
        if message.type is aiohttp.WSMsgType.TEXT:
            return json.loads(message.data)
        if message.type is aiohttp.WSMsgType.BINARY:
            return message.data
        if message.type is aiohttp.WSMsgType.CLOSE:
            return ("closed", message.data, message.extra)
        return ("closed", self.ws.close_code)

    async def ask(self, *fields: Any) -> Any:
        await self.send(*fields)
        return await self.recv()

    async def join(self, topic: str = "realtime:room", **config: Any) -> Any:
        return await self.ask("1", "1", topic, "phx_join", {"config": config})

    async def beats(self, timeout: float = 2.0) -> bool:
        """Returns True if a heartbeat is answered."""
        await self.send(None, "hb", "phoenix", "heartbeat", {})
        try:
            return bool((await self.recv(timeout))[1] == "hb")
        except TimeoutError:
            return False


def as_page(server: LocalRealtime) -> dict[str, str]:
    """Returns the header with the token of the status page."""
    return {"Authorization": f"Bearer {server.inspector_url.partition('#token=')[2]}"}


@asynccontextmanager
async def wire(
    server: LocalRealtime, key: str | None = None, vsn: str = "2.0.0"
) -> AsyncIterator[Wire]:
    params = {"apikey": server.anon_key if key is None else key, "vsn": vsn}
    timeout = aiohttp.ClientWSTimeout(ws_close=0.2)
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{server.ws_url}/websocket", params=params, timeout=timeout) as ws,
    ):
        yield Wire(ws)
