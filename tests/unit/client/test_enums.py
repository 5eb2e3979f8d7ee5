"""Statuses and states compare, print and hash as the words of supabase-js."""

from __future__ import annotations

import enum

import pytest

import supabase_rt
from supabase_rt import (
    REALTIME_CHANNEL_STATES,
    REALTIME_LISTEN_TYPES,
    REALTIME_POSTGRES_CHANGES_LISTEN_EVENT,
    REALTIME_PRESENCE_LISTEN_EVENTS,
    REALTIME_SUBSCRIBE_STATES,
    ChannelState,
    ConnectionState,
    HeartbeatStatus,
    ListenType,
    SubscribeStatus,
)

WORDS = {
    ListenType: ["broadcast", "presence", "postgres_changes", "system"],
    SubscribeStatus: ["SUBSCRIBED", "TIMED_OUT", "CLOSED", "CHANNEL_ERROR"],
    ChannelState: ["closed", "errored", "joined", "joining", "leaving"],
    ConnectionState: ["connecting", "open", "closing", "closed"],
    HeartbeatStatus: ["sent", "ok", "error", "timeout", "disconnected"],
    REALTIME_PRESENCE_LISTEN_EVENTS: ["sync", "join", "leave"],
    REALTIME_POSTGRES_CHANGES_LISTEN_EVENT: ["*", "INSERT", "UPDATE", "DELETE"],
}


@pytest.mark.parametrize("kind", list(WORDS))
def test_the_words(kind: type[enum.StrEnum]) -> None:
    assert issubclass(kind, enum.StrEnum)
    assert [member.value for member in kind] == WORDS[kind]
    for member in kind:
        assert member == member.value
        assert f"{member}" == str(member) == member.value
        assert {member.value: 1}[member] == 1


@pytest.mark.conformance("IX2")
def test_the_names_of_supabase_js() -> None:
    assert REALTIME_LISTEN_TYPES is ListenType
    assert REALTIME_SUBSCRIBE_STATES is SubscribeStatus
    assert REALTIME_CHANNEL_STATES is ChannelState
    assert [state.name for state in ChannelState] == [name.upper() for name in WORDS[ChannelState]]
    for word in WORDS[ChannelState]:
        assert getattr(REALTIME_CHANNEL_STATES, word) is ChannelState(word)


@pytest.mark.parametrize("name", supabase_rt.__all__)
def test_all_is_there(name: str) -> None:
    assert hasattr(supabase_rt, name)
