"""presence.jsonl: state, differences, and what the server refuses."""

from __future__ import annotations

from typing import Any

from supabase_rt import PresenceJoin, PresenceLeave, PresenceSync, RealtimeChannel, SubscribeError
from supabase_rt.types import ChannelOptions

from ...support.recorder import Recorder, Statuses
from ...support.waiting import until
from .player import Player, play
from .recordings import Step


def not_of(*conns: str) -> Any:
    def skip(step: Step) -> bool:
        return step.conn in conns

    return skip


class People:
    """Listens to all presence events, and records the state inside each handler."""

    def __init__(self, channel: RealtimeChannel) -> None:
        self.channel = channel
        self.events: list[Any] = []
        self.states: list[dict[str, Any]] = []
        channel.on("presence", {"event": "*"}, self.take)

    def take(self, event: Any) -> None:
        self.events.append(event)
        self.states.append(self.channel.presence_state())

    def summary(self) -> list[tuple[Any, ...]]:
        """Returns the presence events without the refs."""
        found: list[tuple[Any, ...]] = []
        for event in self.events:
            if isinstance(event, PresenceSync):
                found.append(("sync",))
            elif isinstance(event, PresenceJoin):
                found.append(("join", event.key, said(event.new_presences)))
            else:
                assert isinstance(event, PresenceLeave)
                found.append(("leave", event.key, said(event.left_presences)))
        return found


def said(presences: list[dict[str, Any]]) -> list[Any]:
    return [presence["status"] for presence in presences]


async def test_two_members_see_each_other_come_change_and_go() -> None:
    async with play("presence", skip=not_of("C")) as player:
        people = {}
        channels = {}
        clients = {}
        for conn, key in (("A", "alice"), ("B", "bob")):
            clients[conn] = player.client(conn)
            options: ChannelOptions = {"config": {"presence": {"key": key}}}
            channels[conn] = clients[conn].channel("pres", options)
            people[conn] = People(channels[conn])
            await channels[conn].subscribe()
            if conn == "A":
                assert await channels[conn].track({"status": "online"}) == "ok"
        await until(lambda: people["B"].events)
        assert said(channels["B"].presence_state()["alice"]) == ["online"]
        assert await channels["B"].track({"status": "busy"}) == "ok"
        assert await channels["B"].track({"status": "away"}) == "ok"
        assert await channels["A"].untrack() == "ok"
        await until(lambda: len(people["B"].events) == 9)
        await clients["B"].disconnect()
        await player.end()

        joined, left = ("join", "bob", ["busy"]), ("leave", "bob", ["busy"])
        bob = [joined, ("sync",), ("join", "bob", ["away"]), left, ("sync",)]
        alice_left = [("leave", "alice", ["online"]), ("sync",)]
        alice_joined = ("join", "alice", ["online"])
        assert people["A"].summary() == [
            ("sync",),
            alice_joined,
            ("sync",),
            *bob,
            *alice_left,
            ("leave", "bob", ["away"]),
            ("sync",),
        ]
        assert people["B"].summary() == [alice_joined, ("sync",), *bob, *alice_left]
        assert channels["A"].presence_state() == {}
        assert player.extra() == {}
        check_fields(player, people["B"])


def check_fields(player: Player, people: People) -> None:
    """Compares keys, refs and presences in the events of B with the frames that B received."""
    (state,) = player.recording.payloads("B", "presence_state")
    came, changed, _ = player.recording.payloads("B", "presence_diff")
    alice, bob, away = (
        source[key]["metas"][0]
        for source, key in ((state, "alice"), (came["joins"], "bob"), (changed["joins"], "bob"))
    )
    shown = {"presence_ref": bob["phx_ref"], "status": "busy"}
    shown_away = {"presence_ref": away["phx_ref"], "status": "away"}
    first, _, join, _, update, leave, sync = people.events[:7]
    assert first == {
        "event": "join",
        "key": "alice",
        "currentPresences": [],
        "newPresences": [{"presence_ref": alice["phx_ref"], "status": "online"}],
    }
    assert join.new_presences == [shown]
    assert (update.current_presences, update.new_presences) == ([shown], [shown_away])
    assert (leave.current_presences, leave.left_presences) == ([shown_away], [shown])
    assert sync == {"event": "sync"}
    assert people.states[6]["bob"] == [shown_away]


async def test_refused_calls_end_as_error_and_too_many_close_the_channel() -> None:
    async with play("presence", skip=not_of("A", "B")) as player:
        # The limit is switched off, because the client itself would never send the sixth call.
        client = player.client("C", presence_limit=None)
        channel = client.channel("pres2", {"config": {"presence": {"key": ""}}})
        statuses, system = Statuses(), Recorder()
        channel.on("system", {}, system)
        await channel.subscribe(statuses)
        assert channel.presence_state() == {}
        assert await channel.track({"x": 1}) == "ok"
        wrong = {"type": "presence", "event": "track", "payload": "notamap"}
        assert await channel.send(wrong) == "error"
        assert await channel.send({"type": "presence", "event": "bogus"}) == "error"
        calls = [channel.track({"x": x}) for x in range(2, 9)]
        results = [await call for call in calls]
        await player.end()

        assert results == ["ok"] * 4 + ["error"] * 3
        assert statuses.names == ["SUBSCRIBED", "CHANNEL_ERROR"]
        error = statuses.errors[1]
        assert isinstance(error, SubscribeError)
        assert "Client presence rate limit exceeded" in str(error)
        assert error.retryable
        assert system.seen == player.recording.payloads("C", "system")
        assert client.health().last_system_error == "Client presence rate limit exceeded"
        # The last difference comes after the phx_close.
        assert client.health().stale_frames == 1
        assert client.health().pending_replies == 0
        assert player.extra() == {}


async def test_the_client_keeps_below_the_limit_by_itself() -> None:
    def later_calls(step: Step) -> bool:
        """All frames of the server after the fifth call, in both directions."""
        return step.conn != "C" or step.number >= 44

    async with play("presence", skip=later_calls) as player:
        client = player.client("C", presence_limit=(1, 3600.0))
        channel = client.channel("pres2")
        await channel.subscribe()
        first = channel.track({"x": 1})
        waiting = [channel.track({"x": x}) for x in range(2, 9)]
        assert await first == "ok"
        await player.end()
        assert not any(call.done() for call in waiting)
        assert player.extra() == {}
        channel.teardown()
        assert [await call for call in waiting] == ["error"] * 7
