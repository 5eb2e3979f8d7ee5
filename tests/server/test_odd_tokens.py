"""Malicious tokens: each is refused as a token, and has no other effect."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any

import aiohttp
import pytest

from supabase_rt.server import LocalRealtime
from supabase_rt.server.tokens import MAX_TOKEN, TokenError, Tokens

from .kit import START, World, wire

SECRET = "a secret that only this test knows, long enough"
FIELDS = "Fields `role` and `exp` are required in JWT"
MALFORMED = "The token provided is not a valid JWT"
NESTED = "[" * 20_000
WHEN = str(START + 60)


def part(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def signed(payload: str, header: str = '{"alg":"HS256","typ":"JWT"}') -> str:
    """Returns a signed token with this text as its payload."""
    text = f"{part(header)}.{part(payload)}"
    mark = hmac.new(SECRET.encode(), text.encode(), hashlib.sha256).digest()
    return f"{text}.{base64.urlsafe_b64encode(mark).rstrip(b'=').decode()}"


def exp(value: str) -> str:
    return signed(f'{{"role":"anon","exp":{value}}}')


def unsigned(header: str) -> str:
    return f"{part(header)}.e30.e30"


ODD: dict[str, tuple[str, str]] = {
    "exp -Infinity": (exp("-Infinity"), FIELDS),
    "exp Infinity": (exp("Infinity"), FIELDS),
    "exp NaN": (exp("NaN"), FIELDS),
    "exp -1e400": (exp("-1e400"), FIELDS),
    "exp 1e400": (exp("1e400"), FIELDS),
    "exp -10^400": (exp("-1" + "0" * 400), "Token has expired"),
    "exp -10^5000": (exp("-1" + "0" * 5000), MALFORMED),
    "exp -1e308": (exp("-1e308"), "Token has expired"),
    "exp as text": (exp('"x"'), FIELDS),
    "exp true": (exp("true"), FIELDS),
    "exp list": (exp("[1]"), FIELDS),
    "exp null": (exp("null"), FIELDS),
    "role list": (signed(f'{{"role":["anon"],"exp":{WHEN}}}'), FIELDS),
    "role number": (signed(f'{{"role":5,"exp":{WHEN}}}'), FIELDS),
    "role object": (signed(f'{{"role":{{"a":1}},"exp":{WHEN}}}'), FIELDS),
    "iat Infinity": (
        signed(f'{{"role":"anon","exp":{WHEN},"iat":-Infinity}}'),
        "Unknown Error on Channel",
    ),
    "a list": (signed("[1,2]"), MALFORMED),
    "a number": (signed("7"), MALFORMED),
    "nested payload": (signed(NESTED), MALFORMED),
    "nested header": (unsigned(NESTED), MALFORMED),
    "alg list": (unsigned('{"alg":["HS256"]}'), "Failed to generate JWT signer"),
    "alg object": (unsigned('{"alg":{}}'), "Failed to generate JWT signer"),
    "alg number": (unsigned('{"alg":5}'), "Failed to generate JWT signer"),
    "kid list": (unsigned('{"alg":"RS256","kid":[1]}'), MALFORMED),
    "long": ("a" * (MAX_TOKEN + 1), MALFORMED),
    "long header": (unsigned("[" + "[]," * 1_000_000 + "0]"), MALFORMED),
    "nul": ("a\0.b.c", MALFORMED),
    "half a character": ("\udc80.b.c", MALFORMED),
}


@pytest.mark.parametrize("case", list(ODD))
def test_an_odd_token_is_a_token_error(case: str) -> None:
    token, message = ODD[case]
    with pytest.raises(TokenError) as caught:
        Tokens(SECRET).verify(token, START)
    assert str(caught.value).startswith(message)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("value", ["1" + "0" * 400, "1e300"])
def test_a_token_for_ever_is_good(value: str) -> None:
    assert Tokens(SECRET).verify(exp(value), START).exp == 1e12


def test_white_space_around_a_token_is_not_kept() -> None:
    world = World()
    token = world.token()
    padded = " " * 50_000 + "\n".join(token[at : at + 20] for at in range(0, len(token), 20))
    assert world.backend.tokens.verify(padded, world.now).text == token
    client = world.client(token=token)
    client.join(postgres_changes=[{"table": "t"}])
    # The channel has this token already, so it does not subscribe again.
    assert client.push("realtime:room", "access_token", {"access_token": padded}) == []


def test_a_claim_with_half_a_character_stops_no_change() -> None:
    from supabase_rt.server._tables.table_writer import Publisher
    from supabase_rt.server._tables.tables import Table

    world = World()
    rows = Publisher(world.backend.tables)
    seen = lambda claims, row: claims.get("sub") != "nobody"  # noqa: E731
    rows.declare(Table("public", "t", {"id": "int8"}, ("id",), "default", True, seen))
    for sub in ("\ud800", "someone"):
        client = world.client()
        client.join(token=world.token("authenticated", sub=sub), postgres_changes=[{"table": "t"}])
    rows.insert("public", "t", {"id": 1})
    assert [client.events()[-1] for client in world.clients] == ["postgres_changes"] * 2
    json.dumps([channel.describe() for channel in world.clients[0].session.channels.values()])


@pytest.mark.parametrize("case", ["exp -Infinity", "exp -10^400", "role list", "nested header"])
async def test_the_handshake_the_socket_and_http_answer_an_odd_token(case: str) -> None:
    token, _ = ODD[case]
    if len(token) > 6000:
        # The token is too long for a request line, so only a join can carry it.
        async with LocalRealtime(jwt_secret=SECRET) as server, wire(server) as client:
            join: dict[str, Any] = {"access_token": token, "config": {}}
            reply = await client.ask("1", "1", "realtime:room", "phx_join", join)
            assert reply[4]["status"] == "error"
            assert await client.beats()
        return
    async with (
        LocalRealtime(jwt_secret=SECRET) as server,
        aiohttp.ClientSession() as session,
        wire(server) as client,
    ):
        at = {"apikey": token, "vsn": "2.0.0"}
        async with session.get(f"{server.url}/socket/websocket", params=at) as response:
            assert response.status == 401
        headers = {"Authorization": f"Bearer {token}"}
        body = {"messages": [{"topic": "a", "event": "b", "payload": {}}]}
        url = f"{server.url}/api/broadcast"
        async with session.post(url, json=body, headers=headers) as response:
            assert response.status == 401
        for path in ("/rest/v1/t", "/rest/v1/t?select=id"):
            async with session.get(server.url + path, headers=headers) as response:
                assert response.status == 401
        join = {"access_token": token, "config": {}}
        reply = await client.ask("1", "1", "realtime:room", "phx_join", join)
        assert reply[4]["status"] == "error"
        await client.join()
        await client.send("1", "2", "realtime:room", "access_token", {"access_token": token})
        assert [(await client.recv())[3] for _ in range(2)] == ["system", "phx_close"]
        assert await client.beats()


def test_a_long_token_is_refused_before_it_is_read() -> None:
    token = unsigned("[" + "[]," * 1_500_000 + "0]")
    started = time.perf_counter()
    with pytest.raises(TokenError):
        Tokens(SECRET).verify(token, START)
    assert time.perf_counter() - started < 0.05
