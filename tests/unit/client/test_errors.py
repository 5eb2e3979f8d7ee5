"""The exception tree, as users catch it."""

from __future__ import annotations

import copy
import pickle
import traceback
from typing import Any

import pytest

import supabase_rt
from supabase_rt import (
    AuthError,
    BindingMismatch,
    ConnectionFailed,
    ConnectionLost,
    DecodeError,
    GaveUp,
    InvalidState,
    RealtimeError,
    Refused,
    SendError,
    SubscribeError,
    TimedOut,
)

ALL = [
    RealtimeError,
    AuthError,
    BindingMismatch,
    ConnectionFailed,
    ConnectionLost,
    DecodeError,
    GaveUp,
    InvalidState,
    Refused,
    SendError,
    SubscribeError,
    TimedOut,
]


@pytest.mark.parametrize("kind", ALL)
def test_each_has_code_retryable_and_hint(kind: type[RealtimeError]) -> None:
    assert issubclass(kind, RealtimeError)
    error = kind("what happened")
    assert str(error) == "what happened"
    assert error.code == kind.__name__
    assert error.retryable is kind.retryable
    assert error.hint == ""
    assert not hasattr(error, "__notes__")
    assert getattr(supabase_rt, kind.__name__) is kind


@pytest.mark.parametrize("kind", ALL)
def test_what_is_given_wins(kind: type[RealtimeError]) -> None:
    error = kind("what happened", code="Word", retryable=not kind.retryable, hint="do this")
    assert (error.code, error.retryable, error.hint) == ("Word", not kind.retryable, "do this")
    assert "hint: do this" in "".join(traceback.format_exception(error))


def test_the_tree() -> None:
    for kind in (TimedOut, Refused, BindingMismatch):
        assert issubclass(kind, SubscribeError)
    assert issubclass(TimedOut, TimeoutError)
    for other in (ConnectionFailed, ConnectionLost, GaveUp, SendError, AuthError):
        assert not issubclass(other, SubscribeError)


def test_which_are_worth_another_try() -> None:
    assert {kind for kind in ALL if kind.retryable} == {ConnectionFailed, ConnectionLost, TimedOut}


@pytest.mark.parametrize(
    ("error", "fields"),
    [
        (ConnectionFailed("x", status=401), {"status": 401}),
        (ConnectionFailed("x"), {"status": None}),
        (ConnectionLost("x", close_code=1011, reason="y"), {"close_code": 1011, "reason": "y"}),
        (GaveUp("x", attempts=3), {"attempts": 3}),
        (SubscribeError("x", topic="realtime:a"), {"topic": "realtime:a"}),
        (TimedOut("x", topic="realtime:a"), {"topic": "realtime:a"}),
        (Refused("x", topic="t", response={"reason": "no"}), {"response": {"reason": "no"}}),
        (SendError("x", status=422), {"status": 422}),
    ],
)
def test_their_own_fields_survive_copying_and_pickling(
    error: RealtimeError, fields: dict[str, Any]
) -> None:
    for found in (error, copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(found) is type(error)
        assert str(found) == "x"
        assert {name: getattr(found, name) for name in fields} == fields
