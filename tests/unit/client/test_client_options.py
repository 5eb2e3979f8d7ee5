"""Options that cannot work raise at once, with a hint."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from typing import Any

import pytest

from supabase_rt import RealtimeClient, ReconnectPolicy, create_client
from supabase_rt._client.client_options import UnknownOption, check_options, codec_function

URL = "wss://x.supabase.co/realtime/v1"
PARAMS = {"apikey": "key"}


class Awaited:
    """A callable object with an ``async`` ``__call__``."""

    async def __call__(self, *args: Any) -> float:
        return 1.0


def make(**options: Any) -> RealtimeClient:
    return RealtimeClient(URL, params=PARAMS, **options)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("heartbeatIntervalMs", "in Python it is 'heartbeat_interval' and takes seconds"),
        ("heartbeat_interval_ms", "in Python it is 'heartbeat_interval' and takes seconds"),
        ("reconnectAfterMs", "in Python it is 'reconnect_after' and takes seconds"),
        ("heartbeatCallback", "in Python it is 'heartbeat_callback'"),
        ("accessToken", "in Python it is 'access_token'"),
        ("logLevel", "in Python it is 'log_level'"),
        (
            "disconnectOnEmptyChannelsAfterMs",
            "in Python it is 'disconnect_on_empty_channels_after' and takes seconds",
        ),
        ("heartbeat_intervall", "did you mean 'heartbeat_interval'?"),
        ("zzz", "known: "),
    ],
)
def test_an_unknown_option_is_named_with_the_right_one(name: str, message: str) -> None:
    with pytest.raises(UnknownOption, match=re.escape(message)) as caught:
        make(**{name: 1})
    assert name in str(caught.value)
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, ValueError)


def test_create_client_knows_the_options_too() -> None:
    with pytest.raises(UnknownOption, match="in Python it is 'heartbeat_interval'"):
        create_client(
            "https://x.supabase.co",
            "key",
            realtime={"heartbeatIntervalMs": 1},  # type: ignore[arg-type]
        )


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": 0},
        {"timeout": -1},
        {"timeout": None},
        {"timeout": True},
        {"timeout": float("nan")},
        {"timeout": float("inf")},
        {"timeout": "10"},
        {"heartbeat_interval": 0},
        {"drain_timeout": -1},
        {"drain_timeout": None},
        {"heartbeat_timeout": 0},
        {"heartbeat_timeout": "1"},
        {"disconnect_on_empty_channels_after": -1},
        {"vsn": "3.0.0"},
        {"vsn": 2},
        {"reconnect": {"enabled": False}},
        {"reconnect": 5},
        {"api_key_in": "cookie"},
        {"types": "java"},
        {"reconnect_after": 5},
        {"heartbeat_callback": "print"},
        {"access_token": "eyJ..."},
        {"logger": "log"},
        {"logger": asyncio.sleep},
        {"reconnect_after": asyncio.sleep},
        {"reconnect_after": Awaited()},
        {"encode": asyncio.sleep},
        {"encode": 5},
        {"decode": "x"},
        {"max_message_size": 0},
        {"max_message_size": 1.5},
        {"max_outbound": 0},
        {"max_outbound": True},
        {"presence_limit": 5},
        {"presence_limit": (5,)},
        {"presence_limit": (0, 30.0)},
        {"presence_limit": (5, 0)},
        {"send_limit": 5},
        {"send_limit": (0, 1.0)},
        {"headers": "X: y"},
        {"headers": {"X": "a\r\nY: b"}},
        {"headers": {"X\n": "a"}},
        {"headers": {"X": 1}},
        {"ssl": 5},
        {"session": 5},
        {"log_level": 5},
        {"proxy": 5},
        {"proxy": "127.0.0.1:3128"},
        {"proxy": "socks5://user:letmein@127.0.0.1"},
    ],
)
def test_a_value_that_cannot_work_raises(options: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        make(**options)
    assert str(caught.value)
    assert "letmein" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"heartbeat_timeout": 3},
        {"disconnect_on_empty_channels_after": 0},
        {"disconnect_on_empty_channels_after": 1.5},
        {"presence_limit": None},
        {"presence_limit": [3, 10]},
        {"headers": {}},
        {"headers": {"X-Mine": "yes"}},
        {"reconnect": ReconnectPolicy.supabase_js()},
        {"types": "raw"},
        {"vsn": "1.0.0"},
        {"api_key_in": "header"},
        {"ssl": False},
        {"ssl": ssl.create_default_context()},
        {"log_level": "info"},
        {"proxy": "http://user:letmein@127.0.0.1:3128"},
    ],
)
def test_a_value_that_works_is_taken(options: dict[str, Any]) -> None:
    assert make(**options).connection_state() == "closed"


@pytest.mark.conformance("CF5", "NX11")
def test_the_message_for_a_wrong_version_is_that_of_supabase_js() -> None:
    with pytest.raises(ValueError, match=r"Unsupported serializer version: 3\.0\.0"):
        make(vsn="3.0.0")


@pytest.mark.conformance("LC4")
@pytest.mark.parametrize("params", [None, {}, {"apikey": ""}, {"apikey": None}, "apikey=x"])
def test_a_missing_key(params: Any) -> None:
    with pytest.raises(ValueError, match="API key is required to connect to Realtime"):
        RealtimeClient(URL, params=params)


def test_a_parameter_that_fits_into_no_url() -> None:
    with pytest.raises(TypeError, match=r"params\['extra'\] is text or a number"):
        RealtimeClient(URL, params={**PARAMS, "extra": object()})


@pytest.mark.parametrize("key", ["a\nb", "schlüssel", 17])
def test_a_key_that_cannot_be_one(key: Any) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        RealtimeClient(URL, params={"apikey": key})
    assert str(key) not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["", "x.supabase.co", "ftp://x/realtime/v1", "wss://", "wss:///realtime", "wss://x:port", 5],
)
def test_a_url_that_cannot_be_one(url: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        RealtimeClient(url, params=PARAMS)


@pytest.mark.parametrize("url", ["", "x.supabase.co", "ftp://x.co", None])
def test_create_client_checks_url_and_key(url: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        create_client(url, "key")
    with pytest.raises(ValueError, match="API key is required"):
        create_client("https://x.supabase.co", "")


def test_codec_functions_return_or_call_back() -> None:
    assert codec_function(None) is None
    one = codec_function(lambda value: value * 2)
    assert one is not None
    assert one(2) == 4
    two = codec_function(lambda value, back: back(value * 3))
    assert two is not None
    assert two(2) == 6
    silent = codec_function(lambda value, back: None)
    assert silent is not None
    assert silent(2) is None
    for returning in (json.dumps, json.loads, iter, int):
        assert codec_function(returning) is returning
    with pytest.raises(TypeError):
        codec_function("x")  # type: ignore[arg-type]


def test_the_checks_take_what_the_defaults_are() -> None:
    check_options(
        {
            "timeout": 10.0,
            "heartbeat_interval": 25.0,
            "heartbeat_timeout": None,
            "disconnect_on_empty_channels_after": None,
            "drain_timeout": 0,
            "vsn": "2.0.0",
            "reconnect": ReconnectPolicy(),
            "api_key_in": "url",
            "types": "js",
            "reconnect_after": None,
            "heartbeat_callback": None,
            "access_token": None,
            "logger": None,
            "max_message_size": 1,
            "max_outbound": 1,
            "presence_limit": (5, 30.0),
            "send_limit": None,
            "headers": None,
            "ssl": None,
            "session": None,
            "log_level": None,
            "proxy": None,
        }
    )
