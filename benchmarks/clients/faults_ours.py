"""``supabase_rt`` under the faults of ``benchmarks.faults``."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from typing import Any

from supabase_rt import RealtimeClient

from .driver import tell


def on_event(event: Any) -> None:
    if event.payload.get("poison"):
        raise RuntimeError("a handler that raises")
    tell(n=event.payload["n"])


async def main(url: str, key: str, heartbeat: float) -> None:
    client = RealtimeClient(url, params={"apikey": key}, heartbeat_interval=heartbeat)
    channel = client.channel("room").on("broadcast", {"event": "tick"}, on_event)
    channel.subscribe(lambda status, error: tell(status=status))
    await client.run_forever()


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    asyncio.run(main(**json.loads(sys.argv[1])))
