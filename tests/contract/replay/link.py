"""The server's end of one socket of a recording."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from aiohttp import WSMsgType, web

from .frames import CUT_OFF, Frame, read, renumber

__all__ = ["Link"]


class Link:
    """One socket: the frames of our client, and our refs beside the recorded ones."""

    def __init__(self, conn: str, tag: str, news: Callable[[], None]) -> None:
        self.conn = conn
        self.tag = tag
        self.ws: web.WebSocketResponse | None = None
        self.is_gone = False
        self.arrived: list[Frame] = []
        self.waiting: list[Frame] = []
        self.matched: list[tuple[Frame, Frame]] = []
        self.played = 0
        self._news = news
        self._refs: dict[str, str] = {}
        self._unnamed: deque[str] = deque()

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        """Accept the socket and read it to its end."""
        ws = web.WebSocketResponse(max_msg_size=0, timeout=1.0)
        await ws.prepare(request)
        self.ws = ws
        self._news()
        async for message in ws:
            if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                self._take(message.data)
        self.is_gone = True
        self._news()
        return ws

    def _take(self, raw: str | bytes) -> None:
        frame = read(raw)
        assert frame is not None, f"the client wrote what is no message: {raw!r:.200}"
        self.arrived.append(frame)
        self.waiting.append(frame)
        self._news()

    def match(self, recorded: Frame) -> Frame | None:
        """Returns our frame for a recorded one: the first waiting frame with its topic and
        event.
        """
        ours = next((frame for frame in self.waiting if frame.kind == recorded.kind), None)
        if ours is None:
            return None
        self.waiting.remove(ours)
        self.matched.append((recorded, ours))
        if recorded.payload is CUT_OFF:
            self._unnamed.append(str(ours.ref))
        elif recorded.ref is not None:
            self._refs[recorded.ref] = str(ours.ref)
        return ours

    async def play(self, raw: str | bytes, ref: str | None) -> None:
        """Send a recorded frame of the server with our refs; ``ref`` is the recorded one of a
        reply.
        """
        assert self.ws is not None
        self.played += 1
        if isinstance(raw, bytes):
            # The server was seen to send only this kind, and it has no refs.
            assert raw[0] == 4
            await self.ws.send_bytes(raw)
            return
        if ref is not None and ref not in self._refs and self._unnamed:
            self._refs[ref] = self._unnamed.popleft()
        await self.ws.send_str(renumber(raw, self._refs))
