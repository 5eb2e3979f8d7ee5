from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supabase_rt._protocol.outbox import Outbox
from supabase_rt._protocol.requests import (
    REQUEST_BUFFER_LIMIT,
    PendingRequests,
    Request,
    RequestBuffer,
    RequestKind,
)
from supabase_rt._protocol.token_bucket import TokenBucket


def push(
    kind: RequestKind = RequestKind.PUSH, event: str = "custom", timeout: float = 10.0
) -> Request:
    return Request("channel", kind, event, {"n": 1}, timeout, outcome=object())


# -- replies -----------------------------------------------------------------------------


def test_a_written_request_has_a_frame_a_ref_and_a_deadline() -> None:
    outbox = Outbox()
    replies, request = PendingRequests(outbox), push()
    replies.write(request, "7", "realtime:room", 100.0)
    (frame,) = outbox.pop_frames()
    found = frame.message
    assert (found.join_ref, found.ref, found.topic) == ("7", request.ref, "realtime:room")
    assert (found.event, found.payload, frame.outcome) == ("custom", {"n": 1}, None)
    assert outbox.deadlines.get(request) == 110.0
    assert (request.sent_at, list(replies), len(replies)) == (100.0, [request], 1)


def test_the_join_ref_of_a_join_is_its_own_ref() -> None:
    outbox = Outbox()
    replies, join = PendingRequests(outbox), push(RequestKind.JOIN, "phx_join")
    outbox.next_ref()
    replies.write(join, None, "realtime:room", 0.0)
    (frame,) = outbox.pop_frames()
    assert frame.message.join_ref == frame.message.ref == join.ref == "2"


@pytest.mark.conformance("PU18", "PC21", "PC23", "PC34")
def test_a_reply_takes_its_request_once() -> None:
    outbox = Outbox()
    replies, request = PendingRequests(outbox), push()
    replies.write(request, None, "realtime:room", 0.0)
    assert replies.pop(request.ref) is request
    assert replies.pop(request.ref) is None
    assert (len(replies), outbox.deadlines.next()) == (0, None)


@pytest.mark.parametrize("ref", [None, "999", 1], ids=["no ref", "foreign", "a number"])
def test_a_reply_with_another_ref_takes_nothing(ref: object) -> None:
    outbox = Outbox()
    replies = PendingRequests(outbox)
    replies.write(push(), None, "realtime:room", 0.0)
    assert replies.pop(ref) is None
    assert len(replies) == 1


def test_requests_may_be_taken_while_going_through_them() -> None:
    replies = PendingRequests(Outbox())
    for _ in range(3):
        replies.write(push(), None, "realtime:room", 0.0)
    for request in replies:
        replies.pop(request.ref)
    assert len(replies) == 0


def test_the_requests_of_one_channel_are_found_among_many() -> None:
    replies = PendingRequests(Outbox())
    requests = [Request(name, RequestKind.PUSH, "custom", {}, 10.0) for name in "abab"]
    for request in requests:
        replies.write(request, None, "realtime:room", 0.0)
    assert replies.of("a") == [requests[0], requests[2]]
    replies.pop(requests[0].ref)
    assert replies.of("a") == [requests[2]]
    replies.pop(requests[2].ref)
    assert (replies.of("a"), replies.of("b")) == ([], [requests[1], requests[3]])


# -- the buffer --------------------------------------------------------------------------


@pytest.mark.conformance("PC64")
def test_the_buffer_gives_requests_back_in_their_order_without_deadlines() -> None:
    outbox = Outbox()
    buffer, requests = RequestBuffer(outbox), [push() for _ in range(3)]
    for request in requests:
        assert buffer.add(request, 5.0) is None
    assert outbox.deadlines.get(requests[0]) == 15.0
    assert len(buffer) == 3
    assert buffer.pop_all() == requests
    assert (buffer.pop_all(), len(buffer), outbox.deadlines.next()) == ([], 0, None)


def test_of_150_requests_the_newest_100_are_kept_and_the_oldest_fall_out() -> None:
    outbox = Outbox()
    buffer, requests = RequestBuffer(outbox), [push() for _ in range(150)]
    dropped = [buffer.add(request, 0.0) for request in requests]
    assert REQUEST_BUFFER_LIMIT == len(buffer) == 100
    assert dropped == [None] * 100 + requests[:50]
    assert all(outbox.deadlines.get(request) is None for request in requests[:50])
    assert buffer.pop_all() == requests[50:]


def test_a_request_can_be_taken_out_of_the_buffer() -> None:
    outbox = Outbox()
    buffer, first, second = RequestBuffer(outbox), push(), push()
    buffer.add(first, 0.0)
    buffer.add(second, 0.0)
    buffer.remove(first)
    buffer.remove(first)
    assert outbox.deadlines.get(first) is None
    assert buffer.pop_all() == [second]


# -- the token bucket --------------------------------------------------------------------


def test_a_bucket_lets_a_burst_through_and_then_its_rate() -> None:
    bucket = TokenBucket(rate=50.0, burst=100.0)
    assert [bucket.acquire(10.0) for _ in range(101)] == [True] * 100 + [False]
    assert bucket.ready_at(10.0) == pytest.approx(10.02)
    assert bucket.acquire(10.019) is False
    assert [bucket.acquire(10.041) for _ in range(3)] == [True, True, False]


def test_a_bucket_never_holds_more_than_its_burst() -> None:
    bucket = TokenBucket(rate=1.0, burst=2.0)
    assert [bucket.acquire(1e6) for _ in range(3)] == [True, True, False]


def test_a_full_bucket_is_ready_at_once() -> None:
    assert TokenBucket(1.0, 1.0).ready_at(5.0) == 5.0


def test_time_going_backwards_gives_a_bucket_nothing() -> None:
    bucket = TokenBucket(rate=1.0, burst=1.0)
    assert bucket.acquire(100.0)
    assert not bucket.acquire(50.0)
    assert not bucket.acquire(100.5)


@given(st.floats(0, 1e7), st.lists(st.floats(0, 0.1), max_size=50))
def test_one_who_waits_until_the_bucket_says_ready_gets_a_token(
    start: float, steps: list[float]
) -> None:
    """Otherwise the timer would fire again and again in the same moment, with nothing to do."""
    bucket, now = TokenBucket(rate=50.0, burst=3.0), start
    for step in steps:
        while bucket.acquire(now):
            pass
        now = bucket.ready_at(now + step)
        assert bucket.acquire(now)
