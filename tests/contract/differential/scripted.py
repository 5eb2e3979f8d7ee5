"""A server that follows a scenario, for many scenarios at once.

Each run of a scenario has a stage of its own, found by the path of the URL. Unscripted frames are
answered as Supabase does: joins, leaves, heartbeats, presence and acknowledged broadcasts get
``ok``. ``hold`` exempts an event from that, so that the scenario answers it itself.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import WSCloseCode, WSMsgType, web

from .waking import Signal
from .wire import Frame, decode, encode, user_broadcast

__all__ = ["Stage", "Stages", "serve"]


class Stage:
    """The server's side of one run of one scenario."""

    def __init__(self) -> None:
        self.vsn = ""
        self.queries: list[str] = []
        self.sockets: list[web.WebSocketResponse] = []
        self._transport: asyncio.Transport | None = None
        self.frames: list[Frame] = []
        self.closes: list[int | None] = []
        self.requests: list[dict[str, Any]] = []
        self.joins: list[Frame] = []
        self._held: set[str] = set()
        self._silent = False
        self._refuse: int | None = None
        self._refused = 0
        self._taken: set[int] = set()
        self._expected: Frame = {}
        self._http: dict[str, Any] = {"status": 202}
        self._changed = Signal()
        self.ended = asyncio.Event()

    # -- connections ---------------------------------------------------------------------

    async def websocket(self, request: web.Request) -> web.StreamResponse:
        """One connection of the client."""
        if self._refuse is not None:
            self._refused += 1
            self._changed.fire()
            return web.Response(status=self._refuse)
        self.vsn = request.query["vsn"]
        self.queries.append(request.query_string)
        socket = web.WebSocketResponse(autoclose=False, timeout=0.2)
        await socket.prepare(request)
        self.sockets.append(socket)
        self._transport = request.transport
        self._changed.fire()
        number = len(self.sockets)
        async for message in socket:
            if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                await self._receive({**decode(message.data), "link": number}, socket)
        # The client's own code is echoed, as by Supabase.
        self.closes.append(socket.close_code)
        self._changed.fire()
        await socket.close(code=socket.close_code or WSCloseCode.OK)
        return socket

    async def _receive(self, frame: Frame, socket: web.WebSocketResponse) -> None:
        self.frames.append(frame)
        if frame["event"] == "phx_join":
            self.joins.append(frame)
        self._changed.fire()
        if not self._silent and frame["event"] not in self._held:
            await self._answer(frame, socket)

    async def _answer(self, frame: Frame, socket: web.WebSocketResponse) -> None:
        event, payload = frame["event"], frame["payload"]
        if event == "access_token" or (event == "broadcast" and not self._is_acked(frame)):
            return
        response: Any = {}
        if event == "phx_join":
            response = {"postgres_changes": _with_ids(payload["config"]["postgres_changes"])}
        await self._reply(frame, "ok", response, socket)
        if event == "phx_leave":
            await self._put({**frame, "event": "phx_close", "payload": {}}, socket)

    def _is_acked(self, frame: Frame) -> bool:
        for join in reversed(self.joins):
            if join["topic"] == frame["topic"]:
                return bool(join["payload"]["config"]["broadcast"].get("ack"))
        return False

    async def _reply(
        self, frame: Frame, status: str, response: Any, socket: web.WebSocketResponse
    ) -> None:
        payload = {"status": status, "response": response}
        await self._put({**frame, "event": "phx_reply", "payload": payload}, socket)

    async def _put(self, frame: Frame, socket: web.WebSocketResponse) -> None:
        if not socket.closed:
            await socket.send_str(encode(frame, self.vsn))

    # -- requests ------------------------------------------------------------------------

    async def http(self, request: web.Request) -> web.StreamResponse:
        """Answer a broadcast over HTTP as the scenario says."""
        body = await request.read()
        kind = request.headers["Content-Type"].partition(";")[0]
        self.requests.append(
            {
                "path": request.rel_url.raw_path.partition("/realtime/v1")[2],
                "query": request.rel_url.raw_query_string,
                "type": kind,
                "apikey": request.headers.get("apikey"),
                "authorization": request.headers.get("Authorization"),
                "body": json.loads(body) if kind == "application/json" else {"bytes": body.hex()},
            }
        )
        answer = self._http
        if answer.get("hang"):
            await self.ended.wait()
        text = answer.get("text", json.dumps(answer.get("body", {})))
        return web.Response(status=answer["status"], text=text, reason=answer.get("reason"))

    # -- what a scenario may say ---------------------------------------------------------

    async def do(self, op: str, *args: Any) -> Any:
        """Carry out one step of a scenario."""
        found: Callable[..., Any] = getattr(self, f"do_{op}")
        return await found(*args)

    async def do_hold(self, *events: str) -> None:
        self._held |= set(events)

    async def do_release(self, *events: str) -> None:
        self._held -= set(events)

    async def do_silent(self, silent: bool = True) -> None:
        self._silent = silent

    async def do_refuse(self, status: int | None = 503) -> None:
        """Refuse connections from now on; None accepts them again."""
        self._refuse = status

    async def do_refused(self, count: int) -> bool:
        """Wait until this many connections were refused in total."""
        return await self._changed.until(lambda: self._refused >= count)

    async def do_answer(self, answer: dict[str, Any]) -> None:
        """Set the answer to HTTP requests from now on."""
        self._http = answer

    async def do_expect(self, event: str, topic: str | None = None) -> bool:
        """Wait for a frame that no other step has waited for."""

        def matching() -> int | None:
            for at, frame in enumerate(self.frames):
                if at in self._taken or frame["event"] != event:
                    continue
                if topic is None or frame["topic"] == topic:
                    return at
            return None

        if not await self._changed.until(lambda: matching() is not None):
            return False
        at = matching()
        assert at is not None
        self._taken.add(at)
        self._expected = self.frames[at]
        return True

    async def do_count(self, event: str, count: int) -> bool:
        """Wait until this many frames of this event came in total."""
        return await self._changed.until(
            lambda: sum(frame["event"] == event for frame in self.frames) >= count
        )

    async def do_links(self, count: int) -> bool:
        """Wait until this many connections were made in total."""
        return await self._changed.until(lambda: len(self.sockets) >= count)

    async def do_gone(self, count: int) -> bool:
        """Wait until this many connections ended in total."""
        return await self._changed.until(lambda: len(self.closes) >= count)

    async def do_reply(self, status: str = "ok", response: Any = None) -> None:
        """Answer the frame that was expected last."""
        found = {} if response is None else response
        await self._reply(self._expected, status, found, self.sockets[-1])

    async def do_echo(self) -> None:
        """Answer the join that was expected last as Supabase does."""
        await self._answer(self._expected, self.sockets[-1])

    async def do_send(self, event: str, payload: Any, about: dict[str, Any] | None = None) -> None:
        """Send a frame; refs are ``@n`` for the ref of the n-th join, or None."""
        about = {"topic": "realtime:room", "join_ref": "@0", "ref": None, **(about or {})}
        for key in ("join_ref", "ref"):
            value = about[key]
            if isinstance(value, str) and value.startswith("@"):
                about[key] = self.joins[int(value[1:]) - 1]["ref"] if self.joins else None
        await self._put({**about, "event": event, "payload": payload}, self.sockets[-1])

    async def do_broadcast(self, event: str, payload: Any, meta: Any = None) -> None:
        """A broadcast as the server of this protocol version frames it."""
        if self.vsn == "2.0.0":
            data = user_broadcast("realtime:room", event, payload, meta)
            await self.sockets[-1].send_bytes(data)
            return
        found = {"type": "broadcast", "event": event, "payload": payload}
        await self.do_send("broadcast", found if meta is None else {**found, "meta": meta})

    async def do_text(self, data: str) -> None:
        await self.sockets[-1].send_str(data)

    async def do_bytes(self, data: str) -> None:
        await self.sockets[-1].send_bytes(bytes.fromhex(data))

    async def do_close(self, code: int = WSCloseCode.OK, reason: str = "") -> None:
        await self.sockets[-1].close(code=code, message=reason.encode())

    async def do_drop(self) -> None:
        """End the connection without a close frame."""
        if self._transport is not None:
            self._transport.abort()

    async def do_first_ref(self) -> str:
        """The ref of the first join, as it was written."""
        ref: str = self.joins[0]["ref"]
        return ref

    async def do_seen(self) -> dict[str, Any]:
        """Returns all frames and requests of the client, with refs and versions made comparable."""
        return {
            "frames": [self._plain(frame) for frame in self.frames],
            "requests": self.requests,
            "queries": self.queries,
            "closes": self.closes,
        }

    def _plain(self, frame: Frame) -> Frame:
        refs = [join["ref"] for join in self.joins]
        join_ref = frame["join_ref"]
        found = {key: frame[key] for key in ("link", "event", "topic", "payload")}
        found["join"] = refs.index(join_ref) + 1 if join_ref in refs else join_ref
        found["has_ref"] = frame["ref"] is not None
        if "kind" in frame:
            found["kind"] = frame["kind"]
        payload = frame["payload"]
        if isinstance(payload, dict) and "version" in payload:
            found["payload"] = {**payload, "version": "<client>"}
        return found


