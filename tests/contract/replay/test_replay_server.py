"""Recordings in which the server decides: phoenix_protocol, server_initiated, server_restart,
limits, rate_limit.
"""

from __future__ import annotations

from typing import Any

import pytest

from supabase_rt import ConnectionFailed, RealtimeChannel, RealtimeClient, Refused, SubscribeError

from ...support.recorder import ClientEvents, Recorder, Statuses
from ...support.waiting import until
from .player import AT_ONCE, play
from .recordings import Step, load

MESSAGES = {"event": "*", "schema": "public", "table": "messages"}


# -- the protocol, by hand ---------------------------------------------------------------


def write_recorded(client: RealtimeClient, conn: str, *numbers: int) -> None:
    """Write recorded frames of a socket with their recorded refs, without the knowledge of its
    channels.
    """
    sends = load("phoenix_protocol").of("send", conn)
    frames = {}
    for step in sends:
        text = step.about["text"]
        found = step.json if text.startswith(('["', "[null", '{"')) else None
        if isinstance(found, list):
            join_ref, ref, topic, event, payload = found
            found = {"topic": topic, "event": event, "payload": payload, "ref": ref}
            found["join_ref"] = join_ref
        if found:
            frames[int(found["ref"])] = found
    for number in numbers:
        # A prefix separates these refs from those that the client gives by itself.
        frame = frames[number]
        client.push({**frame, "ref": f"r{number}", "join_ref": f"r{frame.get('join_ref')}"})


@pytest.mark.parametrize(("conn", "other"), [("A1", "A2"), ("A2", "A1")], ids=["vsn 1", "vsn 2"])
async def test_protocol_corners_leave_the_client_in_good_health(conn: str, other: str) -> None:
    """Frames that the API cannot send are written with ``client.push``, and their answers match no
    request.
    """

    def of_the_other(step: Step) -> bool:
        return step.conn == other

    async with play("phoenix_protocol", skip=of_the_other) as player:
        client = player.client(conn)
        events = ClientEvents(client)
        await client.connect()
        await beat(client, events, 1)
        write_recorded(client, conn, 2, 3, 4, 5)
        first, second = Statuses(), Statuses()
        await client.channel("dup").subscribe(first)
        # The server has one channel for a topic: a second join closes the first.
        again = RealtimeChannel("realtime:dup", client=client)
        await again.subscribe(second)
        await first.are("SUBSCRIBED", "CLOSED")
        write_recorded(client, conn, 8, 9, 10, 11, 12, 13)
        await client.channel("crash").subscribe()
        write_recorded(client, conn, 15, 16)
        await beat(client, events, 2)
        await beat(client, events, 3)
        await player.end()

        assert second.names == ["SUBSCRIBED"]
        assert client.get_channels()[0] is again
        assert player.extra() == {conn: [("realtime:dup", "phx_leave")]}
        health = client.health()
        answered = (2, 3, 4, 5, 10, 11, 13)
        assert (health.stale_frames, health.unknown_frames) == (len(answered), 1)
        assert (health.decode_errors, health.pending_replies) == (0, 0)
        assert events.errors == []


async def beat(client: RealtimeClient, events: ClientEvents, number: int) -> None:
    client.send_heartbeat()
    await events.some("heartbeat", 2 * number)
    assert [args[0] for args in events.of("heartbeat")] == ["sent", "ok"] * number


# -- channels and sockets that the server ends -------------------------------------------


async def test_crashed_channels_rejoin_and_closed_sockets_reconnect() -> None:
    async with play("server_initiated") as player:
        statuses = {"A": Statuses(), "B": Statuses()}
        events, channels, system = {}, {}, Recorder()
        for conn in "AB":
            client = player.client(conn, reconnect=AT_ONCE)
            events[conn] = ClientEvents(client)
            channels[conn] = client.channel("srv").on("system", {}, system)
            await channels[conn].subscribe(statuses[conn])
        await statuses["A"].are("SUBSCRIBED", "CHANNEL_ERROR")
        # A sender that has not noticed the loss would send this; send() itself would use HTTP by
        # now.
        player.clients["A"].push(
            {
                "topic": "realtime:srv",
                "event": "broadcast",
                "payload": {"type": "broadcast", "event": "x", "payload": {}},
                "ref": "late",
                "join_ref": "1",
            }
        )
        await player.end()
        for conn in "AB":
            await statuses[conn].are(*["SUBSCRIBED", "CHANNEL_ERROR"] * 3)
            errors = [str(error) for error in statuses[conn].errors if error is not None]
            assert errors == [
                "channel error: channel_crash",
                "socket closed: 1001",
                "socket closed: 1012",
            ]
            assert events[conn].of("close") == [(1001, ""), (1012, "")]
            assert len(events[conn].of("resumed")) == 2
            # After 1001 the client tries again at once; after 1012 it waits.
            first, second = events[conn].of("reconnecting")[:2]
            assert first[:2] == (0, 0.0)
            assert second[0] >= 1
            assert player.clients[conn].health().reconnects >= 1
            assert channels[conn].last_downtime is not None
        assert [message.message for message in system.seen] == ["Server requested disconnect"] * 2
        assert [message.channel for message in system.seen] == [None, None]
        assert player.extra() == {}


