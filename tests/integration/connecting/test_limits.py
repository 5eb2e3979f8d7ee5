"""The limits of a project, and how a client behaves at them."""

from __future__ import annotations

import asyncio

import pytest

from supabase_rt import RealtimeClient, Refused
from supabase_rt.server import LocalRealtime

from ...support.clients import MakeClient
from ...support.recorder import Statuses
from ...support.waiting import until


async def test_one_channel_too_many_is_final_and_says_what_to_do(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    channels = [client.channel(f"room-{number}") for number in range(100)]
    await asyncio.gather(*(channel.subscribe() for channel in channels))
    extra, statuses = client.channel("extra"), Statuses()
    with pytest.raises(Refused) as caught:
        await extra.subscribe(statuses)
    error = caught.value
    assert (error.code, error.retryable) == ("ChannelRateLimitReached", False)
    assert "unsubscribe()" in error.hint
    assert statuses.names == ["CHANNEL_ERROR"]
    # The client does not try again, and the other channels stay joined.
    await client.send_heartbeat()
    assert (extra.state, server.joins) == ("errored", 100)
    await channels[0].unsubscribe()
    await extra.subscribe()
    assert extra.state == "joined"


async def test_two_hundred_channels_rejoin_below_the_servers_limit_of_joins(
    make_client: MakeClient,
) -> None:
    async with LocalRealtime(max_channels_per_client=None) as server:
        client = make_client(server.ws_url, params={"apikey": server.anon_key}, timeout=20.0)
        channels = [client.channel(f"room-{number}") for number in range(200)]
        await asyncio.gather(*(channel.subscribe() for channel in channels))
        server.faults.cut()
        await until(lambda: server.joins == 400, 30.0)
        await until(lambda: all(channel.state == "joined" for channel in channels))
        # The server cuts the socket of a client that sends more joins than the limit.
        assert server.connections == 2
        await client.disconnect()
