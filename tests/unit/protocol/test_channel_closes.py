"""Closes by the server, and the tokens that cause or cure them."""

from __future__ import annotations

import pytest

from supabase_rt._protocol.events import ChannelRemoved, ErrorReported, TokenWanted
from supabase_rt._protocol.reconnect_policy import ReconnectPolicy
from supabase_rt.errors import AuthError

from .support import (
    CHANNEL_ERROR,
    CLOSED,
    EPOCH,
    EXPIRED,
    MALFORMED,
    PRIVATE_ONLY,
    START,
    SUBSCRIBED,
    World,
    joins,
    jwt,
    opened,
)

# -- closed by the server ----------------------------------------------------------------


def test_an_unasked_close_is_a_loss_whose_cause_is_the_last_system_message() -> None:
    world = opened()
    channel = world.joined()
    world.close(channel, "Too many messages per second")
    assert world.statuses(channel) == [SUBSCRIBED, CHANNEL_ERROR]
    assert "Too many messages per second" in str(world.last_error(channel))
    assert channel.state == "errored"
    assert world.client_machine.channels == {channel.topic: channel}
    world.advance(29.9)
    assert joins(world) == 1
    world.advance(0.1)
    assert joins(world) == 2


def test_an_unasked_close_without_a_word_is_joined_again_by_the_policy() -> None:
    world = opened()
    channel = world.joined()
    world.close(channel)
    world.advance(0.5)
    world.accept(channel)
    assert world.statuses(channel) == [SUBSCRIBED, CHANNEL_ERROR, SUBSCRIBED]
    assert str(world.client_machine.channels[channel.topic].last_downtime) == "0.5"


def test_the_system_message_of_an_earlier_join_is_not_the_cause_of_a_later_close() -> None:
    world = opened()
    channel = world.joined()
    world.close(channel, "Query was cancelled, please try again")
    world.advance(0.5)
    world.close(channel)
    assert channel.state == "errored"
    assert str(world.last_error(channel)) == "channel closed by the server"


def test_a_close_for_the_size_of_a_track_forgets_what_was_tracked() -> None:
    world = opened()
    channel = world.joined()
    world.track(channel, {"user": "ann"})
    world.close(channel, "Track message size exceeded")
    world.advance(0.5)
    world.accept(channel)
    assert len(world.frames("presence")) == 1


@pytest.mark.conformance("PC44", "PC45", "PC47")
def test_without_rejoin_closed_a_close_is_final_as_in_supabase_js() -> None:
    world = opened(policy=ReconnectPolicy(rejoin_closed=False))
    channel = world.joined()
    pushed = world.push(channel)
    world.close(channel, "Too many messages per second")
    assert world.statuses(channel) == [SUBSCRIBED, CLOSED]
    assert "Too many messages per second" in str(world.last_error(channel))
    assert (channel.state, world.client_machine.channels) == ("closed", {})
    assert world.ended == {pushed: "error"}
    assert ChannelRemoved(channel) in world.told
    world.flap()
    world.advance(600.0)
    assert joins(world) == 1


# -- a token as the cause ----------------------------------------------------------------


def test_an_expired_token_with_a_source_is_refreshed_and_the_channel_joined_again() -> None:
    world = opened(token="old", token_source=True)
    channel = world.joined()
    world.close(channel, "Token has expired 1 seconds ago")
    assert isinstance(world.last_error(channel), AuthError)
    world.told.clear()
    world.advance(0.5)
    assert TokenWanted(blocking=True) in world.told
    world.set_token("fresh")
    world.accept(channel)
    assert world.last_join(channel).payload["access_token"] == "fresh"
    assert channel.state == "joined"


def test_an_expired_token_without_a_source_rests_until_set_auth() -> None:
    world = opened(token="old")
    channel = world.joined()
    world.close(channel, "Token has expired 1 seconds ago")
    error = world.last_error(channel)
    assert (channel.final_error,) == (error,)
    assert ErrorReported(error, channel) in world.told
    world.flap(3600.0)
    assert (channel.state, joins(world)) == ("errored", 1)
    world.set_token("fresh")
    assert world.last_join(channel).payload["access_token"] == "fresh"
    world.accept(channel)
    assert world.statuses(channel) == [SUBSCRIBED, CHANNEL_ERROR, SUBSCRIBED]


def test_permission_lost_is_final_until_the_token_changes_even_with_a_source() -> None:
    world = opened(token="old", token_source=True)
    channel = world.joined()
    world.close(channel, "You no longer have permission to read from this Channel topic: room")
    world.token_arrived()
    world.set_token("old")
    world.advance(20.0)
    assert joins(world) == 1
    world.set_token("new")
    assert joins(world) == 2


def test_a_token_set_while_the_link_is_down_wakes_a_resting_channel_with_the_link() -> None:
    world = opened(token="old")
    channel = world.joining()
    world.refuse(channel, MALFORMED)
    world.link_lost()
    world.set_token("new")
    assert channel.final_error is None
    world.link_up()
    assert world.last_join(channel).payload["access_token"] == "new"


def test_a_token_that_crossed_the_close_of_the_old_one_brings_the_channel_back() -> None:
    world = opened(token=jwt(EPOCH + START + 10.0))
    channel = world.joined()
    world.advance(9.9)
    world.set_token(jwt(EPOCH + START + 3600.0))
    world.advance(0.1)
    world.close(channel, "Token has expired 0 seconds ago")
    world.advance(0.5)
    assert channel.state == "joining"


