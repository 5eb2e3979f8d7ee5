"""A day of a client, by the clock that the machines are given."""

from __future__ import annotations

from supabase_rt._protocol.reconnect_policy import ReconnectPolicy

from .support import World, lost, refused_connect

DAY = 24 * 3600.0
INTERVAL = 25.0


def answer(world: World) -> int:
    """Returns the server's answers to the frames written since the last time."""
    written, world.written = world.written, []
    beats = 0
    for message in written:
        if message.event == "heartbeat":
            beats += 1
            world.reply(message)
        elif message.event == "phx_join":
            entries = message.payload["config"]["postgres_changes"]
            found = [{**entry, "id": 100 + at} for at, entry in enumerate(entries)]
            world.reply(message, "ok", {"postgres_changes": found})
    return beats


def test_a_day_with_a_loss_every_hour_leaves_nothing_behind() -> None:
    world = World(heartbeat_interval=INTERVAL)
    world.open()
    channels = [world.joining(f"realtime:{name}") for name in "abc"]
    answer(world)
    beats, sizes, end = 0, set(), world.now + DAY
    while world.now < end:
        hour = world.now + 3600.0
        while world.now < hour:
            world.advance(INTERVAL)
            beats += answer(world)
        world.close(channels[0])
        world.crash(channels[1])
        world.advance(5.0)
        answer(world)
        world.flap(10.0, lost(1006))
        answer(world)
        assert {channel.state for channel in channels} == {"joined"}
        sizes.add((world.client_machine.pending_replies, len(world.context.outbox.deadlines)))
        world.told.clear()
    assert len(sizes) == 1
    assert beats > 0.9 * DAY / INTERVAL


def test_a_day_without_a_server_is_tried_through_at_the_longest_pause() -> None:
    policy = ReconnectPolicy(jitter=0.0)
    world = World(policy=policy)
    world.open()
    channel = world.joining()
    answer(world)
    world.advance(10.0)
    world.link_lost()
    attempts, end = 0, world.now + DAY
    while world.now < end:
        world.advance(policy.max_backoff)
        world.link_lost(refused_connect(503))
        attempts += 1
    assert DAY / policy.max_backoff - 1 <= attempts
    world.advance(policy.max_backoff)
    world.link_up()
    answer(world)
    assert world.statuses(channel) == ["SUBSCRIBED", "CHANNEL_ERROR", "SUBSCRIBED"]
    assert channel.last_downtime is not None
    assert channel.last_downtime > DAY
