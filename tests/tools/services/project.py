"""A Supabase project around a local Realtime server, with fakes of the other services."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web

from supabase_rt.server import LocalRealtime


@dataclass
class Project:
    """The requests it got, and the sessions it issued."""

    realtime: LocalRealtime
    url: str = ""
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, path and token of each request."""
    headers: list[dict[str, str]] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)
    sessions: int = 0
    refreshes: int = 0
    lifetime: int = 3600
    elsewhere: str = ""

    def tokens(self, path: str) -> list[str]:
        return [token for _, where, token in self.asked if where == path]

    def _note(self, request: web.Request) -> None:
        bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
        self.asked.append((request.method, request.path, bearer))
        self.headers.append(dict(request.headers))

    def session(self) -> dict[str, Any]:
        self.sessions += 1
        token = self.realtime.token(
            "authenticated", "anna", self.lifetime, session=f"s{self.sessions}"
        )
        user = {"id": "anna", "aud": "authenticated", "app_metadata": {}, "user_metadata": {}}
        return {
            "access_token": token,
            "refresh_token": f"refresh-{self.sessions}",
            "token_type": "bearer",
            "expires_in": self.lifetime,
            "user": {**user, "created_at": "2026-01-01T00:00:00Z"},
        }

    async def auth_token(self, request: web.Request) -> web.Response:
        self._note(request)
        self.refreshes += request.query["grant_type"] == "refresh_token"
        body = await request.json()
        if body.get("password") == "wrong":
            return web.json_response({"code": "invalid_credentials", "message": "no"}, status=400)
        return web.json_response(self.session())

    async def logout(self, request: web.Request) -> web.Response:
        self._note(request)
        return web.Response(status=204)

    async def rest(self, request: web.Request) -> web.Response:
        self._note(request)
        self.bodies.append(await request.json() if request.can_read_body else None)
        return web.json_response([{"id": 1, "path": request.path_qs}])

    async def storage(self, request: web.Request) -> web.Response:
        self._note(request)
        return web.json_response([])

    async def function(self, request: web.Request) -> web.Response:
        self._note(request)
        if request.match_info["name"] == "moved":
            raise web.HTTPTemporaryRedirect(self.elsewhere)
        return web.json_response({"said": request.match_info["name"]})

    async def socket(self, request: web.Request) -> web.WebSocketResponse:
        """Pass a request on to the local server, as a gateway does."""
        near = web.WebSocketResponse()
        await near.prepare(request)
        target = f"{self.realtime.ws_url}/websocket"
        async with (
            aiohttp.ClientSession() as http,
            http.ws_connect(target, params=request.query) as far,
        ):
            await asyncio.gather(_pass(near, far), _pass(far, near))
        return near


async def _pass(source: Any, target: Any) -> None:
    async for message in source:
        if message.type is aiohttp.WSMsgType.TEXT:
            await target.send_str(message.data)
        else:
            await target.send_bytes(message.data)
    await target.close()


@asynccontextmanager
async def served(app: web.Application) -> AsyncIterator[str]:
    runner = web.AppRunner(app, shutdown_timeout=0.5)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def open_project(realtime: LocalRealtime) -> AsyncIterator[Project]:
    project = Project(realtime)
    app = web.Application()
    app.router.add_post("/auth/v1/token", project.auth_token)
    app.router.add_post("/auth/v1/logout", project.logout)
    app.router.add_route("*", "/rest/v1/{path:.*}", project.rest)
    app.router.add_route("*", "/storage/v1/{path:.*}", project.storage)
    app.router.add_route("*", "/functions/v1/{name}", project.function)
    app.router.add_get("/realtime/v1/websocket", project.socket)
    async with served(app) as project.url:
        yield project
