"""A relay between two chat rooms: messages in one of them are repeated in the other.

::

    supabase-rt serve                                   # in one terminal; prints URL and key
    export SUPABASE_URL=... SUPABASE_KEY=...            # in two others
    python -m supabase_rt.examples.chat_relay lobby kitchen
    supabase-rt send lobby message '{"from": "anna", "text": "hello"}'

Ctrl+C ends it. Messages are broadcasts ``message`` with ``from`` and ``text``.
"""

from __future__ import annotations

import sys
from typing import Any

from supabase_rt import Broadcast, RealtimeChannel, create_client
from supabase_rt.examples.environment import printable, project

VIA = "chat_relay"


def relay(source: RealtimeChannel, target: RealtimeChannel) -> None:
    """Repeat the messages of ``source`` in ``target``."""

    async def on_message(message: Broadcast) -> None:
        said: dict[str, Any] = message.payload
        # Without this, two relays of the same rooms would repeat each other for ever.
        if said.get("via") == VIA:
            return
        repeated = {**said, "via": VIA}
        status = await target.send({"type": "broadcast", "event": "message", "payload": repeated})
        print(f"{source.sub_topic} -> {target.sub_topic}: {printable(said.get('text'))} ({status})")

    source.on("broadcast", {"event": "message"}, on_message)


def main(first: str = "lobby", second: str = "kitchen") -> None:
    """Join both rooms and stay until Ctrl+C."""
    supabase = create_client(*project())
    # With ack, the status is the server's answer; without ack, it shows only that the message was
    # written.
    rooms = [
        supabase.channel(name, {"config": {"broadcast": {"ack": True}}}) for name in (first, second)
    ]
    relay(rooms[0], rooms[1])
    relay(rooms[1], rooms[0])
    for room in rooms:
        name = room.sub_topic
        room.subscribe(lambda status, error, name=name: print(name, status, error or ""))
    supabase.realtime.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
