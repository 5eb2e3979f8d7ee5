"""The extended timeout of a join while the server is busy with other joins.

The server decides joins one at a time and answers nothing else on the socket meanwhile
(docs/protocol.md#one-join-at-a-time). So the timeout of a join counts from the last frame of the
link, up to a limit.
"""

from __future__ import annotations

from ..requests import Request
from ..shared_state import SharedState

__all__ = ["JOIN_TIMEOUT_EXTENSION", "join_deadline"]

JOIN_TIMEOUT_EXTENSION = 30.0
"""Seconds by which other joins may delay an answer."""


def join_deadline(request: Request, context: SharedState) -> float:
    """Returns the time at which an unanswered join has failed."""
    heard = max(request.sent_at, context.last_frame_at)
    return min(
        heard + request.timeout, request.sent_at + max(request.timeout, JOIN_TIMEOUT_EXTENSION)
    )
