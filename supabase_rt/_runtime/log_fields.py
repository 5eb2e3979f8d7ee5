"""The facts beside the text of a log record: ``logging``'s ``extra``, with one name for each.

``topic`` and ``event`` say what it is about, ``handler`` whose code, ``host`` which server;
``error`` (the class), ``code``, ``close_code`` and ``http_status`` what went wrong; ``status``
that of a channel, ``attempt``, ``delay``, ``downtime``, ``count``, ``size``, ``seconds``
the numbers of the text, and ``option`` whose value is doubtful.
"""

from __future__ import annotations

from typing import Any, Final

from ..errors import RealtimeError

__all__ = ["facts"]

OF_ERRORS: Final = (("code", "code"), ("close_code", "close_code"), ("http_status", "status"))


def facts(error: BaseException | None = None, /, **known: Any) -> dict[str, Any]:
    """``extra`` of a log record; what is None is left out, an error adds what it knows."""
    if error is not None:
        known = {"error": type(error).__name__, **known}
    if isinstance(error, RealtimeError):
        # Of others nobody knows what such an attribute would hold.
        known |= {name: getattr(error, attribute, None) for name, attribute in OF_ERRORS}
    return {name: value for name, value in known.items() if value is not None}
