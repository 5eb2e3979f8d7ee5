from __future__ import annotations

import pytest

from supabase_rt._protocol.channel.join_timeout import join_deadline
from supabase_rt._protocol.requests import Request, RequestKind
from supabase_rt._protocol.shared_state import SharedState


@pytest.mark.parametrize(
    ("timeout", "heard", "deadline"),
    [
        (10.0, 0.0, 110.0),
        (10.0, 100.0, 110.0),
        (10.0, 105.0, 115.0),
        (10.0, 119.0, 129.0),
        (10.0, 125.0, 130.0),
        (10.0, 500.0, 130.0),
        (45.0, 100.0, 145.0),
        (45.0, 120.0, 145.0),
    ],
    ids=[
        "nothing heard",
        "heard before",
        "heard after",
        "heard again",
        "bounded by 30 s",
        "long after",
        "more patient than the bound",
        "not extended beyond the bound",
    ],
)
def test_a_join_waits_from_the_last_frame_but_not_for_ever(
    timeout: float, heard: float, deadline: float
) -> None:
    context = SharedState(last_frame_at=heard)
    push = Request(None, RequestKind.JOIN, "phx_join", {}, timeout, sent_at=100.0)
    assert join_deadline(push, context) == deadline
