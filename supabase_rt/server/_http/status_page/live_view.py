"""The live view: events and state of the server, sent to the open status pages."""

from __future__ import annotations

import asyncio
import collections
import json
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import aiohttp
import msgspec
from aiohttp import web

from ...._wire.envelope import UserBroadcast
from ..._machine.server_state import Backend, logger
from ...activity import Happening

__all__ = ["Inspector", "Watched"]

INTERVAL = 0.1
"""Seconds between two messages to a page, at least."""
STATE_INTERVAL = 0.5
MOST_EVENTS = 200
"""Events in one message; of more than that, the newest are sent."""
MOST_SOCKETS = 200
OWN_REQUESTS = "/inspector/"
LONGEST = 2_000
"""Characters of a payload that are sent."""
OF_STATE = {"connect", "disconnect", "join", "leave", "presence"}


class Watched(Protocol):
    """A socket, as the live view sees it."""

    def describe(self) -> dict[str, Any]:
        """Returns its number, peer, vsn and channels."""


class _Page:
    """An open page, and the events that wait to be sent to it.

    A page that does not read delays nothing: newer events replace its oldest ones.
    """

    def __init__(self) -> None:
        self.events: collections.deque[dict[str, Any]] = collections.deque(maxlen=MOST_EVENTS)
        self.changed = True
        self.news = asyncio.Event()
        self.news.set()

    def take_events(self) -> list[dict[str, Any]]:
        """Remove and return the waiting events."""
        found = list(self.events)
        self.events.clear()
        return found


class Inspector:
    """Watches the server while a page is open; costs nothing without one."""

    def __init__(self, backend: Backend, sockets: Mapping[int, Watched]) -> None:
        self._backend = backend
        self._sockets = sockets
        self._pages: dict[web.WebSocketResponse[bool], _Page] = {}
        self._end: Callable[[], None] | None = None

    async def show(self, ws: web.WebSocketResponse[bool]) -> None:
        """Send events and state to a page until it disconnects."""
        page = self._pages[ws] = _Page()
        if self._end is None:
            self._end = self._backend.activity.watch(self._note)
        name = "supabase_rt server: writer of a status page"
        writer = asyncio.get_running_loop().create_task(self._write(ws, page), name=name)
        try:
            async for _ in ws:
                pass
        finally:
            del self._pages[ws]
            if not self._pages:
                self._end()
                self._end = None
            writer.cancel()
            await asyncio.wait([writer])

    async def close(self) -> None:
        """Close the socket of every page, at the end of the server."""
        for ws in list(self._pages):
            await ws.close(code=1012, drain=False)

    def _note(self, found: Happening) -> None:
        if found.topic.startswith(OWN_REQUESTS):
            return
        described, of_state = _described(found), found.kind in OF_STATE
        for page in self._pages.values():
            page.events.append(described)
            page.changed = page.changed or of_state
            page.news.set()

    async def _write(self, ws: web.WebSocketResponse[bool], page: _Page) -> None:
        state_sent_at = float("-inf")
        try:
            while True:
                await page.news.wait()
                await asyncio.sleep(INTERVAL)
                page.news.clear()
                events = page.take_events()
                if events:
                    await ws.send_str(json.dumps(["events", events]))
                now = time.monotonic()
                if page.changed and now - state_sent_at < STATE_INTERVAL:
                    page.news.set()
                elif page.changed:
                    state_sent_at, page.changed = now, False
                    await ws.send_str(json.dumps(["state", self._state()], default=str))
        except (ConnectionError, aiohttp.ClientError):
            # The page is gone; the reader ends as well.
            pass
        except Exception:
            logger.exception("events could not be sent to a status page")
            await ws.close(code=1011, drain=False)

    def _state(self) -> dict[str, Any]:
        backend, sockets = self._backend, list(self._sockets.values())
        presence: list[dict[str, Any]] = [
            {"topic": topic, "private": private, "present": _present(state)}
            for (topic, private), state in backend.hub.spaces()
            if state
        ]
        return {
            "sockets": [socket.describe() for socket in sockets[:MOST_SOCKETS]],
            "presence": presence[:MOST_SOCKETS],
            "totals": {
                "sockets": len(sockets),
                "present": sum(len(each["present"]) for each in presence),
                "joins": backend.joins,
                "connections": backend.connections,
                "unreadable": backend.malformed,
            },
        }


def _present(state: Mapping[str, Any]) -> dict[str, Any]:
    return {key: found["metas"] for key, found in state.items()}


def _described(found: Happening) -> dict[str, Any]:
    return {
        "at": time.time(),
        "kind": found.kind,
        "connection": found.connection,
        "topic": found.topic,
        "event": found.event,
        "text": found.text,
        "content": _shown(found.content),
        "reached": found.reached,
    }


def _shown(content: Any) -> str:
    """Returns a payload or a row as text, cut if it is long."""
    if content is None:
        return ""
    if isinstance(content, UserBroadcast):
        if not content.is_json:
            return f"{len(content.body):,} bytes: {content.body[:32].hex(' ')}"
        text = content.body.decode("utf-8", "replace")
    elif isinstance(content, msgspec.Raw):
        text = bytes(content).decode("utf-8", "replace")
    else:
        text = json.dumps(content, ensure_ascii=False, default=str)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text):,} characters)"