def _with_ids(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"id": 1000 + at, **entry} for at, entry in enumerate(entries)]


class Stages:
    """All runs, by the path of their URL: ``/<side>/<scenario>/...``."""

    def __init__(self) -> None:
        self._found: dict[str, Stage] = {}
        self.port = 0

    def of(self, name: str) -> Stage:
        return self._found.setdefault(name, Stage())

    def end(self) -> None:
        for stage in self._found.values():
            stage.ended.set()

    async def control(self, request: web.Request) -> web.StreamResponse:
        """The connection to a player in another process, which sends steps and gets their
        results.
        """
        socket = web.WebSocketResponse()
        await socket.prepare(request)

        async def answer(number: int, name: str, op: str, *args: Any) -> None:
            found = await self.of(name).do(op, *args)
            if not socket.closed:
                await socket.send_json([number, found])

        async with asyncio.TaskGroup() as group:
            async for message in socket:
                group.create_task(answer(*message.json()))
        return socket

    async def handle(self, request: web.Request) -> web.StreamResponse:
        stage = self.of(request.match_info["side"] + "/" + request.match_info["scenario"])
        if request.path.endswith("/websocket"):
            return await stage.websocket(request)
        return await stage.http(request)


@asynccontextmanager
async def serve() -> AsyncIterator[Stages]:
    """The server, on a port of its own."""
    stages = Stages()
    app = web.Application()
    app.router.add_get("/control", stages.control)
    app.router.add_route("*", "/{side}/{scenario}/{rest:.*}", stages.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    stages.port = runner.addresses[0][1]
    try:
        yield stages
    finally:
        stages.end()
        await runner.cleanup()