async def test_a_restart_is_survived_with_one_loss_told_and_changes_flowing_again() -> None:
    async with play("server_restart", hold="the server is started again") as player:
        a, b = (player.client(conn, reconnect=AT_ONCE) for conn in "AB")
        events, rows = ClientEvents(a), Recorder()
        lost_a, lost_b = Statuses(), Statuses()
        channel = a.channel("rs").on("postgres_changes", MESSAGES, rows)
        await channel.subscribe(lost_a)
        people = b.channel("rs").on("presence", {"event": "sync"}, Recorder())
        await people.subscribe(lost_b)
        # The port is closed now: every attempt fails, and only the log shows it.
        await events.some("reconnecting", 3)
        assert lost_a.names == lost_b.names == ["SUBSCRIBED", "CHANNEL_ERROR"]
        # After 1012 there is no attempt at once.
        assert events.of("reconnecting")[0][0] == 1
        causes = [args[2] for args in events.of("reconnecting")]
        assert causes[0].close_code == 1012
        assert all(isinstance(cause, ConnectionFailed) for cause in causes[1:])

        player.release()
        await rows.count(1)
        await player.end()
        assert lost_a.names == ["SUBSCRIBED", "CHANNEL_ERROR", "SUBSCRIBED"]
        assert rows.seen[0].new["room"] == "after restart"
        joins = [frame for conn in ("A", "A2") for frame in player.frames(conn)]
        assert [frame.payload for frame in joins] == [joins[0].payload] * 2
        assert player.extra() == {}


# -- limits ------------------------------------------------------------------------------


async def test_channel_101_is_refused_for_good_and_the_others_stay() -> None:
    async with play("limits") as player:
        client = player.client("A")
        statuses = [Statuses() for _ in range(101)]
        channels = [
            client.channel(f"lim{number}").subscribe(statuses[number]) for number in range(101)
        ]
        with pytest.raises(Refused) as caught:
            await channels[100]
        await player.end()
        assert caught.value.code == "ChannelRateLimitReached"
        assert str(caught.value) == "ChannelRateLimitReached: Too many channels"
        assert not caught.value.retryable
        assert [found.names for found in statuses[:100]] == [["SUBSCRIBED"]] * 100
        assert statuses[100].names == ["CHANNEL_ERROR"]
        assert client.health().channels == {"joined": 100, "errored": 1}
        assert player.extra() == {}


async def test_a_flood_costs_the_channel_and_it_keeps_away_for_a_while() -> None:
    async with play("rate_limit") as player:
        client = player.client("A", reconnect=AT_ONCE)
        events, statuses = ClientEvents(client), Statuses()
        channel = client.channel("flood", {"config": {"broadcast": {"self": True, "ack": False}}})
        await channel.subscribe(statuses)
        sends: list[Any] = [
            channel.send({"type": "broadcast", "event": "f", "payload": {"i": number}})
            for number in range(20)
        ]
        assert [await send for send in sends] == ["ok"] * 20
        await player.end()
        await events.some("reconnected")

        assert statuses.names == ["SUBSCRIBED", "CHANNEL_ERROR"]
        error = statuses.errors[1]
        assert isinstance(error, SubscribeError)
        assert "Too many messages per second" in str(error)
        assert error.retryable
        assert client.health().last_system_error == "Too many messages per second"
        # Answers to the frames of the flood that the recording leaves out.
        answers = len(player.recording.payloads("A", "phx_reply")) - 1
        assert client.health().stale_frames == answers
        await until(lambda: client.is_connected())
        assert channel.state == "errored"
        assert player.frames("A+") == []
        assert player.extra() == {}
