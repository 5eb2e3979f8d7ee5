"""The payloads of presence events: sync, join and leave."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from .base import Payload, brief, check_types, expect_event, js_keys, shown

__all__ = ["PresenceJoin", "PresenceLeave", "PresenceSync"]


class PresenceSync(Payload):
    """The presence state of a channel is up to date: read ``channel.presence_state()``."""

    __slots__ = ()

    _names = js_keys("event")
    _defaults: ClassVar[dict[str, Any]] = {"event": "sync"}

    @property
    def event(self) -> str:
        """``"sync"``."""
        return "sync"

    @classmethod
    def _restore(cls, values: dict[str, Any]) -> Self:
        expect_event(values, "sync")
        return cls()

    def __repr__(self) -> str:
        return "<PresenceSync>"


class _PresenceChange(Payload):
    __slots__ = ("_changed", "_current", "_key")

    _event: ClassVar[str]
    _changed_key: ClassVar[str]

    def __init__(
        self, key: str, current: list[dict[str, Any]], changed: list[dict[str, Any]]
    ) -> None:
        self._key = key
        self._current = current
        self._changed = changed

    @property
    def event(self) -> str:
        """``"join"`` or ``"leave"``."""
        return self._event

    @property
    def key(self) -> str:
        """The presence key that changed."""
        return self._key

    @property
    def current_presences(self) -> list[dict[str, Any]]:
        """The presences before a join, or those that remain after a leave."""
        return self._current

    @classmethod
    def _restore(cls, values: dict[str, Any]) -> Self:
        expect_event(values, cls._event)
        changed = cls._changed_key
        check_types(values, key=str, currentPresences=list, **{changed: list})
        return cls(values["key"], values["currentPresences"], values[changed])

    def __repr__(self) -> str:
        return shown(type(self).__name__, brief(self.key), content=lambda: self._changed)


class PresenceJoin(_PresenceChange):
    """Presences appeared under a key."""

    __slots__ = ()

    _event = "join"
    _changed_key = "newPresences"
    _names = js_keys("event", "key", "currentPresences", "newPresences")
    _defaults: ClassVar[dict[str, Any]] = {"event": _event}

    def __init__(
        self,
        key: str,
        current_presences: list[dict[str, Any]],
        new_presences: list[dict[str, Any]],
    ) -> None:
        super().__init__(key, current_presences, new_presences)

    @property
    def new_presences(self) -> list[dict[str, Any]]:
        """The presences that appeared."""
        return self._changed


class PresenceLeave(_PresenceChange):
    """Presences disappeared from a key."""

    __slots__ = ()

    _event = "leave"
    _changed_key = "leftPresences"
    _names = js_keys("event", "key", "currentPresences", "leftPresences")
    _defaults: ClassVar[dict[str, Any]] = {"event": _event}

    def __init__(
        self,
        key: str,
        current_presences: list[dict[str, Any]],
        left_presences: list[dict[str, Any]],
    ) -> None:
        super().__init__(key, current_presences, left_presences)

    @property
    def left_presences(self) -> list[dict[str, Any]]:
        """The presences that disappeared."""
        return self._changed
