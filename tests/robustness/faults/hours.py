"""Hours of a client in virtual time: it loses a link every 15 minutes, and no memory grows."""

from __future__ import annotations

import asyncio

from .laboratory import Laboratory

__all__ = ["live_through"]

QUARTER = 900.0


async def live_through(hours: int) -> str:
    """Run the client; returns the events. Raises ``AssertionError`` if something grew."""
    sizes = set()
    async with Laboratory() as lab:
        lab.pace = 300.0
        for _ in range(hours):
            for fault in (lab.proxy.reset, lab.proxy.fin, lab.server.faults.phx_close):
                await asyncio.sleep(QUARTER)
                fault()
            await asyncio.sleep(QUARTER)
            await lab.heal()
            await lab.recover()
            parts = lab.client._parts
            timers = len(parts.client_machine.context.outbox.deadlines)
            helpers = len(parts.connection.background)
            sizes.add(
                (parts.client_machine.pending_replies, timers, helpers, len(asyncio.all_tasks()))
            )
        await lab.probe()
        lab.judge()
        beats = [status for _, status in lab.beats]
    assert len(sizes) == 1, f"left over at the end of an hour: {sorted(sizes)}"
    assert set(beats) == {"sent", "ok"}, set(beats)
    return (
        f"{hours} hours of virtual time: {lab.proxy.made} links, {len(beats) // 2} heartbeats, "
        f"{lab.report.losses} losses told, nothing left over"
    )
