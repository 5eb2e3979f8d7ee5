"""The exception tree.

::

    RealtimeError
    ├── ConnectionFailed      the socket could not be opened
    ├── ConnectionLost        an open socket went away
    ├── GaveUp                the reconnect policy allows no further attempt
    ├── InvalidState          the call does not fit the state of the object
    ├── DecodeError           a frame from the server could not be read
    ├── AuthError             a token is missing, expired or was not accepted
    ├── SubscribeError        a channel could not be joined, or was lost
    │   ├── TimedOut          (also a TimeoutError) no answer in time
    │   ├── Refused           the server said no
    │   └── BindingMismatch   the server joined other postgres_changes than asked for
    └── SendError             a message was not accepted

Every error carries ``code`` (a short stable word, the server's own where it sent one),
``retryable`` (whether the same call may succeed later without a change) and ``hint`` (what
to do). The hint is also a note of the exception, so that a traceback shows it.
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
    """Base of every error that this package raises on its own account."""

    code: str = "RealtimeError"
    """A short stable word that names the failure."""

    retryable: bool = False
    """Whether the same call may succeed later without a change."""

    hint: str = ""
    """What to do about it."""

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
        # Both quote the server, and end in tracebacks and logs.
        super().__init__(printable(message))
        # Only what differs from the class is stored: pickling and copying rebuild from args.
        if code is not None:
            self.code = code
        if retryable is not None:
            self.retryable = retryable
        if hint is not None:
            self.hint = printable(hint)
        if self.hint:
            self.add_note(f"hint: {self.hint}")


class ConnectionFailed(RealtimeError):
    """The socket could not be opened; ``status`` is the HTTP status where there was one."""

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
    """An open socket went away; ``close_code`` and ``reason`` as in the close frame."""

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
    """The client stopped for good; the last failure is its ``__cause__``."""

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
    """The call does not fit the present state of the client or the channel."""

    code = "InvalidState"


class DecodeError(RealtimeError):
    """A frame from the server could not be read; it was counted and skipped.

    ``topic`` and ``event`` say what it was, and are empty where not even that could be read.
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
    """The server said no; ``code`` is the server's own, ``response`` its whole answer."""

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
    """The server joined other postgres_changes than this client asked for."""

    code = "BindingMismatch"


class SendError(RealtimeError):
    """A message was not accepted; ``status`` is the HTTP status where there was one."""

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
