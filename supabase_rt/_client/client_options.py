"""Checks of the options of a client and its channels, before anything is built from them."""

from __future__ import annotations

import inspect
import ssl
from collections.abc import Callable, Mapping
from typing import Any, Final

import aiohttp

from .._handlers.signatures import is_coroutine_function
from .._name_hints import advice, snake_case
from .._payloads.row_conversion import check_mode
from .._printable import get_logger
from .._protocol.channel_options import ChannelConfig, check_seconds
from .._protocol.reconnect_policy import ReconnectPolicy
from .._runtime.log_fields import facts
from .._wire.envelope import TOPIC_PREFIX
from .._wire.jwt_claims import check_token
from .._wire.serializer import SUPPORTED_VSNS

__all__ = [
    "UnknownOption",
    "check_channel_keywords",
    "check_drain_timeout",
    "check_key",
    "check_options",
    "check_topic",
    "check_unknown",
    "codec_function",
    "warn_of_milliseconds",
    "warn_of_seconds",
]

log: Final = get_logger("supabase_rt")

RATHER_MILLISECONDS = 1000.0
"""Seconds; a larger value is legal, but was probably copied from supabase-js, which has ms."""

RATHER_SECONDS = (10**8, 10**11)
"""Moments in this range are days of the 1970s as milliseconds, and days since 1973 as seconds."""

RESUBSCRIBE: Final = "resubscribe_after"
IDLE: Final = "disconnect_on_empty_channels_after"


class UnknownOption(TypeError, ValueError):
    """An option that the client does not know: a wrong keyword, or a wrong key of a dict."""


def check_unknown(
    unknown: Mapping[str, Any], known: list[str], what: str, positional: tuple[Any, ...] = ()
) -> None:
    """Raises ``UnknownOption`` with the nearest known name, or the Python one of a JavaScript name.

    Raises ``TypeError`` for a positional argument, where supabase-js has its object of options.
    """
    if positional:
        raise TypeError(f"the options of {what} are keyword arguments: {what}(..., {known[0]}=...)")
    for name in unknown:
        snake = snake_case(name)
        python = snake.removesuffix("_ms")
        python = f"{python}_" if f"{python}_" in known else python
        if python in known and python != name:
            unit = " and takes seconds" if snake.endswith("_ms") else ""
            raise UnknownOption(f"{what} has no option {name!r}; in Python it is {python!r}{unit}")
        raise UnknownOption(f"{what} has no option {name!r}; {advice(python, known)}")


def warn_of_milliseconds(name: str, value: float | None) -> None:
    """Warns in the log if ``value`` looks like milliseconds, as JavaScript has them."""
    if value is not None and value >= RATHER_MILLISECONDS:
        log.warning(
            "%s is in seconds, and %g seconds are %.1f hours; were milliseconds meant?",
            name,
            value,
            value / 3600,
            extra=facts(option=name, seconds=value),
        )


def warn_of_seconds(topic: str, config: ChannelConfig) -> None:
    """Warns in the log if ``replay.since``, which is in milliseconds, looks like seconds.

    No error is raised: the server takes any moment, and 0 asks for the newest messages.
    """
    since = (config.replay or {}).get("since", 0)
    if RATHER_SECONDS[0] <= since < RATHER_SECONDS[1]:
        log.warning(
            "%s: replay.since is in milliseconds, and %d is in the 1970s, so nothing is too old; "
            "were seconds meant? int(time.time() * 1000) is now",
            topic,
            since,
            extra=facts(topic=topic, option="replay.since"),
        )


def check_channel_keywords(topic: str, unknown: Mapping[str, Any]) -> None:
    """Raises ``UnknownOption`` for a keyword argument; the options of a channel are a dict."""
    for name in unknown:
        if snake_case(name) == RESUBSCRIBE:
            check_unknown({name: None}, [RESUBSCRIBE], "channel()")
        form = '{"config": {...}}' if name == "config" else f'{{"config": {{"{name}": ...}}}}'
        raise UnknownOption(
            f"channel() has no option {name!r}; its options are a dict, as in supabase-js: "
            f"channel({topic!r}, {form})"
        )


