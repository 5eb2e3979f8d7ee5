from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supabase_rt._wire.jwt_claims import check_token, expires_at, is_jwt


def part(value: Any) -> str:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).decode().rstrip("=")


def jwt(claims: Any, header: Any = None) -> str:
    return f"{part(header or {'alg': 'HS256'})}.{part(claims)}.c2lnbmF0dXJl"


GARBAGE = [
    None,
    7,
    b"a.b.c",
    "",
    "a.b",
    "a.b.c",
    "a.b.c.d",
    "sb_publishable_abc",
    f"{part({})}.{part({'exp': 1})}.",
    f"{part({})}. {part({'exp': 1})}.x",
    jwt([1]),
    jwt({"exp": 1}, header=[1]),
    jwt(b"\xff\xfe"),
    jwt(b"{"),
    f"A.{part({'exp': 1})}.x",
    jwt({"exp": 1}) + "\n",
]


@pytest.mark.parametrize("token", GARBAGE)
def test_garbage_is_no_jwt_and_has_no_expiry(token: Any) -> None:
    assert not is_jwt(token)
    assert expires_at(token) is None


@pytest.mark.parametrize("claims", [{}, {"exp": 1}, {"exp": 12, "text": "ü?>~"}])
def test_three_parts_with_two_objects_are_a_jwt(claims: dict[str, Any]) -> None:
    assert is_jwt(jwt(claims))


@pytest.mark.parametrize(("exp", "seconds"), [(1700000000, 1.7e9), (12.5, 12.5), (0, 0.0)])
def test_the_expiry_is_unix_time_in_seconds(exp: float, seconds: float) -> None:
    found = expires_at(jwt({"exp": exp}))
    assert found == seconds
    assert type(found) is float


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"exp": None},
        {"exp": "1700000000"},
        {"exp": True},
        {"exp": 10**400},
        b'{"exp": 1e999}',
        b'{"exp": NaN}',
    ],
)
def test_an_expiry_that_is_no_time_is_none(claims: Any) -> None:
    assert expires_at(jwt(claims)) is None


@given(st.text() | st.from_regex(r"\A[\w-]{0,9}\.[\w-]{0,40}\.[\w-]{0,9}\Z"))
def test_no_text_makes_it_raise(token: str) -> None:
    expires_at(token)
    is_jwt(token)


@pytest.mark.parametrize("token", ["", "a", jwt({"exp": 1}), "sb_publishable_abc"])
def test_a_token_that_fits_a_header_passes(token: str) -> None:
    check_token(token)


@pytest.mark.parametrize("token", [None, b"x", 7, ["x"]])
def test_a_token_that_is_no_text_is_a_type_error(token: Any) -> None:
    with pytest.raises(TypeError, match=f"a token is a str, not {type(token).__name__}"):
        check_token(token)


@pytest.mark.parametrize(
    "bad", ["\n", "\r\nX-Evil: 1", "\0", "\x7f", "\t", "\u2028", "é", "\ud800"]
)
def test_a_token_that_would_break_a_header_is_refused_and_not_shown(bad: str) -> None:
    with pytest.raises(ValueError, match="printable ASCII") as caught:
        check_token(f"secret{bad}")
    assert "secret" not in str(caught.value)