def test_a_pushed_token_that_the_server_will_not_have_is_tried_again() -> None:
    world = opened(token="good")
    channel = world.joined()
    world.set_token("bad")
    world.close(channel, "The token provided is not a valid JWT")
    world.advance(0.5)
    assert (channel.final_error, joins(world)) == (None, 2)


def test_without_a_time_for_final_refusals_a_pushed_bad_token_rests_the_channel() -> None:
    world = opened(token="good", policy=ReconnectPolicy(jitter=0.0, final_after=0.0))
    channel = world.joined()
    world.set_token("bad")
    world.close(channel, "The token provided is not a valid JWT")
    world.advance(600.0)
    assert (channel.final_error is not None, joins(world)) == (True, 1)


# -- telling the server ------------------------------------------------------------------


@pytest.mark.conformance("CL12")
def test_a_join_carries_the_token_and_no_version_of_the_client_at_first() -> None:
    world = opened(token="token")
    channel = world.joining()
    assert world.last_join(channel).payload["access_token"] == "token"
    assert "version" not in world.last_join(channel).payload


@pytest.mark.parametrize("token", [None, ""])
def test_a_join_without_a_token_has_no_such_key(token: str | None) -> None:
    world = opened(token=token)
    assert "access_token" not in world.last_join(world.joining()).payload


@pytest.mark.conformance("AU1")
def test_a_token_set_later_goes_into_the_next_join_with_the_version() -> None:
    """As in supabase-js."""
    world = World()
    channel = world.joining()
    world.set_token("token")
    world.open()
    payload = world.last_join(channel).payload
    assert payload["access_token"] == "token"
    assert payload["version"].startswith("supabase-rt/")


@pytest.mark.conformance("AU1", "AU3")
def test_a_changed_token_is_pushed_to_joined_channels_only() -> None:
    world = opened()
    joined, joining = world.joined("realtime:a"), world.joining("realtime:b")
    world.channel("realtime:c")
    world.set_token("token")
    (push,) = world.frames("access_token")
    assert (push.topic, push.join_ref) == (joined.topic, joined.join_ref)
    assert push.payload == {"access_token": "token"}
    assert joining.state == "joining"
    assert world.client_machine.pending_replies == 1


@pytest.mark.conformance("AU2")
def test_an_unchanged_token_is_not_pushed_again() -> None:
    world = opened(token="token")
    world.joined()
    world.set_token("token")
    assert world.frames("access_token") == []


@pytest.mark.conformance("AU5")
def test_a_token_that_is_taken_away_is_told_as_null() -> None:
    world = opened(token="token")
    channel = world.joined()
    world.set_token(None)
    assert world.frames("access_token")[-1].payload == {"access_token": None}
    world.flap()
    assert "access_token" not in world.last_join(channel).payload


def test_a_token_changed_while_a_join_is_under_way_is_pushed_after_it() -> None:
    """supabase-js forgets it (docs/differences.md)."""
    world = opened(token="old")
    channel = world.joining()
    world.set_token("new")
    assert world.frames("access_token") == []
    world.push(channel)
    world.accept(channel)
    assert [message.event for message in world.written] == ["phx_join", "access_token", "custom"]
    assert world.frames("access_token")[-1].payload == {"access_token": "new"}


def test_a_token_changed_back_before_the_reply_needs_no_push() -> None:
    world = opened(token="old")
    channel = world.joining()
    world.set_token("new")
    world.set_token("old")
    world.accept(channel)
    assert world.frames("access_token") == []


def test_a_refusal_of_a_token_that_changed_meanwhile_is_not_final() -> None:
    world = opened(token="bad")
    channel = world.joining()
    world.set_token("good")
    world.refuse(channel, MALFORMED)
    assert channel.final_error is None
    world.advance(0.5)
    assert world.last_join(channel).payload["access_token"] == "good"


def test_a_new_token_does_not_wake_a_channel_that_rests_for_another_reason() -> None:
    world = opened(token="old")
    channel = world.joining()
    world.refuse(channel, PRIVATE_ONLY)
    world.set_token("new")
    assert joins(world) == 1
    assert channel.final_error is not None


# -- asking for one ----------------------------------------------------------------------


def test_a_subscription_without_a_token_waits_for_the_source() -> None:
    world = opened(token_source=True)
    channel = world.joining()
    assert joins(world) == 0
    assert TokenWanted(blocking=True) in world.told
    world.set_token("token")
    assert world.last_join(channel).payload["access_token"] == "token"


def test_a_subscription_with_an_expired_token_waits_for_the_source() -> None:
    world = opened(token=jwt(EPOCH + START + 5.0), token_source=True)
    world.joined("realtime:a")
    world.advance(5.0)
    world.joining("realtime:b")
    assert joins(world) == 1
    world.set_token(jwt(EPOCH + START + 3600.0))
    assert joins(world) == 2


def test_the_source_is_asked_once_however_many_channels_wait() -> None:
    world = opened(token_source=True)
    for count in range(50):
        world.joining(f"realtime:{count}")
    assert world.take_told(TokenWanted) == [TokenWanted(blocking=True)]
    world.token_arrived()
    assert joins(world) == 50


def test_a_source_whose_tokens_are_all_refused_rests_after_three() -> None:
    world = opened(token="0", token_source=True)
    channel = world.joining()
    for count in range(1, 4):
        world.refuse(channel, EXPIRED)
        world.advance(5.0)
        world.token_arrived()
        assert joins(world) == min(count + 1, 3)
    assert channel.final_error is not None
    world.set_token("another")
    assert joins(world) == 4