def check_options(options: dict[str, Any]) -> None:
    """Raises ``ValueError`` or ``TypeError`` for a value that cannot work."""
    for name in ("timeout", "heartbeat_interval"):
        check_seconds(name, options[name])
    if options["heartbeat_timeout"] is not None:
        check_seconds("heartbeat_timeout", options["heartbeat_timeout"])
    if options[IDLE] is not None and options[IDLE] != 0:
        check_seconds(IDLE, options[IDLE])
    check_drain_timeout(options["drain_timeout"])
    if options["vsn"] not in SUPPORTED_VSNS:
        known = " and ".join(repr(vsn) for vsn in SUPPORTED_VSNS)
        raise ValueError(f"Unsupported serializer version: {options['vsn']}; known: {known}")
    if not isinstance(options["reconnect"], ReconnectPolicy):
        raise TypeError("reconnect is a ReconnectPolicy, such as ReconnectPolicy(max_backoff=60)")
    if options["api_key_in"] not in ("url", "header"):
        raise ValueError(f"api_key_in is 'url' or 'header', not {options['api_key_in']!r}")
    check_mode(options["types"])
    for name in ("reconnect_after", "heartbeat_callback", "access_token", "logger"):
        _check_callable(name, options[name])
    for name in ("reconnect_after", "logger"):
        _check_plain(name, options[name])
    for name in ("max_message_size", "max_outbound"):
        _check_count(name, options[name])
    for name in ("presence_limit", "send_limit"):
        _check_limit(name, options[name])
    for name in ("timeout", "heartbeat_interval", "heartbeat_timeout", IDLE):
        warn_of_milliseconds(name, options[name])
    warn_of_milliseconds("initial_backoff", options["reconnect"].initial_backoff)
    _check_headers(options["headers"])
    _check_network(options)


def check_drain_timeout(value: Any) -> float:
    """Returns the seconds, 0 for no wait; raises ``ValueError`` for a value that is no duration."""
    return 0.0 if value == 0 else check_seconds("drain_timeout", value)


def _check_network(options: dict[str, Any]) -> None:
    """Checks the options that aiohttp would refuse only at the first attempt to connect."""
    if not isinstance(options["ssl"], ssl.SSLContext | aiohttp.Fingerprint | bool | None):
        raise TypeError(f"ssl is an ssl.SSLContext, not {type(options['ssl']).__name__}")
    if not isinstance(options["session"], aiohttp.ClientSession | None):
        found = type(options["session"]).__name__
        raise TypeError(f"session is an aiohttp.ClientSession, not {found}")
    if not isinstance(options["log_level"], str | None):
        raise TypeError(f"log_level is a str, not {type(options['log_level']).__name__}")
    proxy = options["proxy"]
    # The value is not shown: it may hold a password.
    if proxy is not None and not isinstance(proxy, str):
        raise TypeError(f"proxy is a URL, not {type(proxy).__name__}")
    if proxy is not None and not proxy.startswith(("http://", "https://")):
        raise ValueError("proxy is the URL of an HTTP proxy: http://host:port")


def _check_callable(name: str, value: Any) -> None:
    if value is not None and not callable(value):
        raise TypeError(f"{name} is a function, not {type(value).__name__}")


def _check_plain(name: str, value: Any) -> None:
    if is_coroutine_function(value):
        raise TypeError(f"{name} is a plain function, not an async one: nobody would await it")


def _check_count(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} is a whole number, 1 or more, not {value!r}")


def _check_limit(name: str, limit: Any) -> None:
    if limit is None:
        return
    if not isinstance(limit, tuple | list) or len(limit) != 2:
        raise ValueError(f"{name} is (calls, seconds) or None")
    _check_count(f"{name}[0]", limit[0])
    check_seconds(f"{name}[1]", limit[1])


def _check_headers(headers: Any) -> None:
    if headers is None:
        return
    if not isinstance(headers, Mapping):
        raise TypeError("headers is a dict of names and values")
    for name, value in headers.items():
        for text in (name, value):
            if not isinstance(text, str) or not text.isprintable():
                raise ValueError(f"header {name!r} and its value are printable text")


def check_key(params: Any, call: str = "RealtimeClient(url, params={'apikey': key})") -> str:
    """Returns the API key of ``params``; raises ``ValueError`` if there is none."""
    key = params.get("apikey") if isinstance(params, Mapping) else None
    if not key:
        raise ValueError(f"API key is required to connect to Realtime: {call}")
    check_token(key)
    return str(key)


def codec_function(function: Callable[..., Any] | None) -> Callable[[Any], Any] | None:
    """Returns a user's ``encode`` or ``decode`` as a function that returns its result.

    In supabase-js such a function takes a second argument, and calls it with the result.
    """
    if function is None:
        return None
    _check_callable("encode and decode", function)
    _check_plain("encode or decode", function)
    if _required_arguments(function) < 2:
        return function

    def collect(value: Any) -> Any:
        found: list[Any] = []
        function(value, found.append)
        return found[0] if found else None

    return collect


def _required_arguments(function: Callable[..., Any]) -> int:
    """Counts the positional arguments without a default: ``json.dumps`` has one."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (ValueError, TypeError):
        return 1
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(
        parameter.kind in positional and parameter.default is parameter.empty
        for parameter in parameters
    )


def check_topic(topic: Any) -> None:
    """Raises ``ValueError`` for a value that cannot be the topic of a channel."""
    if not isinstance(topic, str) or not topic:
        raise ValueError(f"a topic is a name, not {topic!r}")
    if not topic.isprintable():
        raise ValueError("a topic is printable text")
    if len((TOPIC_PREFIX + topic).encode()) > 255:
        raise ValueError("a topic is at most 246 bytes long")
