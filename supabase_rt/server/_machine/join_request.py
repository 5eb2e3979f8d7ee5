"""Parses the payload of a join (docs/protocol.md#joins)."""

from __future__ import annotations

import dataclasses
from typing import Any

from .memory_bounds import MAX_BINDINGS

__all__ = ["MAX_REPLAY", "JoinConfig", "JoinRefused", "Replay", "choose_token", "read_join"]

BAD_SHAPE = "UnknownErrorOnChannel: no function clause matching in Access.get/3"
BAD_REPLAY = "UnableToReplayMessages: Replay params are not valid"
PUBLIC_REPLAY = "UnableToReplayMessages: Replay is not allowed for public channels"
MAX_REPLAY = 25
LAST_MILLISECOND = 253_402_300_799_999
"""The last millisecond of the year 9999; later times have no ISO form."""


class JoinRefused(Exception):
    """A refused join with its reason; ``close`` is a code to close the socket with afterwards."""

    def __init__(self, reason: str, *, close: int | None = None) -> None:
        super().__init__(reason)
        self.close = close


@dataclasses.dataclass(frozen=True)
class Replay:
    """A request for stored messages: from ``since`` in Unix milliseconds, at most ``limit``."""

    since: float
    limit: int


@dataclasses.dataclass(frozen=True)
class JoinConfig:
    """The config of a join; values that cannot be read have their defaults."""

    private: bool = False
    ack: bool = False
    self_broadcast: bool = False
    replication_ready: bool = False
    replay: Any = None
    wants_replay: bool = False
    presence_key: str | None = None
    presence_enabled: bool = False
    postgres_changes: tuple[dict[str, Any], ...] = ()
    legacy: bool = False

    def read_replay(self) -> Replay | None:
        """Returns the requested replay, if any; raises ``JoinRefused`` for an invalid one."""
        if not self.wants_replay:
            return None
        if not self.private:
            raise JoinRefused(PUBLIC_REPLAY)
        asked = self.replay if isinstance(self.replay, dict) else {}
        since: Any = asked.get("since")
        limit: Any = asked.get("limit", MAX_REPLAY)
        if not _is_integer(since) or not _is_integer(limit) or not 0 <= since <= LAST_MILLISECOND:
            raise JoinRefused(BAD_REPLAY)
        return Replay(float(since), min(max(limit, 1), MAX_REPLAY))


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _flag(section: dict[str, Any], name: str) -> bool:
    """Read a boolean or its word in any case; any other value counts as False, without error."""
    value = section.get(name, False)
    if isinstance(value, str):
        return value.lower() == "true"
    return value is True


def _key(value: Any) -> str | None:
    if isinstance(value, str):
        return value or None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return None


def _legacy(sub_topic: str) -> JoinConfig:
    # Without a config the sub-topic itself is the subscription (docs/protocol.md#the-legacy-form).
    names = ("schema", "table", "filter")
    entry = dict(zip(names, sub_topic.split(":", 2), strict=False))
    return JoinConfig(postgres_changes=(entry,), legacy=True)


def read_join(payload: Any, sub_topic: str) -> JoinConfig:
    """Read the payload of a join; raises ``JoinRefused`` for a shape that the server rejects."""
    if not isinstance(payload, dict):
        raise JoinRefused(BAD_SHAPE)
    if "config" not in payload:
        return _legacy(sub_topic)
    config = payload["config"] or {}
    broadcast = config.get("broadcast") if isinstance(config, dict) else config
    if not isinstance(broadcast, dict | None) or not isinstance(config, dict):
        raise JoinRefused(BAD_SHAPE)
    broadcast = broadcast or {}
    presence = config.get("presence")
    presence = presence if isinstance(presence, dict) else {}
    entries = config.get("postgres_changes")
    entries = entries if isinstance(entries, list) else []
    if len(entries) > MAX_BINDINGS:
        raise JoinRefused(f"UnknownErrorOnChannel: more than {MAX_BINDINGS} postgres_changes")
    return JoinConfig(
        private=_flag(config, "private"),
        ack=_flag(broadcast, "ack"),
        self_broadcast=_flag(broadcast, "self"),
        replication_ready=bool(broadcast.get("replication_ready", False)),
        replay=broadcast.get("replay"),
        wants_replay="replay" in broadcast,
        presence_key=_key(presence.get("key")),
        presence_enabled=_flag(presence, "enabled"),
        postgres_changes=tuple(entry for entry in entries if isinstance(entry, dict)),
    )


def choose_token(payload: Any, connection_token: str) -> str:
    """Returns the token that a join is checked with (docs/protocol.md#the-token-of-a-join)."""
    for name in ("user_token", "access_token"):
        token = payload.get(name) if isinstance(payload, dict) else None
        if isinstance(token, str):
            return connection_token if token.startswith("sb_") else token
    return connection_token
