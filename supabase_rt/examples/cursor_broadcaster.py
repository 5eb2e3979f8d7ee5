"""Sends a cursor that goes round in a circle, and shows the cursors of the others.

::

    supabase-rt serve                                   # in one terminal; prints URL and key
    export SUPABASE_URL=... SUPABASE_KEY=...            # in two others
    python -m supabase_rt.examples.cursor_broadcaster canvas anna
    python -m supabase_rt.examples.cursor_broadcaster canvas ben

Ctrl+C ends it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import sys

from supabase_rt import Broadcast, RealtimeChannel, create_client
from supabase_rt.examples.environment import printable, project

PER_SECOND = 20
"""Cursors a second. A project takes 100 messages a second by default, of all its clients."""


async def move(canvas: RealtimeChannel, name: str) -> None:
    """Send positions for ever."""
    for step in itertools.count():
        angle = step / PER_SECOND
        position = {"name": name, "x": round(math.cos(angle), 3), "y": round(math.sin(angle), 3)}
        # An old position is of no use, so nothing is sent without a connection.
        if canvas.state == "joined":
            await canvas.send({"type": "broadcast", "event": "cursor", "payload": position})
        await asyncio.sleep(1 / PER_SECOND)


async def main(topic: str = "canvas", name: str = "anna") -> None:
    """Send and show until Ctrl+C."""
    supabase = create_client(*project())
    canvas = supabase.channel(topic)

    def on_cursor(message: Broadcast) -> None:
        cursor = message.payload
        print(
            f"{printable(cursor['name'])} is at {cursor['x']:+.3f} {cursor['y']:+.3f}", flush=True
        )

    canvas.on("broadcast", {"event": "cursor"}, on_cursor)
    canvas.subscribe(lambda status, error: print(status, error or "", flush=True))
    moving = asyncio.create_task(move(canvas, name), name="cursor_broadcaster:move")
    try:
        await supabase.realtime.run_forever()
    finally:
        moving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await moving


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
