"""A failure of the final kind ends a client that never worked, not one that worked before."""

from __future__ import annotations

import asyncio
import logging

import pytest

from supabase_rt import ConnectionFailed, ReconnectPolicy, create_client
from supabase_rt.server import LocalRealtime

from ...support.clients import QUICK, MakeClient
from ...support.recorder import ClientEvents, Statuses
from ...support.threads import threaded_server
from ...support.waiting import until

STATUSES = [301, 302, 307, 308, 400, 401, 403, 404, 405, 406, 410, 426]


@pytest.mark.parametrize("status", STATUSES)
async def test_a_status_of_the_final_kind_is_tried_again_after_a_link(
    server: LocalRealtime, make_client: MakeClient, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    client = make_client(reconnect=QUICK)
    events, statuses = ClientEvents(client), Statuses()
    await client.channel("room").subscribe(statuses)
    server.faults.refuse(status)
    server.faults.cut()
    await until(lambda: len(events.of("reconnecting")) >= 3)
    server.faults.refuse(None)
    await statuses.are("SUBSCRIBED", "CHANNEL_ERROR", "SUBSCRIBED")
    told = [error for error in events.errors if isinstance(error, ConnectionFailed)]
    assert told[0].status == status
    assert told[0].hint
    loud = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert sum(told[0].hint in line for line in loud) == 1


@pytest.mark.parametrize("code", [1008, 3000])
async def test_a_close_code_of_the_final_kind_is_tried_again_after_a_link(
    server: LocalRealtime, make_client: MakeClient, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    client = make_client(reconnect=QUICK)
    events, statuses = ClientEvents(client), Statuses()
    await client.channel("room").subscribe(statuses)
    server.faults.close(code)
    await statuses.are("SUBSCRIBED", "CHANNEL_ERROR", "SUBSCRIBED")
    (error,) = events.errors
    assert getattr(error, "close_code", None) == code
    assert "check the key" in caplog.text


async def test_a_rejoin_that_is_refused_for_good_once_is_asked_again(
    server: LocalRealtime, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    client = make_client(reconnect=QUICK)
    events, statuses = ClientEvents(client), Statuses()
    await client.channel("room").subscribe(statuses)
    server.faults.refuse_next_join("PrivateOnly: This project only allows private channels")
    server.faults.cut()
    await statuses.are("SUBSCRIBED", "CHANNEL_ERROR", "CHANNEL_ERROR", "SUBSCRIBED")
    assert [getattr(error, "code", None) for error in events.errors] == ["PrivateOnly"]
    assert "asks again for a while (this project allows private channels only" in caplog.text


async def test_nothing_but_refusals_for_final_after_ends_the_client(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    policy = ReconnectPolicy(initial_backoff=0.01, max_backoff=0.02, final_after=0.2)
    client = make_client(reconnect=policy)
    events, statuses = ClientEvents(client), Statuses()
    await client.channel("room").subscribe(statuses)
    server.faults.refuse(401)
    server.faults.cut()
    await statuses.are("SUBSCRIBED", "CHANNEL_ERROR", "CLOSED")
    assert len(events.of("reconnecting")) > 3
    assert len(await events.some("gave_up")) == 1


def test_one_loop_for_each_call_makes_no_call_wait() -> None:
    with threaded_server() as server:
        client = create_client(server.url, server.anon_key)

        async def call() -> float:
            started = asyncio.get_running_loop().time()
            room = client.channel("room")
            await room.subscribe()
            await room.unsubscribe()
            return asyncio.get_running_loop().time() - started

        slowest = max(asyncio.run(call()) for _ in range(8))
        asyncio.run(client.aclose())
    assert slowest < 0.4
