"""The fields of a log record beside its text: the ``extra`` of ``logging``.

* ``topic``, ``event``, ``handler``, ``host``: what the record is about.
* ``error`` (the class), ``code``, ``close_code``, ``http_status``: what went wrong.
* ``status``: the status of a channel. ``option``: the option with a doubtful value.
* ``attempt``, ``delay``, ``downtime``, ``count``, ``size``, ``seconds``: the numbers of the text.
"""

from __future__ import annotations

from typing import Any, Final

from ..errors import RealtimeError

__all__ = ["facts"]

OF_ERRORS: Final = (("code", "code"), ("close_code", "close_code"), ("http_status", "status"))


def facts(error: BaseException | None = None, /, **known: Any) -> dict[str, Any]:
    """Returns the ``extra`` of a log record: the fields of an error and ``known``, without None."""
    if error is not None:
        known = {"error": type(error).__name__, **known}
    if isinstance(error, RealtimeError):
        # Errors of other libraries may use the same attributes for something else.
        known |= {name: getattr(error, attribute, None) for name, attribute in OF_ERRORS}
    return {name: value for name, value in known.items() if value is not None}
