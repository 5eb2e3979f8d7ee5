"""Our own client in one room with the other client; it carries out the requests of that client."""

from __future__ import annotations

import asyncio
from typing import Any

from supabase_rt import Broadcast, RealtimeChannel, RealtimeClient
from supabase_rt.server import LocalRealtime

from .child import Operation

__all__ = ["Ours"]


class Ours:
    """A client for each room."""

    def __init__(self, server: LocalRealtime) -> None:
        self._server = server
        self._rooms: dict[str, tuple[RealtimeClient, RealtimeChannel]] = {}
        self._heard: dict[str, list[tuple[str | None, Any]]] = {}

    def operations(self) -> dict[str, Operation]:
        return {
            "join": self.join,
            "send": self.send,
            "send bytes": self.send_bytes,
            "track": self.track,
            "heard": self.heard,
            "leave": self.leave,
        }

    async def join(self, room: str, vsn: str) -> None:
        client = RealtimeClient(
            self._server.ws_url, params={"apikey": self._server.anon_key}, vsn=vsn
        )
        config: Any = {"broadcast": {"ack": True}, "presence": {"key": "python", "enabled": True}}
        heard = self._heard[room] = []

        def hear(message: Broadcast) -> None:
            payload = message.payload
            heard.append((message.event, payload.hex() if isinstance(payload, bytes) else payload))

        channel = client.channel(room, {"config": config})
        channel.on("broadcast", {"event": "*"}, hear)
        channel.on("presence", {"event": "sync"}, lambda: None)
        self._rooms[room] = client, channel
        await channel.subscribe()

    async def send(self, room: str, event: str, payload: Any) -> str:
        message = {"type": "broadcast", "event": event, "payload": payload}
        return str(await self._rooms[room][1].send(message))

    async def send_bytes(self, room: str, event: str, digits: str) -> str:
        return await self.send(room, event, bytes.fromhex(digits))

    async def track(self, room: str, payload: dict[str, Any]) -> str:
        return str(await self._rooms[room][1].track(payload))

    async def heard(self, room: str, count: int, keys: list[str]) -> dict[str, Any]:
        """Wait for a number of broadcasts and presences; returns both."""
        channel = self._rooms[room][1]
        async with asyncio.timeout(10):
            while len(self._heard[room]) < count or set(channel.presence_state()) != set(keys):
                await asyncio.sleep(0.01)
        state = {
            key: [meta["who"] for meta in metas] for key, metas in channel.presence_state().items()
        }
        return {"heard": self._heard[room], "state": state}

    async def leave(self, room: str) -> None:
        client, channel = self._rooms.pop(room)
        await channel.unsubscribe()
        await client.disconnect()

    async def close(self) -> None:
        for room in list(self._rooms):
            await self.leave(room)
