"""The blocking client, with the same names: for scripts, Flask, Django and notebooks.

::

    from supabase_rt.sync import create_client

    with create_client(url, key) as supabase:
        channel = supabase.channel("room").on("broadcast", {"event": "*"}, print).subscribe()
        channel.send({"type": "broadcast", "event": "hello", "payload": {"x": 1}})

It needs ``supabase-rt[sync]``. One event loop serves all clients of the process, in a thread of
its own. A call hands its work to that loop and waits for the result. Plain handlers run in
worker threads, each with its events in order, and may call anything here. It works inside a
running loop too, as in a notebook.
"""

try:
    import anyio as _anyio
except ModuleNotFoundError:
    raise ModuleNotFoundError(
        "supabase_rt.sync needs anyio: pip install 'supabase-rt[sync]'", name="anyio"
    ) from None

from .sync_channel import RealtimeChannel, Stream
from .sync_client import RealtimeClient
from .sync_supabase import SupabaseClient, create_client

del _anyio

__all__ = ["RealtimeChannel", "RealtimeClient", "Stream", "SupabaseClient", "create_client"]
