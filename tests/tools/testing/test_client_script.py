"""Tests that play the server by hand with ``expect`` and ``emit``, and move the clock."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from supabase_rt import ReconnectPolicy, create_client
from supabase_rt.server import LocalRealtime
from supabase_rt.testing import FakeClock, ThreadedRealtime

from ...support.recorder import ClientEvents, Recorder, Statuses
from ...support.waiting import until


async def test_a_join_is_expected_and_answered_with_an_event(server: LocalRealtime) -> None:
    got = Recorder()
    supabase = create_client(server.url, server.anon_key)
    supabase.channel("room").on("broadcast", {"event": "*"}, got).subscribe()
    join = await server.expect_join("room")
    assert join.payload["access_token"] == server.anon_key
    message = {"type": "broadcast", "event": "hello", "payload": {"n": 1}}
    assert server.emit("room", "broadcast", message) == 1
    await got.count(1)
    assert got.seen[0].payload == {"n": 1}
    assert server.emit("elsewhere", "broadcast", message) == 0
    await supabase.realtime.disconnect()


async def test_what_a_bot_says_is_expected_by_what_it_says(server: LocalRealtime) -> None:
    supabase = create_client(server.url, server.anon_key)
    room = await supabase.channel("room").subscribe()
    for number in range(3):
        await room.send({"type": "broadcast", "event": "n", "payload": {"n": number}})
    second = await server.expect("room", "broadcast", lambda said: said["payload"]["n"] == 1)
    assert second.payload["payload"] == {"n": 1}
    first = await server.expect("realtime:room", "broadcast")
    third = await server.expect("room", "broadcast")
    assert [first.payload["payload"]["n"], third.payload["payload"]["n"]] == [0, 2]
    await supabase.realtime.disconnect()


async def test_what_did_not_come_is_told_with_what_came(server: LocalRealtime) -> None:
    supabase = create_client(server.url, server.anon_key)
    await supabase.channel("room").subscribe()
    with pytest.raises(TimeoutError, match=r"no phx_leave on 'room' .* phx_join on realtime:room"):
        await server.expect("room", "phx_leave", timeout=0.02)
    server.faults.refuse_next_join("Unauthorized: no")
    supabase.channel("secret").subscribe()
    with pytest.raises(TimeoutError, match="was not let in"):
        await server.expect_join("secret", timeout=0.1)
    await supabase.realtime.disconnect()


async def test_one_who_gives_up_does_not_end_it_for_the_others(server: LocalRealtime) -> None:
    supabase = create_client(server.url, server.anon_key)
    expecting = [asyncio.create_task(server.expect("room", "phx_join")) for _ in range(2)]
    await asyncio.sleep(0)
    expecting[0].cancel()
    await supabase.channel("room").subscribe()
    assert (await expecting[1]).event == "phx_join"
    await supabase.realtime.disconnect()
    assert expecting[0].cancelled()


def test_a_server_in_a_thread_has_the_same_calls() -> None:
    async def bot(url: str, key: str) -> Any:
        supabase = create_client(url, key)
        room = supabase.channel("room")
        waiting = room.wait_for("broadcast", {"event": "*"}, timeout=5)
        room.subscribe()
        message = await waiting
        await room.send({"type": "broadcast", "event": "answer", "payload": message.payload})
        await supabase.realtime.remove_all_channels()

    with ThreadedRealtime() as server:
        running = threading.Thread(target=asyncio.run, args=(bot(server.url, server.anon_key),))
        running.start()
        server.expect_join("room")
        message = {"type": "broadcast", "event": "question", "payload": {"n": 7}}
        assert server.emit("room", "broadcast", message) == 1
        answer = server.expect("room", "broadcast")
        running.join()
    assert answer.payload["payload"] == {"n": 7}


async def test_expecting_in_the_loop_of_the_client_says_what_is_wrong() -> None:
    with ThreadedRealtime() as server:
        with pytest.raises(TimeoutError, match=r"came: nothing; it kept .* asyncio[.]to_thread"):
            server.expect("room", "broadcast", timeout=0.01)
        with pytest.raises(TimeoutError, match=r"came: nothing$"):
            await asyncio.to_thread(server.expect, "room", "broadcast", timeout=0.01)


# -- the clock -----------------------------------------------------------------------------


async def test_a_minute_of_silence_passes_in_a_moment() -> None:
    """A dead link is found by its heartbeat and replaced, without real waiting."""
    async with FakeClock() as clock, LocalRealtime() as server:
        policy = ReconnectPolicy(initial_backoff=20.0, jitter=0, outage_share=None)
        supabase = create_client(
            server.url,
            server.anon_key,
            realtime={"reconnect": policy, "heartbeat_timeout": 25.0},
        )
        told, statuses = ClientEvents(supabase.realtime), Statuses()
        await supabase.channel("room").subscribe(statuses)
        began = time.perf_counter()
        server.faults.stall()
        await clock.advance(51)  # 25 s to the heartbeat, 25 s without its answer
        assert statuses.names == ["SUBSCRIBED", "CHANNEL_ERROR"]
        server.faults.resume()
        await clock.advance(30)
        await until(lambda: statuses.names[-1] == "SUBSCRIBED")
        assert clock.skipped == 81
        assert time.perf_counter() - began < 60
        assert "reconnected" in [name for name, *_ in told.seen]
        await supabase.realtime.disconnect()


async def test_timers_ring_in_their_order_and_none_before_its_time() -> None:
    rung: list[int] = []
    async with FakeClock() as clock:
        loop = asyncio.get_running_loop()
        for seconds in (30, 10, 20):
            loop.call_later(seconds, rung.append, seconds)
        await clock.advance(9)
        assert rung == []
        await clock.advance(15)
        assert rung == [10, 20]
        await clock.advance(10)
    assert rung == [10, 20, 30]
