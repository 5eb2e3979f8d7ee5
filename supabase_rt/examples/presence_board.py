"""Shows who is in a room, and updates whenever someone comes or goes.

::

    supabase-rt serve                                   # in one terminal; prints URL and key
    export SUPABASE_URL=... SUPABASE_KEY=...            # in the others
    python -m supabase_rt.examples.presence_board lobby anna
    python -m supabase_rt.examples.presence_board lobby ben

Ctrl+C leaves the room, and the others see it at once.
"""

from __future__ import annotations

import getpass
import sys
import time
from typing import Any

from supabase_rt import RealtimeChannel, create_client
from supabase_rt.examples.environment import printable, project

CLEAR = "\x1b[2J\x1b[H"


def board(room: RealtimeChannel) -> list[str]:
    """Returns the lines to show: each name, and the time it joined."""
    lines = []
    for name, entries in sorted(room.presence_state().items()):
        # The same person may be present more than once, with a phone and a laptop.
        first: dict[str, Any] = min(entries, key=lambda entry: entry.get("since", 0))
        since = time.strftime("%H:%M:%S", time.localtime(first.get("since", 0)))
        times = f" x{len(entries)}" if len(entries) > 1 else ""
        lines.append(f"  {name}{times}  since {since}")
    return [f"{room.sub_topic}: {len(lines)} here", *lines]


def main(topic: str = "lobby", name: str | None = None) -> None:
    """Be in the room and show it until Ctrl+C."""
    supabase = create_client(*project())
    room = supabase.channel(topic, {"config": {"presence": {"key": name or getpass.getuser()}}})

    def draw() -> None:
        text = "\n".join(map(printable, board(room)))
        print(f"{CLEAR}{text}" if sys.stdout.isatty() else text, flush=True)

    async def on_status(status: str, error: Exception | None) -> None:
        if status != "SUBSCRIBED":
            print(status, error or "")
        else:
            # After a reconnect the client tracks again by itself. This call then repeats the old
            # time, which changes nothing on the server.
            await room.track({"since": started})

    started = time.time()
    room.on("presence", {"event": "sync"}, draw)
    room.subscribe(on_status)
    supabase.realtime.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
