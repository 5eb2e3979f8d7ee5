"""Rows are inserted while the network fails, and no row is lost on a link that stays open."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from supabase_rt import RealtimeClient
from supabase_rt.server import LocalRealtime

from ..robustness.faults.oracle import WireLog, accepts, describe
from ..robustness.faults.proxy import FaultProxy
from ..support.clients import QUICK
from ..support.recorder import Statuses
from ..support.waiting import until

ROWS = 120
FAULT_EVERY = 15


def fault(proxy: FaultProxy, server: LocalRealtime, rng: random.Random) -> None:
    rng.choice(
        (proxy.reset, proxy.fin, lambda: proxy.close(1011), lambda: server.faults.phx_close("room"))
    )()


async def test_rows_inserted_by_sql_through_faults_arrive_in_order_and_once(
    db: LocalRealtime,
) -> None:
    seed = random.randrange(2**32)
    rng, log, got, statuses = random.Random(seed), WireLog("2.0.0"), [], Statuses()
    async with FaultProxy(db.port) as proxy:
        proxy.watcher = log.watch
        client = RealtimeClient(
            f"ws://127.0.0.1:{proxy.port}/realtime/v1",
            params={"apikey": db.anon_key},
            reconnect=QUICK,
        )
        table = {"event": "INSERT", "schema": "public", "table": "numbered"}

        def take(payload: Any) -> None:
            got.append(payload.new["n"])

        await db.sql("create table if not exists numbered (n bigint primary key)")
        await db.sql("alter publication supabase_realtime add table numbered")
        await db.sql("grant select on numbered to anon")
        try:
            channel = client.channel("room").on("postgres_changes", table, take)
            await channel.subscribe(statuses)
            await channel.ready()
            for number in range(ROWS):
                await db.sql("insert into numbered values (%s)", number)
                if number % FAULT_EVERY == FAULT_EVERY - 1:
                    fault(proxy, db, rng)
                await asyncio.sleep(rng.uniform(0, 0.02))
            await until(lambda: channel.state == "joined")
            await channel.ready()
            await db.sql("insert into numbered values (%s)", ROWS)
            await until(lambda: got[-1:] == [ROWS])
            joins = log.joins["realtime:room"]
            live = {link.number for link in proxy.links}
            assert accepts(joins, "postgres_changes", got, live), f"seed {seed}\n" + describe(
                joins, "postgres_changes", got, live
            )
            assert got == sorted(set(got))
            assert len(joins) >= statuses.names.count("SUBSCRIBED") > 1
        finally:
            await client.disconnect()
            await db.sql("drop table numbered")
