"""``create_client`` and the client of a whole project."""

from __future__ import annotations

import asyncio

import pytest

from supabase_rt import RealtimeClient, SupabaseClient, create_client
from supabase_rt.server import LocalRealtime
from supabase_rt.types import RealtimeOptions

from ...support.recorder import Recorder

QUICK: RealtimeOptions = {"timeout": 2.0}


def test_creating_needs_no_loop_and_does_nothing() -> None:
    supabase = create_client("https://x.supabase.co", "sb_publishable_key")
    assert isinstance(supabase, SupabaseClient)
    assert isinstance(supabase.realtime, RealtimeClient)
    assert supabase.realtime.connection_state() == "closed"
    assert supabase.get_channels() == []


@pytest.mark.conformance("CF1", "CF3", "SJ1", "SJ2")
@pytest.mark.parametrize(
    ("url", "socket"),
    [
        ("https://x.supabase.co", "wss://x.supabase.co/realtime/v1/websocket"),
        ("https://x.supabase.co/", "wss://x.supabase.co/realtime/v1/websocket"),
        ("http://localhost:54321", "ws://localhost:54321/realtime/v1/websocket"),
        ("https://x.co/base/path/", "wss://x.co/base/path/realtime/v1/websocket"),
    ],
)
def test_where_realtime_is(url: str, socket: str) -> None:
    supabase = create_client(url, "key")
    assert supabase.realtime.endpoint_url() == f"{socket}?apikey=key&vsn=2.0.0"


@pytest.mark.conformance("SJ6", "SJ10")
def test_the_key_is_the_token_unless_there_is_a_callback() -> None:
    assert create_client("https://x.co", "the-key").realtime.access_token_value == "the-key"
    with_callback = create_client("https://x.co", "the-key", access_token=lambda: "t")
    assert with_callback.realtime.access_token_value is None
    in_options = create_client("https://x.co", "k", realtime={"access_token": lambda: "t"})
    assert in_options.realtime.access_token_value is None


def test_realtime_options_are_passed_on() -> None:
    supabase = create_client(
        "https://x.co", "key", realtime={"timeout": 3, "params": {"eventsPerSecond": 10}}
    )
    assert supabase.realtime.timeout == 3.0
    assert "apikey=key&eventsPerSecond=10" in supabase.realtime.endpoint_url()


def test_names_of_supabase_js_are_explained() -> None:
    supabase = create_client("https://x.co", "key")
    with pytest.raises(AttributeError, match="in Python it is 'remove_channel'"):
        supabase.removeChannel  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="in Python it is 'get_channels'"):
        supabase.getChannels  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="no attribute 'tables'"):
        supabase.tables  # type: ignore[attr-defined]


def test_the_repr_has_no_key_and_no_password() -> None:
    supabase = create_client("https://me:letmein@x.supabase.co", "sb_secret_abcdef")
    assert repr(supabase) == "<SupabaseClient https://***@x.supabase.co>"


@pytest.mark.conformance("SJ3", "SJ4")
async def test_the_channel_methods_are_those_of_realtime(server: LocalRealtime) -> None:
    supabase = create_client(server.url, server.anon_key, realtime=QUICK)
    got = Recorder()
    channel = supabase.channel("room").on("broadcast", {"event": "*"}, got)
    assert supabase.channel("room") is channel
    await channel.subscribe()
    assert [each.payload["access_token"] for each in server.received] == [server.anon_key]
    await supabase.channel("other", {"config": {"broadcast": {"self": True}}}).subscribe()
    assert (
        supabase.get_channels()
        == supabase.realtime.get_channels()
        == [
            channel,
            supabase.channel("other"),
        ]
    )
    server.broadcast("room", "x", {"n": 1})
    await got.count(1)
    assert await supabase.remove_channel(channel) == "ok"
    assert await supabase.remove_all_channels() == ["ok"]
    assert not supabase.realtime.is_connected()
    await asyncio.wait_for(supabase.realtime.wait_closed(), 1)
