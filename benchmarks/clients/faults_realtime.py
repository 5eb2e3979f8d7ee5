"""PyPI ``realtime`` under the faults of ``benchmarks.faults``."""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from typing import Any

from .driver import tell

realtime: Any = importlib.import_module("realtime")


def on_event(message: Any) -> None:
    if message["payload"].get("poison"):
        raise RuntimeError("a handler that raises")
    tell(n=message["payload"]["n"])


async def main(url: str, key: str, heartbeat: int) -> None:
    client = realtime.AsyncRealtimeClient(url, key, hb_interval=heartbeat)
    await client.connect()
    channel = client.channel("room").on_broadcast("tick", on_event)
    await channel.subscribe(lambda status, error: tell(status=str(status.value)))
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(**json.loads(sys.argv[1])))
