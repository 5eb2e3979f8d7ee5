"""Handles every order, also those inserted while it was not running.

::

    supabase-rt serve --embedded-db ./data             # prints URL, key and the database's URL
    psql <the database's URL>
        create table orders (id bigint generated always as identity primary key,
                             item text not null, amount int not null);
        alter publication supabase_realtime add table orders;
        grant select on orders to anon;
        insert into orders (item, amount) values ('tea', 3);
    export SUPABASE_URL=... SUPABASE_KEY=...
    python -m supabase_rt.examples.order_watcher handled.db

Stop it with Ctrl+C, insert more, and start it again: missed orders come first. The position is
kept in the file; without a file, it is forgotten at the end.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from supabase_rt import Backfill, PostgresChange, SqliteStore, SubscribeStatus, create_client
from supabase_rt.examples.environment import printable, project


@dataclass
class Order:
    """A row of the table ``orders``."""

    id: int
    item: str
    amount: int


async def on_order(change: PostgresChange[Order]) -> None:
    """Handle one order at a time; a failed one is tried again at the next start."""
    order = change.new
    how = "missed" if change.backfilled else "live"
    print(f"order {order.id}: {order.amount} x {printable(order.item)} ({how})")


def main(store: str | None = None) -> None:
    """Watch until Ctrl+C."""
    supabase = create_client(*project())
    client = supabase.realtime
    client.on("gap", lambda topic, since, until, reason: print("may be missing:", reason))
    orders = supabase.channel("orders")

    async def on_status(status: SubscribeStatus, error: Exception | None) -> None:
        print(status, error or "")
        if status == "SUBSCRIBED":
            # Changes start a little after the join; this matters at the very first start.
            await orders.ready()
            print("watching")

    orders.on(
        "postgres_changes",
        {"event": "INSERT", "schema": "public", "table": "orders"},
        on_order,
        model=Order,
        backfill=Backfill("id", store=SqliteStore(store) if store else None),
    ).subscribe(on_status)
    client.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
