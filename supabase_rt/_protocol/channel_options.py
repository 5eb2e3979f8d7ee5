"""The checks of channel options, listen filters and send options.

A wrong option raises at the call, and the error for an unknown key names the nearest known key.
supabase-js ignores unknown keys, so a misspelt option fails silently there.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .._name_hints import advice, snake_case
from ..enums import ListenType, PostgresChangesEvent, PresenceEvent

__all__ = [
    "MAXBYTES",
    "ChannelConfig",
    "check_filter",
    "check_keys",
    "check_listen_type",
    "check_seconds",
    "send_options",
]

_CONFIG_KEYS: dict[str, tuple[str, ...]] = {
    "broadcast": ("self", "ack", "replay", "replication_ready"),
    "presence": ("key", "enabled"),
    "private": (),
    "postgres_changes_options": ("wait", "timeout"),
}
_FILTER_KEYS: dict[ListenType, tuple[str, ...]] = {
    ListenType.BROADCAST: ("event",),
    ListenType.PRESENCE: ("event",),
    ListenType.POSTGRES_CHANGES: ("event", "schema", "table", "filter", "select"),
    ListenType.SYSTEM: ("event",),
}
_EVENTS: dict[ListenType, tuple[str, ...]] = {
    ListenType.PRESENCE: ("*", *PresenceEvent),
    ListenType.POSTGRES_CHANGES: tuple(PostgresChangesEvent),
}

MAXBYTES = 64 * 2**20
"""The default of ``maxbytes``: bytes of the frames whose events wait for one handler."""

DEFAULT_WAIT = 15_000
WAIT_GRACE = 10_000
"""Milliseconds, as on the wire. The server delays a join that waits for the change feed by up to
the first value. The client allows the second value in addition.
"""


def check_keys(what: str, given: Iterable[Any], known: Iterable[str]) -> None:
    """Raise ``ValueError`` with the nearest name for a key that is not known."""
    names = list(known)
    for key in given:
        if key in names:
            continue
        snake = snake_case(str(key)).removesuffix("_ms")
        hint = advice(snake, names, cutoff=0.5)
        raise ValueError(f"unknown key {key!r} in {what}; {hint}")


def check_seconds(what: str, value: Any) -> float:
    """Returns a positive, finite number of seconds; raises ``ValueError`` for any other value."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        raise ValueError(f"{what} is a positive number of seconds, not {value!r}")
    return float(value)


