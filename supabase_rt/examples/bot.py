"""The bot of the README; it wants ``SUPABASE_URL`` and ``SUPABASE_KEY``."""

import os

from supabase_rt import PostgresChange, SupabaseClient, create_client


def on_change(change: PostgresChange) -> None:
    print(change.event_type, change.table, change.new)


supabase: SupabaseClient = create_client(os.environ["SUPABASE_URL"], os.environ["SUPABASE_KEY"])
(
    supabase.channel("room")
    .on("postgres_changes", {"event": "*", "schema": "public", "table": "messages"}, on_change)
    .on("broadcast", {"event": "cursor"}, lambda message: print("cursor", message.payload))
    .on("presence", {"event": "join"}, lambda joined: print("joined", joined.key))
    .subscribe(lambda status, error: print(status, error or ""))
)
supabase.realtime.run()
