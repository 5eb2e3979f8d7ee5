"""How long to wait while the server is busy with joins.

It decides joins one at a time and answers nothing else on the socket meanwhile (protocol
reference, section 1.9). So time runs from the last frame of the link, but not for ever.
"""

from __future__ import annotations

from ..requests import Request
from ..shared_state import SharedState

__all__ = ["JOIN_TIMEOUT_EXTENSION", "join_deadline"]

JOIN_TIMEOUT_EXTENSION = 30.0
"""Seconds that other joins may hold up an answer."""


def join_deadline(request: Request, context: SharedState) -> float:
    """When an unanswered join has been waited for long enough."""
    heard = max(request.sent_at, context.last_frame_at)
    return min(
        heard + request.timeout, request.sent_at + max(request.timeout, JOIN_TIMEOUT_EXTENSION)
    )
