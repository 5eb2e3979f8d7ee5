"""The payload of a system message."""

from __future__ import annotations

from typing import Any, ClassVar, Final, Self

from .._wire.json_codec import plain
from ..errors import DecodeError
from .base import LONGEST, TEXT_OR_NONE, Payload, check_types, js_keys, shown

__all__ = ["SystemMessage", "read_system"]


class SystemMessage(Payload):
    """A report of the server about a channel (docs/protocol.md#4-system-messages).

    The key ``"channel"`` is absent if the message is about the whole socket.
    """

    __slots__ = ("_channel", "_extension", "_message", "_status")

    _names = js_keys("extension", "status", "message", "channel")
    _optional = "channel"
    _defaults: ClassVar[dict[str, Any]] = {"channel": None}

    def __init__(
        self, extension: str, status: str, message: str, channel: str | None = None
    ) -> None:
        self._extension = extension
        self._status = status
        self._message = message
        self._channel = channel

    @property
    def extension(self) -> str:
        """``"postgres_changes"`` or ``"system"``."""
        return self._extension

    @property
    def status(self) -> str:
        """``"ok"`` or ``"error"``."""
        return self._status

    @property
    def message(self) -> str:
        """The text of the report."""
        return self._message

    @property
    def channel(self) -> str | None:
        """The topic without ``realtime:``, or ``None``."""
        return self._channel

    @classmethod
    def _restore(cls, values: dict[str, Any]) -> Self:
        check_types(values, extension=str, status=str, message=str, channel=TEXT_OR_NONE)
        return cls(**values)

    def __repr__(self) -> str:
        where = f"{self.extension:.60} {self.status:.60}:"
        return shown("SystemMessage", where, f"{self.message!r:.{LONGEST}}")


_SYSTEM: Final = ("extension", "status", "message", "channel")


def read_system(payload: Any) -> SystemMessage:
    """Read the payload of a system message: ``msgspec.Raw`` or plain data.

    Raises ``DecodeError`` if extension, status or message is missing or no text.
    """
    # Without msgspec.convert, which fails at a lone surrogate even in unknown keys.
    found = plain(payload)
    if not isinstance(found, dict):
        raise DecodeError(f"malformed system message: no object but {type(found).__name__}")
    values: list[Any] = [found.get(name) for name in _SYSTEM]
    extension, status, message, channel = values
    if not all(isinstance(value, str) for value in (extension, status, message)):
        raise DecodeError("malformed system message: extension, status or message is no text")
    if not isinstance(channel, TEXT_OR_NONE):
        raise DecodeError("malformed system message: the channel is no text")
    return SystemMessage(extension, status, message, channel)
