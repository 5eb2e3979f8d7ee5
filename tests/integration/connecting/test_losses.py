"""Every way to lose a link; the channel rejoins after each."""

from __future__ import annotations

import logging

import pytest

from supabase_rt import ConnectionFailed, ConnectionLost, ReconnectPolicy
from supabase_rt.server import LocalRealtime

from ...support.clients import MakeClient
from ...support.recorder import ClientEvents, Recorder, Statuses
from ...support.waiting import our_tasks, until


@pytest.mark.conformance("RS5", "NE4")
@pytest.mark.parametrize("code", [1000, 1001, 1011, 1012])
async def test_whatever_the_close_code_the_channel_comes_back(
    server: LocalRealtime, make_client: MakeClient, code: int
) -> None:
    client = make_client()
    events, statuses, got = ClientEvents(client), Statuses(), Recorder()
    channel = client.channel("room").on("broadcast", {"event": "*"}, got)
    await channel.subscribe(statuses)
    server.faults.close(code, "bye")
    await statuses.are("SUBSCRIBED", "CHANNEL_ERROR", "SUBSCRIBED")
    assert str(statuses.errors[1]) == f"socket closed: {code} (bye)"
    assert events.of("close") == [(code, "bye")]
    assert len(events.of("reconnected")) == len(events.of("resumed")) == 1
    server.broadcast("room", "x", {"n": 1})
    await got.count(1)
    assert client.health().reconnects == 1


async def test_a_final_close_code_ends_the_client(
    server: LocalRealtime, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    client = make_client(reconnect=ReconnectPolicy(final_after=0.0))
    events, statuses = ClientEvents(client), Statuses()
    await client.channel("room").subscribe(statuses)
    server.faults.close(1008)
    await statuses.are("SUBSCRIBED", "CHANNEL_ERROR", "CLOSED")
    assert len(await events.some("gave_up")) == 1
    assert "gave up" in caplog.text
    await until(lambda: our_tasks() == [])


async def test_a_reset_connection_comes_back(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    client = make_client()
    statuses = Statuses()
    await client.channel("room").subscribe(statuses)
    server.faults.cut()
    await statuses.are("SUBSCRIBED", "CHANNEL_ERROR", "SUBSCRIBED")
    assert isinstance(statuses.errors[1], ConnectionLost)
    assert statuses.errors[1].close_code == 1006


@pytest.mark.conformance("RT4")
async def test_half_open_silence_is_found_by_the_heartbeat(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    beats: list[tuple[str, float | None]] = []
    client = make_client(
        heartbeat_interval=0.3,
        heartbeat_callback=lambda status, latency: beats.append((str(status), latency)),
    )
    statuses = Statuses()
    await client.channel("room").subscribe(statuses)
    await until(lambda: "ok" in [name for name, _ in beats])
    server.faults.stall()
    await statuses.are("SUBSCRIBED", "CHANNEL_ERROR", "SUBSCRIBED")
    assert str(statuses.errors[1]) == "heartbeat timeout"
    assert "timeout" in [name for name, _ in beats]
    assert beats[0] == ("sent", None)
    assert isinstance(beats[1][1], float)
    server.faults.resume()


async def test_heartbeats_without_answer_end_the_link(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    client = make_client(heartbeat_interval=5.0, heartbeat_timeout=0.05)
    statuses = Statuses()
    await client.channel("room").subscribe(statuses)
    server.faults.heartbeat_replies = False
    await client.send_heartbeat()
    await statuses.are("SUBSCRIBED", "CHANNEL_ERROR", "SUBSCRIBED")


async def test_a_server_that_is_gone_for_a_while(
    server: LocalRealtime, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "supabase_rt")
    client = make_client()
    events, statuses = ClientEvents(client), Statuses()
    await client.channel("room").subscribe(statuses)
    await server.stop()
    await until(lambda: len(events.of("reconnecting")) >= 3)
    await server.start()
    await statuses.are("SUBSCRIBED", "CHANNEL_ERROR", "SUBSCRIBED")
    refused = [error for error in events.errors if isinstance(error, ConnectionFailed)]
    assert refused
    assert all(isinstance(error.__cause__, OSError) for error in refused)
    attempts = [attempt for attempt, _, _ in events.of("reconnecting")]
    assert attempts == list(range(attempts[0], attempts[0] + len(attempts)))
    downtime = events.of("reconnected")[0][0]
    assert downtime > 0
    assert client.channel("room").last_downtime is not None


async def test_a_server_that_refuses_for_a_while(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    client = make_client(
        reconnect=ReconnectPolicy(initial_backoff=0.01, jitter=0.0, outage_share=None)
    )
    events, statuses = ClientEvents(client), Statuses()
    await client.channel("room").subscribe(statuses)
    server.faults.refuse(503)
    server.faults.cut()
    await until(lambda: len(events.of("reconnecting")) >= 3)
    server.faults.refuse(None)
    await statuses.are("SUBSCRIBED", "CHANNEL_ERROR", "SUBSCRIBED")
    delays = [delay for _, delay, _ in events.of("reconnecting")]
    assert delays[:3] == [0.0, 0.01, 0.02]
