"""The exceptions of this package.

::

    RealtimeError
    ├── ConnectionFailed      the socket could not be opened
    ├── ConnectionLost        an open socket was lost
    ├── GaveUp                the reconnect policy allows no further attempt
    ├── InvalidState          the call does not fit the state of the object
    ├── DecodeError           a frame from the server could not be read
    ├── AuthError             a token is missing, expired or was not accepted
    ├── SubscribeError        a channel could not be joined, or was lost
    │   ├── TimedOut          (also a TimeoutError) no answer in time
    │   ├── Refused           the server refused the join
    │   └── BindingMismatch   the server joined other postgres_changes than requested
    └── SendError             a message was not accepted

Every error has three attributes. ``code`` is a short stable word, the server's if it sent one.
``retryable`` is True if the same call may succeed later without a change. ``hint`` is a remedy; it
is also a note of the exception, so that a traceback shows it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from ._name_hints import no_attribute
from ._printable import printable

__all__ = [
    "AuthError",
    "BindingMismatch",
    "ConnectionFailed",
    "ConnectionLost",
    "DecodeError",
    "GaveUp",
    "InvalidState",
    "RealtimeError",
    "Refused",
    "SendError",
    "SubscribeError",
    "TimedOut",
]


class RealtimeError(Exception):
    """The base of all errors of this package."""

    code: str = "RealtimeError"
    """A short stable word that names the failure."""

    retryable: bool = False
    """True if the same call may succeed later without a change."""

    hint: str = ""
    """A remedy, or an empty string."""

    _moved: ClassVar[dict[str, str]] = {"message": "str(error)", "cause": "error.__cause__"}

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            raise no_attribute(self, name)

    def __init__(
        self,
        message: str = "",
        *,
        code: str | None = None,
        retryable: bool | None = None,
        hint: str | None = None,
    ) -> None:
        # Message and hint quote the server and are shown in tracebacks and logs.
        super().__init__(printable(message))
        # Only values that differ from the class are stored: pickle and copy rebuild from args.
        if code is not None:
            self.code = code
        if retryable is not None:
            self.retryable = retryable
        if hint is not None:
            self.hint = printable(hint)
        if self.hint:
            self.add_note(f"hint: {self.hint}")


class ConnectionFailed(RealtimeError):
    """The socket could not be opened; ``status`` is the HTTP status, or None."""

    code = "ConnectionFailed"
    retryable = True
    status: int | None = None

    def __init__(
        self,
        message: str = "",
        *,
        status: int | None = None,
        code: str | None = None,
        retryable: bool | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, code=code, retryable=retryable, hint=hint)
        self.status = status


class ConnectionLost(RealtimeError):
    """An open socket was lost; ``close_code`` and ``reason`` are those of the close frame."""

    code = "ConnectionLost"
    retryable = True
    close_code: int | None = None
    reason: str = ""

    def __init__(
        self,
        message: str = "",
        *,
        close_code: int | None = None,
        reason: str = "",
        code: str | None = None,
        retryable: bool | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, code=code, retryable=retryable, hint=hint)
        self.close_code = close_code
        self.reason = reason


class GaveUp(RealtimeError):
    """The client stopped reconnecting; the last failure is the ``__cause__``."""

    code = "GaveUp"
    attempts: int = 0

    def __init__(
        self,
        message: str = "",
        *,
        attempts: int = 0,
        code: str | None = None,
        retryable: bool | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, code=code, retryable=retryable, hint=hint)
        self.attempts = attempts


class InvalidState(RealtimeError):
    """The call does not fit the current state of the client or the channel."""

    code = "InvalidState"


class DecodeError(RealtimeError):
    """A frame from the server could not be read; it was counted and skipped.

    ``topic`` and ``event`` are empty if they could not be read either.
    """

    code = "DecodeError"
    topic: str = ""
    event: str = ""


class AuthError(RealtimeError):
    """A token is missing, expired or was not accepted."""

    code = "AuthError"


class SubscribeError(RealtimeError):
    """A channel could not be joined, or was lost; ``topic`` names it."""

    code = "SubscribeError"
    topic: str = ""

    def __init__(
        self,
        message: str = "",
        *,
        topic: str = "",
        code: str | None = None,
        retryable: bool | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, code=code, retryable=retryable, hint=hint)
        self.topic = topic


class TimedOut(SubscribeError, TimeoutError):
    """No answer came in time."""

    code = "TimedOut"
    retryable = True


class Refused(SubscribeError):
    """The server refused the join; ``code`` is the server's, ``response`` its whole answer."""

    code = "Refused"
    response: object = None

    def __init__(
        self,
        message: str = "",
        *,
        response: object = None,
        topic: str = "",
        code: str | None = None,
        retryable: bool | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, topic=topic, code=code, retryable=retryable, hint=hint)
        self.response = response


class BindingMismatch(SubscribeError):
    """The server joined other postgres_changes than this client requested."""

    code = "BindingMismatch"


class SendError(RealtimeError):
    """A message was not accepted; ``status`` is the HTTP status, or None."""

    code = "SendError"
    status: int | None = None

    def __init__(
        self,
        message: str = "",
        *,
        status: int | None = None,
        code: str | None = None,
        retryable: bool | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, code=code, retryable=retryable, hint=hint)
        self.status = status
