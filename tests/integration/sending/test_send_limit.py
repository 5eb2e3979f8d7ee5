"""``send_limit``: broadcasts beyond it wait in a queue, in the order of the calls."""

from __future__ import annotations

import asyncio
import logging

import pytest

from supabase_rt import RealtimeClient
from supabase_rt._protocol.token_bucket import TokenBucket
from supabase_rt.server import LocalRealtime

from ...robustness.faults.virtual import VirtualLoop, run_virtual
from ...support.clients import MakeClient
from ...support.waiting import until


def message(number: int) -> dict[str, object]:
    return {"type": "broadcast", "event": "x", "payload": {"n": number}}


def numbers(server: LocalRealtime) -> list[int]:
    return [
        found.payload["payload"]["n"] for found in server.received if found.event == "broadcast"
    ]


def test_what_is_reserved_has_the_pace_of_the_bucket() -> None:
    bucket = TokenBucket(rate=10.0, burst=2.0)
    assert [bucket.reserve(5.0) for _ in range(4)] == pytest.approx([5.0, 5.0, 5.1, 5.2])
    assert bucket.owed(5.0) == pytest.approx(2.0)
    assert bucket.owed(5.1) == pytest.approx(1.0)
    assert bucket.reserve(5.25) == pytest.approx(5.3)
    assert bucket.owed(50.0) == 0.0


async def test_broadcasts_beyond_the_limit_follow_later_and_in_order(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    client = make_client(send_limit=(2, 0.1))
    channel = await client.channel("room").subscribe()
    sent = [channel.send(message(number)) for number in range(6)]
    await until(lambda: len(numbers(server)) >= 2)
    assert [outcome.done() for outcome in sent[4:]] == [False, False]
    assert await asyncio.gather(*sent) == ["ok"] * 6
    await until(lambda: len(numbers(server)) == 6)
    assert numbers(server) == list(range(6))


def test_a_loop_that_lags_does_not_let_a_later_call_overtake() -> None:
    async def play() -> list[int]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        async with LocalRealtime() as server:
            params = {"apikey": server.anon_key}
            async with RealtimeClient(server.ws_url, params=params, send_limit=(2, 1.0)) as client:
                channel = await client.channel("room").subscribe()
                sent = [channel.send(message(number)) for number in range(4)]
                # Both queued sends are due by now, and the limit would allow six at once.
                loop.lag(3.0)
                sent += [channel.send(message(number)) for number in range(4, 7)]
                assert await asyncio.gather(*sent) == ["ok"] * 7
                await until(lambda: len(numbers(server)) == 7)
            return numbers(server)

    assert run_virtual(play()) == list(range(7))


async def test_what_waited_for_its_turn_at_the_close_is_not_sent_later(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    client = make_client(send_limit=(1, 0.05))
    channel = await client.channel("room").subscribe()
    sent = [channel.send(message(number)) for number in range(3)]
    client.disconnect()
    assert await asyncio.gather(*sent[1:]) == ["error", "error"]
    await client.connect()
    await channel.subscribe()
    assert await channel.send(message(3)) == "ok"
    assert await channel.send(message(4)) == "ok"
    await until(lambda: 4 in numbers(server))
    assert numbers(server)[-2:] == [3, 4]
    assert not {1, 2} & set(numbers(server))


async def test_an_acknowledged_broadcast_waits_for_its_turn_too(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    client = make_client(send_limit=(1, 0.05))
    channel = client.channel("room", {"config": {"broadcast": {"ack": True}}})
    await channel.subscribe()
    sent = [channel.send(message(number)) for number in range(3)]
    assert await asyncio.gather(*sent) == ["ok"] * 3
    assert numbers(server) == [0, 1, 2]


async def test_too_many_that_wait_are_refused_counted_and_logged_once(
    make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    client = make_client(send_limit=(1, 1000.0), max_outbound=2)
    channel = await client.channel("room").subscribe()
    with caplog.at_level(logging.ERROR, "supabase_rt.channel"):
        sent = [channel.send(message(number)) for number in range(5)]
    assert [outcome.done() for outcome in sent] == [True, False, False, True, True]
    assert await sent[3] == "error"
    assert client.health().refused_sends == 2
    assert len([one for one in caplog.records if "send_limit" in one.message]) == 1
    # The client does not wait for queued sends when it closes.
    await client.disconnect()
    assert await asyncio.gather(*sent[1:3]) == ["error", "error"]


async def test_what_waits_while_the_channel_is_lost_goes_by_http(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    client = make_client(send_limit=(1, 0.2))
    channel = await client.channel("room").subscribe()
    first, second = channel.send(message(0)), channel.send(message(1))
    assert await first == "ok"
    server.faults.refuse(503)
    server.faults.cut()
    await until(lambda: channel.state == "errored")
    assert await second == "ok"
    server.faults.refuse(None)
