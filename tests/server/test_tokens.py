"""Tokens: verification, expiry, and the effect of a new one on a channel."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import jwt
import pytest

from supabase_rt.server.tokens import Rights, TokenError, Tokens

from .kit import START, World, payload_of

TOPIC = "realtime:tok"
FIELDS = "Fields `role` and `exp` are required in JWT"
SIGNER = "Failed to generate JWT signer, check your JWT secret or JWKS configuration"
OTHER = Tokens("another-secret-of-at-least-32-bytes-")


def bad_tokens(tokens: Tokens) -> dict[str, tuple[str, str, str]]:
    """Returns tokens, each with the reason of the refused join and the system message."""
    good = {"role": "anon", "exp": START + 60}
    expired = tokens.mint({"role": "anon", "exp": START - 60})
    none = "eyJhbGciOiJub25lIn0.eyJyb2xlIjoiYW5vbiJ9."
    return {
        "expired": (
            expired,
            "InvalidJWTToken: Token has expired 60 seconds ago",
            "Token has expired 60 seconds ago",
        ),
        "malformed": (
            "not-a-jwt",
            "MalformedJWT: The token provided is not a valid JWT",
            "The token provided is not a valid JWT",
        ),
        "half a character": (
            "a.\ud800.c",
            "MalformedJWT: The token provided is not a valid JWT",
            "The token provided is not a valid JWT",
        ),
        "signature": (
            OTHER.mint(good),
            "JwtSignatureError: Failed to validate JWT signature",
            ":signature_error",
        ),
        "no role": (tokens.mint({"exp": START + 60}), f"InvalidJWTToken: {FIELDS}", FIELDS),
        "no exp": (tokens.mint({"role": "anon"}), f"InvalidJWTToken: {FIELDS}", FIELDS),
        "algorithm": (
            none,
            f"JwtSignerError: {SIGNER}",
            SIGNER,
        ),
        "odd iat": (
            tokens.mint({**good, "iat": "x"}),
            "UnknownErrorOnChannel: Unknown Error on Channel",
            "Unknown Error on Channel",
        ),
    }


@pytest.mark.parametrize("case", list(bad_tokens(Tokens())))
def test_a_bad_token_at_the_join_and_later(case: str) -> None:
    world = World()
    token, reason, system = bad_tokens(world.backend.tokens)[case]
    client = world.client()
    assert client.reason(TOPIC, token=token) == reason
    client.join(TOPIC)
    message, close = client.push(TOPIC, "access_token", {"access_token": token})
    assert message[4] == {
        "message": system,
        "status": "error",
        "extension": "system",
        "channel": "tok",
    }
    assert close == ["2", "2", TOPIC, "phx_close", {}]


def test_pushes_of_a_token_without_effect() -> None:
    world = World()
    token = world.token()
    client = world.client(token=token)
    client.join(TOPIC, postgres_changes=[{"table": "t"}])
    for payload in (
        {"access_token": 12345},
        {"access_token": None},
        {},
        "text",
        {"access_token": token},
        {"access_token": "sb_publishable_x"},
    ):
        assert client.push(TOPIC, "access_token", payload) == []


def test_which_token_a_join_uses() -> None:
    world = World()
    client = world.client(token=world.token())
    user = world.token("authenticated")
    client.push(
        TOPIC, "phx_join", {"config": {"private": True}, "user_token": user, "access_token": "x"}
    )
    assert TOPIC in client.session.channels
    assert client.reason("realtime:other", private=True, token="sb_secret").startswith("Unauth")


def test_a_token_expires_while_joined() -> None:
    world = World()
    client = world.client()
    client.join(TOPIC, token=world.token(expires_in=4))
    world.advance(3)
    assert client.heard() == []
    renewed = world.token(expires_in=5, n=1)
    assert client.push(TOPIC, "access_token", {"access_token": renewed}) == []
    world.advance(4)
    assert client.heard() == []
    world.advance(1)
    system, close = client.heard()
    assert payload_of(system)["message"] == "Token has expired 0 seconds ago"
    assert close[3] == "phx_close"
    assert client.session.channels == {}


def test_a_new_token_subscribes_again() -> None:
    world = World(resubscribe_delay=2.0, postgres_ready_delay=1.0)
    client = world.client()
    assert len(client.join(TOPIC, postgres_changes=[{"table": "t"}])) == 1
    world.advance(1)
    assert client.heard()[0][4]["message"] == "Subscribed to PostgreSQL"
    new = world.token("authenticated")
    assert client.push(TOPIC, "access_token", {"access_token": new}) == []
    world.advance(2)
    assert client.heard()[0][4]["message"] == "Subscribed to PostgreSQL"


@pytest.mark.parametrize(
    ("now", "presence", "message"),
    [
        (Rights.none(), True, "You do not have permissions to read from this Channel topic: tok"),
        (
            Rights(presence_read=False),
            True,
            "You no longer have permission to read from this Channel topic: tok",
        ),
        (
            Rights(broadcast_read=False),
            True,
            "You no longer have permission to read from this Channel topic: tok",
        ),
        (Rights(presence_read=False), False, None),
        (Rights.read(), True, None),
    ],
)
def test_rights_that_a_new_token_loses(now: Rights, presence: bool, message: str | None) -> None:
    def policy(role: str, claims: Mapping[str, Any], sub_topic: str) -> Rights:
        return Rights() if role == "authenticated" else now

    world = World(policy)
    client = world.client(token=world.token("authenticated"))
    client.join(TOPIC, private=True, presence={"enabled": presence})
    frames = client.push(TOPIC, "access_token", {"access_token": world.token("anon")})
    if message is None:
        assert frames == []
    else:
        assert frames[0][4]["message"] == message
        assert frames[1][3] == "phx_close"


def test_longer_signatures_are_read_with_a_secret_of_any_length() -> None:
    short = "a-secret-of-thirty-two-characters"
    for algorithm in ("HS384", "HS512"):
        with pytest.warns(jwt.InsecureKeyLengthWarning):
            text = jwt.encode({"role": "a", "exp": START + 9}, short, algorithm=algorithm)
        assert Tokens(short).verify(text, START).role == "a"
        with pytest.raises(TokenError, match="signature"):
            OTHER.verify(text, START)


def test_a_token_that_names_a_key_we_do_not_have() -> None:
    def part(found: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(found).encode()).decode().rstrip("=")

    claims = part({"role": "a", "exp": START + 9})
    cases = {"RS256": SIGNER.replace("signer,", 'signer for key ID (kid) "k1",'), "none": SIGNER}
    for algorithm, message in cases.items():
        text = f"{part({'alg': algorithm, 'kid': 'k1'})}.{claims}.c2ln"
        with pytest.raises(TokenError) as caught:
            Tokens().verify(text, START)
        assert caught.value.reason == f"JwtSignerError: {message}"
    # With a shared secret, the key id is ignored.
    shared = "a-secret-of-more-than-thirty-two-bytes"
    named = jwt.encode({"role": "a", "exp": START + 9}, shared, headers={"kid": "k1"})
    assert Tokens(shared).verify(named, START).role == "a"


def test_no_two_servers_have_a_secret_in_common() -> None:
    key = Tokens().mint({"role": "service_role", "exp": START + 9})
    published = "super-secret-jwt-token-with-at-least-32-characters-long"
    for stranger in (key, Tokens(published).mint({"role": "service_role", "exp": START + 9})):
        with pytest.raises(TokenError, match="Failed to validate JWT signature"):
            Tokens().verify(stranger, START)


def test_times_and_numbers_of_tokens() -> None:
    tokens = Tokens()
    short = tokens.verify(tokens.issue("anon", now=START, expires_in=0.5), START + 0.4)
    assert short.exp == START + 0.5
    with pytest.raises(TokenError, match="expired 0 seconds"):
        tokens.verify(short.text, START + 0.6)
    token = tokens.verify(tokens.issue("x", now=START, sub="me", email="e"), START)
    assert (token.role, token.claims["sub"], token.claims["email"]) == ("x", "me", "e")
    huge = tokens.verify(tokens.mint({"role": "x", "exp": 10**400}), START)
    assert huge.exp > START
    with pytest.raises(TokenError):
        tokens.verify(tokens.mint({"role": "x", "exp": float("nan")}), START)
    with pytest.raises(ValueError, match="32 bytes"):
        Tokens("short")
