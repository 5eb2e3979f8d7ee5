"""The steps of a schedule, as functions."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from .proxy import DOWN
from .wsframes import TEXT

if TYPE_CHECKING:
    from .laboratory import Laboratory

__all__ = ["LabFaults"]

DETECTION = 25.0 + 25.0 + 30.0


class LabFaults:
    """The steps by name; see ``schedule``."""

    def __init__(self, lab: Laboratory) -> None:
        self.lab = lab
        self.proxy = lab.proxy
        self.server = lab.server

    # -- the network ---------------------------------------------------------------------

    async def reset(self) -> None:
        self.proxy.reset()

    async def fin(self) -> None:
        self.proxy.fin()

    async def close(self, code: int | None) -> None:
        self.proxy.close(code)

    async def stall(self, ways: Any, new: bool, seconds: float) -> None:
        was_open, before = self.lab.client.is_connected(), len(self.lab.opens)
        self.proxy.stall(*ways, new=new)
        await asyncio.sleep(seconds)
        # The faults lose the answer to a heartbeat in different ways; an unanswered join adds 30 s.
        noticed = "close" in self.lab.opens[before:]
        assert noticed or not was_open or seconds < DETECTION, f"unnoticed for {seconds} s"
        self.proxy.resume()

    async def outage(self, seconds: float) -> None:
        await self.proxy.vanish()
        await asyncio.sleep(seconds)
        await self.proxy.heal()

    async def refuse(self, how: Any, seconds: float) -> None:
        self.proxy.refusal = how
        self.proxy.reset()
        await asyncio.sleep(seconds)
        self.proxy.refusal = None

    async def latency(self, way: Any, seconds: float) -> None:
        self.proxy.latency[way] = seconds

    async def bandwidth(self, way: Any, rate: float) -> None:
        self.proxy.bandwidth[way] = rate

    async def spoil(self, way: Any, how: Any, count: int) -> None:
        for _ in range(count):
            self.proxy.spoil(way, how)

    async def inject(self, junk: tuple[int, bytes, int]) -> None:
        opcode, payload, bits = junk
        self.proxy.inject(DOWN, opcode, payload, bits)

    async def end_join(self, room: int, event: str) -> None:
        """Write an end of the join that the server never sent."""
        topic = self.lab.rooms[room].channel.topic
        ref = self.lab.log.ref_of(topic)
        if self.lab.vsn == "1.0.0":
            frame: Any = {"topic": topic, "event": event, "payload": {}, "ref": ref}
        else:
            frame = [ref, ref, topic, event, {}]
        self.proxy.inject(DOWN, TEXT, json.dumps(frame).encode())

    # -- the server ----------------------------------------------------------------------

    async def server_ends(self, room: int, crash: bool, cause: str | None) -> None:
        if crash:
            self.server.faults.phx_error(f"room-{room}")
        else:
            self.server.faults.phx_close(f"room-{room}", cause)

    async def shut_down(self) -> None:
        self.server.faults.disconnect()

    async def deaf(self, seconds: float) -> None:
        self.server.faults.heartbeat_replies = False
        await asyncio.sleep(seconds)
        self.server.faults.heartbeat_replies = True

    async def restart(self, seconds: float) -> None:
        await self.server.restart(seconds)

    async def refuse_join(self, reason: str, count: int) -> None:
        self.server.faults.refuse_next_join(reason, count, close=1001 if count == 2 else None)

    # -- the program around it -----------------------------------------------------------

    async def token(self, mode: str, seconds: float) -> None:
        """Make the token callback fail for a while."""
        self.lab.token_mode = mode
        self.lab.client.set_auth()
        await asyncio.sleep(seconds)
        self.lab.token_mode = "good"

    async def rest(self, seconds: float) -> None:
        """Disconnect, and connect again later."""
        await self.lab.client.disconnect()
        await asyncio.sleep(seconds)
        self.lab.client.connect()

    async def cancel(self) -> None:
        """Cancel tasks of the client from outside."""
        for task in asyncio.all_tasks():
            if task.get_name() in ("supabase_rt:link", "supabase_rt:token", "supabase_rt:writer"):
                task.cancel()

    # -- the users -----------------------------------------------------------------------

    async def burst(self, count: int) -> None:
        for number in range(count):
            await self.lab.publish(number % 3, "insert" if number % 2 else "http")

    async def send(self, room: int) -> None:
        channel = self.lab.rooms[room].channel
        self.lab.sent.append(channel.send({"type": "broadcast", "event": "hello", "payload": {}}))

    async def track(self, room: int) -> None:
        channel = self.lab.rooms[room].channel
        self.lab.sent.append(channel.track({"at": len(self.lab.sent)}))
