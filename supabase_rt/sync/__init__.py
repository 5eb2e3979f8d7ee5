"""The same names, blocking: for scripts, Flask and Django, notebooks (``supabase-rt[sync]``).

::

    from supabase_rt.sync import create_client

    with create_client(url, key) as supabase:
        channel = supabase.channel("room").on("broadcast", {"event": "*"}, print).subscribe()
        channel.send({"type": "broadcast", "event": "hello", "payload": {"x": 1}})

One event loop runs in a thread of its own, for all clients of the process; a call hands its work
over and waits for the result. Plain handlers run in worker threads, the events of each in order,
and may call anything here. Inside a running loop (a notebook) it works just as well.
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