def _mapping(what: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{what} is a dict, not {type(value).__name__}")
    return {key: item for key, item in value.items() if item is not None}


def _boolean(what: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{what} is True or False, not {value!r}")
    return value


# -- channel options ---------------------------------------------------------------------


@dataclass(slots=True)
class ChannelConfig:
    """The options of one channel.

    ``params`` has the defaults merged in, as ``channel.params`` of supabase-js. ``given`` has only
    the user's options, to compare them when the same topic is requested again.
    """

    params: dict[str, Any]
    given: dict[str, Any]

    @classmethod
    def build(cls, opts: Any, topic: str) -> ChannelConfig:
        """Check ``opts`` and merge the defaults in; raises ``ValueError`` with a remedy."""
        opts = _mapping("channel options", {} if opts is None else opts)
        for key in opts:
            if key in _CONFIG_KEYS:
                raise ValueError(f"put {key!r} under 'config': {{'config': {{{key!r}: ...}}}}")
        check_keys("channel options", opts, ("config",))
        given = _check_config(opts.get("config", {}))
        config: dict[str, Any] = {
            "broadcast": {"ack": False, "self": False},
            "presence": {"key": "", "enabled": False},
            "private": False,
        }
        config.update(given)
        if "replay" in config["broadcast"] and not config["private"]:
            raise ValueError(
                f"tried to use replay on public channel '{topic}'. It must be a private channel."
            )
        return cls({"config": config}, given)

    @property
    def private(self) -> bool:
        return bool(self.params["config"]["private"])

    @property
    def ack(self) -> bool:
        """True if the server answers broadcasts."""
        return bool(self.params["config"]["broadcast"].get("ack"))

    @property
    def replay(self) -> dict[str, Any] | None:
        found = self.params["config"]["broadcast"].get("replay")
        return found if isinstance(found, dict) else None

    @property
    def presence_enabled(self) -> bool:
        return bool(self.params["config"]["presence"].get("enabled"))

    @property
    def join_timeout_extension(self) -> float:
        """The least timeout of a join in seconds: the server may delay its answer."""
        options = self.params["config"].get("postgres_changes_options") or {}
        if not options.get("wait"):
            return 0.0
        return float(options.get("timeout", DEFAULT_WAIT) + WAIT_GRACE) / 1000

    def join_payload(
        self, *, presence: bool, postgres_changes: list[dict[str, Any]], since: int | None
    ) -> dict[str, Any]:
        """Returns the ``config`` of ``phx_join`` (docs/protocol.md#joins)."""
        config = dict(self.params["config"])
        if presence:
            config["presence"] = {**config["presence"], "enabled": True}
        if since is not None:
            replay = {**config["broadcast"]["replay"], "since": since}
            config["broadcast"] = {**config["broadcast"], "replay": replay}
        options = config.pop("postgres_changes_options", None)
        private = config.pop("private")
        config["postgres_changes"] = postgres_changes
        config["private"] = private
        if options is not None:
            config["postgres_changes_options"] = options
        return config

    def difference(self, other: ChannelConfig) -> str | None:
        """Returns the first option that ``other`` sets differently; omitted ones never differ."""
        return _difference(self.params["config"], other.given, "")


def _difference(mine: Any, asked: dict[str, Any], path: str) -> str | None:
    for key, wanted in asked.items():
        have = mine.get(key) if isinstance(mine, dict) else None
        if isinstance(wanted, dict):
            found = _difference(have, wanted, f"{path}{key}.")
            if found is not None:
                return found
        elif (have or False) != (wanted or False):
            return f"{path}{key} is {have!r}, asked for {wanted!r}"
    return None


def _check_config(value: Any) -> dict[str, Any]:
    config = _mapping("config", value)
    check_keys("config", config, _CONFIG_KEYS)
    for key, known in _CONFIG_KEYS.items():
        if known and key in config:
            config[key] = _mapping(f"config.{key}", config[key])
            check_keys(f"config.{key}", config[key], known)
    for path in (("broadcast", "self"), ("broadcast", "ack"), ("broadcast", "replication_ready")):
        _check_boolean_at(config, *path)
    _check_boolean_at(config, "presence", "enabled")
    _check_boolean_at(config, "postgres_changes_options", "wait")
    if "private" in config:
        _boolean("config.private", config["private"])
    if not isinstance(config.get("presence", {}).get("key", ""), str):
        raise ValueError("config.presence.key is a string")
    _check_whole(config.get("postgres_changes_options", {}), "timeout", "milliseconds")
    if "replay" in config.get("broadcast", {}):
        config["broadcast"]["replay"] = _check_replay(config["broadcast"]["replay"])
    return config


def _check_boolean_at(config: dict[str, Any], section: str, key: str) -> None:
    if key in config.get(section, {}):
        _boolean(f"config.{section}.{key}", config[section][key])


def _check_whole(section: dict[str, Any], key: str, unit: str) -> None:
    value = section.get(key, 0)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{key} is a whole number of {unit}, not {value!r}")


def _check_replay(value: Any) -> dict[str, Any]:
    replay = _mapping("config.broadcast.replay", value)
    check_keys("config.broadcast.replay", replay, ("since", "limit"))
    if "since" not in replay:
        raise ValueError("config.broadcast.replay needs 'since': Unix time in milliseconds")
    since = replay["since"]
    if isinstance(since, float) and math.isfinite(since):
        replay["since"] = int(since)
    _check_whole(replay, "since", "milliseconds since 1970")
    _check_whole(replay, "limit", "messages")
    if not 1 <= replay.get("limit", 25) <= 25:
        raise ValueError(f"config.broadcast.replay.limit is 1 to 25, not {replay['limit']!r}")
    return replay


# -- listen filters ----------------------------------------------------------------------


def check_listen_type(type: Any) -> ListenType:
    """Returns the listen type of a name in any case; raises ``ValueError`` for another name."""
    try:
        return ListenType(type.lower() if isinstance(type, str) else type)
    except ValueError:
        known = ", ".join(repr(str(name)) for name in ListenType)
    near = difflib.get_close_matches(snake_case(str(type)), list(ListenType), 1, 0.5)
    hint = f"did you mean {str(near[0])!r}? " if near else ""
    raise ValueError(f"unknown listen type {type!r}; {hint}known: {known}")


def check_filter(type: ListenType, filter: Any) -> dict[str, Any]:
    """Returns a checked copy of the filter of ``on``; a filter builder becomes its text."""
    if filter is None and type is ListenType.SYSTEM:
        return {}
    if not isinstance(filter, Mapping):
        raise ValueError(
            f"the filter of {str(type)!r} is a dict such as {_example(type)}, not {filter!r}"
        )
    found = _mapping("filter", filter)
    check_keys(f"the filter of {str(type)!r}", found, _FILTER_KEYS[type])
    if type is ListenType.SYSTEM:
        return {}
    if "event" not in found:
        raise ValueError(f"the filter of {str(type)!r} needs 'event', as in {_example(type)}")
    found["event"] = _check_event(type, found["event"])
    if type is ListenType.POSTGRES_CHANGES:
        _check_postgres_filter(found)
    return found


def _example(type: ListenType) -> str:
    if type is ListenType.POSTGRES_CHANGES:
        return '{"event": "*", "schema": "public", "table": "messages"}'
    return '{"event": "sync"}' if type is ListenType.PRESENCE else '{"event": "*"}'


def _check_event(type: ListenType, event: Any) -> str:
    if not isinstance(event, str):
        raise ValueError(f"'event' is a string, not {event!r}")
    known = _EVENTS.get(type)
    if known is not None and event.lower() not in [name.lower() for name in known]:
        raise ValueError(f"unknown event {event!r}; known: {', '.join(known)}")
    return str(event)


def _check_postgres_filter(found: dict[str, Any]) -> None:
    for key in ("schema", "table"):
        if key in found and not (isinstance(found[key], str) and found[key]):
            raise ValueError(f"{key!r} is a name, not {found[key]!r}")
    if "schema" not in found and "table" not in found:
        raise ValueError("a postgres_changes filter needs 'schema', 'table' or both")
    if "filter" in found:
        found["filter"] = _written_out(found["filter"])
        if found["filter"].strip():
            _require_table(found, "filter")
    if "select" in found:
        found["select"] = _columns(found["select"])
        if found["select"]:
            _require_table(found, "select", wildcards=("*",))


def _require_table(found: dict[str, Any], key: str, wildcards: tuple[str, ...] = ()) -> None:
    """Raises ``ValueError`` if schema or table is missing, which the server refuses."""
    refused = (None, *wildcards)
    missing = [name for name in ("schema", "table") if found.get(name) in refused]
    if missing:
        names = " and ".join(map(repr, missing))
        example = f'{{"event": "*", "schema": "public", "table": "messages", "{key}": ...}}'
        raise ValueError(f"{key!r} needs a name as {names} beside it, as in {example}")


def _written_out(filter: Any) -> str:
    build = getattr(filter, "build", None)
    text = build() if callable(build) else filter
    if not isinstance(text, str):
        raise ValueError(
            f"'filter' is a string such as 'id=eq.1' or a postgres_changes_filter(), not {filter!r}"
        )
    return text


def _columns(select: Any) -> list[str]:
    if isinstance(select, str) or not isinstance(select, Iterable):
        raise ValueError(f"'select' is a list of column names, not {select!r}")
    columns = list(select)
    if not all(isinstance(column, str) for column in columns):
        raise ValueError(f"'select' is a list of column names, not {select!r}")
    return columns


# -- send options ------------------------------------------------------------------------


def send_options(opts: Any, timeout: Any, persist: Any) -> tuple[float | None, Any]:
    """Returns ``timeout`` (seconds) and ``persist`` of a call, from ``opts`` or keywords."""
    found = _mapping("opts", {} if opts is None else opts)
    check_keys("opts", found, ("timeout", "persist"))
    timeout = found.get("timeout") if timeout is None else timeout
    persist = found.get("persist") if persist is None else persist
    if timeout is not None:
        timeout = check_seconds("timeout", timeout)
    if persist is None or isinstance(persist, bool):
        return timeout, persist
    persist = _mapping("persist", persist)
    check_keys("persist", persist, ("ttl",))
    _check_whole(persist, "ttl", "seconds")
    return timeout, persist
