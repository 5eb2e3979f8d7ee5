"""No key, token or password is in a log, a warning, an error or a repr, after any failure."""

from __future__ import annotations

import asyncio
import logging
import ssl
import traceback
import warnings
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from supabase_rt import ConnectionFailed, RealtimeClient, RealtimeError, ReconnectPolicy
from supabase_rt import create_client as create
from supabase_rt.server import LocalRealtime
from supabase_rt.types import ChannelOptions

from ..support.clients import MakeClient
from ..support.peers import RawPeer, closed_port, http_peer, raw_peer
from ..support.recorder import ClientEvents, Statuses
from ..support.waiting import turns, until

CERTIFICATE = Path(__file__).parents[1] / "support" / "localhost.pem"
KEY = "plainkey1f9q-that-no-pattern-knows"
TOKEN = "plaintoken7k2z-that-no-pattern-knows"
PASSWORD = "letmein5x8w"
ONCE = ReconnectPolicy(initial_backoff=0.01, jitter=0.0, max_attempts=1)
PARAMS = {"apikey": KEY, "extra": "ok"}
MESSAGE = {"type": "broadcast", "event": "x", "payload": {}}


class Told:
    """Collects everything that a user, a log file or a crash report can show."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self.secrets = [KEY, TOKEN, PASSWORD]
        self.lines: list[Any] = []
        self._caplog = caplog
        self._seen: list[Any] = []
        self._events: list[ClientEvents] = []

    def see(self, *found: Any) -> None:
        self._seen.extend(found)

    def watch(self, client: RealtimeClient) -> RealtimeClient:
        self._events.append(ClientEvents(client))
        self.see(client)
        return client

    def logger(self, *args: Any) -> None:
        self.lines.append(args)

    def texts(self) -> list[str]:
        found = [self._caplog.text, repr(self.lines)]
        found += [repr(vars(record)) for record in self._caplog.records]
        for value in self._seen:
            found += _shown(value)
        for events in self._events:
            for _, args in events.seen:
                for value in args:
                    found += _shown(value)
        return found

    def check(self) -> None:
        for text in self.texts():
            for secret in self.secrets:
                # The text itself is kept out of the failure: it may be very long.
                if secret in text:
                    at = text.index(secret)
                    raise AssertionError(f"a secret was told: ...{text[max(0, at - 200) : at]}")


def _shown(value: Any, seen: tuple[Any, ...] = ()) -> list[str]:
    found = [repr(value), str(value)]
    if isinstance(value, RealtimeClient):
        found += [repr(part) for part in (value.health(), value.channels, value._parts)]
        found += [repr(value._parts.http_client), repr(value._parts.http_client.options)]
    if isinstance(value, BaseException) and not any(value is each for each in seen):
        found += traceback.format_exception(value)
        found += [repr(vars(value)), repr(value.args)]
        for other in (value.__cause__, value.__context__):
            found += _shown(other, (*seen, value))
    return found


@pytest.fixture
async def told(caplog: pytest.LogCaptureFixture) -> AsyncIterator[Told]:
    """Checks at the end, so every scenario below only has to cause output."""
    caplog.set_level(logging.DEBUG)
    found = Told(caplog)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        yield found
        await turns()
    found.see(*(each.message for each in warned))
    found.check()


@pytest.fixture
async def make(told: Told) -> AsyncIterator[MakeClient]:
    """Makes clients that use the distinctive key, log everything and are watched."""
    made: list[RealtimeClient] = []

    def one(url: str, **options: Any) -> RealtimeClient:
        options = {"params": PARAMS, "timeout": 2.0, "reconnect": ONCE, **options}
        made.append(told.watch(RealtimeClient(url, logger=told.logger, **options)))
        return made[-1]

    yield one
    for client in made:
        await client.disconnect()
        told.see(client)


async def raised(work: Any, told: Told, kind: type[BaseException] = RealtimeError) -> Any:
    with pytest.raises(kind) as caught:
        await work
    told.see(caught.value)
    return caught.value


def raised_at(call: Callable[[], Any], told: Told) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        call()
    told.see(caught.value)


async def fail_everywhere(make: MakeClient, told: Told, url: str, **options: Any) -> None:
    """Causes the same failure in four ways: awaited, entered, in the background, and on a
    channel."""
    await raised(make(url, **options).connect(), told)
    await raised(make(url, timeout=0.3, **options).__aenter__(), told)
    await raised(make(url, **options).run_forever(), told)
    client, statuses = make(url, **options), Statuses()
    client.set_auth(TOKEN)
    subscribing = client.channel("room").subscribe(statuses, timeout=0.3)
    told.see(subscribing)
    await raised(subscribing, told)
    await raised(client.wait_closed(), told)
    told.see(*statuses.errors)


# -- the check itself --------------------------------------------------------------------


@pytest.mark.tells_secrets("on purpose")
@pytest.mark.parametrize("where", ["log", "cause", "context", "attribute", "logger", "warning"])
async def test_the_check_finds_a_secret(caplog: pytest.LogCaptureFixture, where: str) -> None:
    told, error = Told(caplog), ConnectionFailed("outer")
    if where == "log":
        logging.getLogger("x").error("the key %s", KEY)
    elif where == "cause":
        error.__cause__ = ValueError(KEY)
    elif where == "context":
        error.__context__ = ValueError(TOKEN)
        error.__suppress_context__ = True
    elif where == "attribute":
        error.hint = PASSWORD
    elif where == "logger":
        told.logger("push", {"token": TOKEN})
    else:
        told.see(UserWarning(KEY))
    told.see(error)
    with pytest.raises(AssertionError, match="a secret was told"):
        told.check()


# -- when all goes well ------------------------------------------------------------------


@pytest.mark.parametrize("key_in", ["url", "header"])
async def test_a_session_that_goes_well(
    server: LocalRealtime, make: MakeClient, told: Told, key_in: str
) -> None:
    first, second = server.token(sub="one"), server.token(sub="two")
    told.secrets += [server.anon_key, first, second, *first.split(".")[1:]]
    client = make(server.ws_url, params={"apikey": server.anon_key}, api_key_in=key_in)
    client.set_auth(first)
    statuses = Statuses()
    options: ChannelOptions = {
        "config": {"private": True, "broadcast": {"ack": True, "self": True}}
    }
    channel = client.channel("room", options).on("broadcast", {"event": "*"}, told.see)
    await channel.subscribe(statuses)
    told.see(channel, client.set_auth(second))
    await until(lambda: any(each.event == "access_token" for each in server.received))
    told.see(channel.send(MESSAGE), channel.track({"n": 1}), channel.http_send("x", {}))
    await client.send_heartbeat()
    server.faults.cut()
    await statuses.are("SUBSCRIBED", "CHANNEL_ERROR", "SUBSCRIBED")
    told.see(client, channel, *statuses.errors, server.received and client.health())
    told.see(await client.remove_all_channels())
    assert told.lines


async def test_the_url_of_the_endpoint_is_the_one_place_with_the_key(told: Told) -> None:
    client = told.watch(RealtimeClient("wss://x.supabase.co/realtime/v1", params=PARAMS))
    assert KEY in client.endpoint_url()
    client.set_auth(TOKEN)
    assert client.access_token_value == TOKEN
    told.see(client.channel("room"), client.channel("room").params, client._endpoint)
    supabase = create(f"https://user:{PASSWORD}@x.supabase.co", KEY)
    told.see(supabase, supabase.realtime, supabase.channel("room"))


# -- handshakes that fail ----------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500])
async def test_a_refused_handshake(make: MakeClient, told: Told, status: int) -> None:
    async with http_peer(status=status, body='{"message": "no"}') as peer:
        await fail_everywhere(make, told, f"{peer.url}/realtime/v1")
        assert all(request["query"]["apikey"] == KEY for request in peer.requests)


async def test_a_redirect_with_the_whole_query(make: MakeClient, told: Told) -> None:
    async with http_peer(status=404) as other:
        target = {"Location": f"{other.url}/moved?apikey={KEY}"}
        async with http_peer(status=302, headers=target) as peer:
            await fail_everywhere(make, told, f"{peer.url}/realtime/v1")


@pytest.mark.parametrize("location", ["", "http://[", f"ftp://user:{PASSWORD}@x/?apikey={KEY}"])
async def test_a_redirect_to_nowhere(make: MakeClient, told: Told, location: str) -> None:
    async with http_peer(status=302, headers={"Location": location}) as peer:
        await fail_everywhere(make, told, f"{peer.url}/realtime/v1")


async def test_a_redirect_in_a_circle(make: MakeClient, told: Told) -> None:
    async with http_peer(status=307) as peer:
        peer.headers["Location"] = f"{peer.url}/again?apikey={KEY}"
        await raised(make(peer.url).connect(), told)


async def test_nobody_there_or_no_such_host(make: MakeClient, told: Told) -> None:
    await fail_everywhere(make, told, f"ws://user:{PASSWORD}@127.0.0.1:{closed_port()}/v1")
    await raised(make(f"ws://user:{PASSWORD}@realtime.invalid").connect(), told)


async def test_no_answer(make: MakeClient, told: Told) -> None:
    async with http_peer(hang=True) as peer:
        await raised(make(peer.url, timeout=0.05).connect(), told)


async def test_a_peer_that_speaks_no_websocket(make: MakeClient, told: Told) -> None:
    async def garbage(peer: RawPeer) -> None:
        request = await peer.reader.readuntil(b"\r\n\r\n")
        peer.writer.write(b"\x00" + request)
        await peer.writer.drain()

    async with raw_peer(garbage) as url:
        await fail_everywhere(make, told, url)


@pytest.mark.loop_errors("the server's side of a handshake that we refuse")
async def test_tls_that_fails(make: MakeClient, told: Told) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)

    async def never(peer: RawPeer) -> None:
        await peer.eof()

    async with raw_peer(never, ssl=context) as url:
        await fail_everywhere(make, told, url.replace("ws:", "wss:"))
    async with http_peer() as peer:
        await raised(make(peer.url.replace("http:", "wss:")).connect(), told)


@pytest.mark.parametrize("target", ["ws://realtime.invalid", "wss://realtime.invalid"])
async def test_a_proxy_with_a_password(make: MakeClient, told: Told, target: str) -> None:
    gone = f"http://user:{PASSWORD}@127.0.0.1:{closed_port()}"
    await fail_everywhere(make, told, target, proxy=gone)
    async with http_peer(status=407) as peer:
        proxy = peer.url.replace("//", f"//user:{PASSWORD}@")
        await fail_everywhere(make, told, target, proxy=proxy)
        client = make(target, proxy=proxy)
        await raised(client.channel("room").http_send("x", {}), told)
        assert await client.channel("room").send(MESSAGE) == "error"


# -- joins and tokens --------------------------------------------------------------------


@pytest.mark.parametrize("token", [TOKEN, f"{TOKEN}.{TOKEN}.{TOKEN}", "expired", "forged"])
async def test_a_join_with_a_bad_token(
    server: LocalRealtime, make: MakeClient, told: Told, token: str
) -> None:
    if token == "expired":
        token = server.token(expires_in=-5)
    elif token == "forged":
        token = server.token()[:-8] + "AAAAAAAA"
    told.secrets += [server.anon_key, token]
    client, statuses = make(server.ws_url, params={"apikey": server.anon_key}), Statuses()
    client.set_auth(token)
    channel = client.channel("room", {"config": {"private": True}})
    await raised(channel.subscribe(statuses, timeout=0.5), told)
    told.see(channel, client, *statuses.errors)


async def test_a_join_that_is_refused(server: LocalRealtime, make: MakeClient, told: Told) -> None:
    told.secrets.append(server.anon_key)
    client, statuses = make(server.ws_url, params={"apikey": server.anon_key}), Statuses()
    client.set_auth(server.anon_key)
    server.faults.refuse_next_join("Unauthorized: You do not have permissions to read", count=9)
    await raised(client.channel("room").subscribe(statuses), told)
    told.see(client, *statuses.errors)


async def test_a_token_that_expires_while_joined(
    server: LocalRealtime, make: MakeClient, told: Told
) -> None:
    token = server.token(sub="soon")
    told.secrets += [server.anon_key, token]
    client = make(server.ws_url, params={"apikey": server.anon_key})
    channel = await client.channel("room").subscribe()
    client.set_auth(token)
    bad = f"{token}AAAA"
    client.set_auth(bad)
    await until(lambda: channel.state != "joined")
    told.see(client, channel)


@pytest.mark.parametrize("answer", [f"{TOKEN}\n", f"{TOKEN}é", {"token": TOKEN}, TOKEN.encode()])
async def test_a_callback_that_returns_no_token(
    server: LocalRealtime, make: MakeClient, told: Told, answer: Any
) -> None:
    told.secrets.append(server.anon_key)
    client = make(server.ws_url, params={"apikey": server.anon_key}, access_token=lambda: answer)
    await client.channel("room").subscribe()
    await client.set_auth()


@pytest.mark.tells_secrets("the user's own exception, with its traceback")
async def test_a_callback_that_raises_with_the_token_in_its_text(
    server: LocalRealtime, make: MakeClient, told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    def callback() -> str:
        raise RuntimeError(f"no luck with {TOKEN}")

    told.secrets.append(server.anon_key)
    client = make(server.ws_url, params={"apikey": server.anon_key}, access_token=callback)
    await client.channel("room").subscribe()
    await client.set_auth()
    # The traceback is the user's own text and is logged as such; ours must not repeat it.
    assert any(record.exc_info for record in caplog.records)
    assert all(TOKEN not in record.getMessage() for record in caplog.records)
    caplog.clear()


@pytest.mark.parametrize("token", [f"{TOKEN}\r\nX-Evil: 1", f"{TOKEN}ü", TOKEN.encode(), [TOKEN]])
def test_set_auth_of_what_is_no_token(caplog: pytest.LogCaptureFixture, token: Any) -> None:
    told = Told(caplog)
    client = told.watch(RealtimeClient("wss://x.supabase.co/realtime/v1", params=PARAMS))
    raised_at(lambda: client.set_auth(token), told)
    told.check()


@pytest.mark.parametrize(
    "key", [f"{KEY}\n", f"{KEY}ü", "eyJhbGciOi.eyJyb2xlIjoi.plainsig", "sb_secret_plainsig99"]
)
def test_arguments_that_cannot_be(caplog: pytest.LogCaptureFixture, key: str) -> None:
    told = Told(caplog)
    told.secrets += [key, "plainsig"]
    url = f"ftp://user:{PASSWORD}@x.supabase.co/?apikey={KEY}"
    raised_at(lambda: create(url, KEY), told)
    raised_at(lambda: RealtimeClient(url, params={"apikey": KEY}), told)
    raised_at(lambda: RealtimeClient(f"ws://user:{PASSWORD}@:x", params=PARAMS), told)
    raised_at(lambda: RealtimeClient("ws://x", params=PARAMS, accessToken=TOKEN), told)
    raised_at(lambda: RealtimeClient("ws://x", params=PARAMS, access_token=TOKEN), told)  # type: ignore[arg-type]
    raised_at(lambda: RealtimeClient("ws://x", params=PARAMS, headers={"a": f"{TOKEN}\n"}), told)
    if key.startswith(("eyJ", "sb_")):
        raised_at(lambda: create(key, "https://x.supabase.co"), told)
    else:
        raised_at(lambda: create("https://x.supabase.co", key), told)
    told.check()


# -- HTTP --------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 403, 404, 413, 422, 429, 500])
async def test_http_that_is_refused(make: MakeClient, told: Told, status: int) -> None:
    async with http_peer(status=status, body="<html>") as peer:
        client = make(peer.url)
        client.set_auth(TOKEN)
        channel = client.channel("room")
        await raised(channel.http_send("x", {}), told)
        assert await channel.send(MESSAGE) == "error"
        channel.http_send("x", {})
        await until(lambda: len(peer.requests) == 3)
        assert peer.requests[0]["headers"]["Authorization"] == f"Bearer {TOKEN}"
        await client.disconnect()


async def test_http_that_gets_no_answer(make: MakeClient, told: Told) -> None:
    gone = make(f"ws://user:{PASSWORD}@127.0.0.1:{closed_port()}")
    await raised(gone.channel("room").http_send("x", b"x"), told)
    assert await gone.channel("room").send(MESSAGE) == "error"
    async with http_peer(hang=True) as peer:
        channel = make(peer.url).channel("room")
        await raised(channel.http_send("x", {}, timeout=0.02), told)
        assert await channel.send(MESSAGE, timeout=0.02) == "timed out"
    async with http_peer(status=302) as peer:
        peer.headers["Location"] = f"{peer.url}/?apikey={KEY}"
        await raised(make(peer.url).channel("room").http_send("x", {}), told)


async def test_the_users_session_is_closed(make: MakeClient, told: Told) -> None:
    session = aiohttp.ClientSession(headers={"Authorization": TOKEN})
    await session.close()
    client = make("ws://127.0.0.1:1", session=session)
    error = await raised(client.channel("room").http_send("x", {}), told)
    assert error.code == "SessionClosed"
    assert await client.channel("room").send(MESSAGE) == "error"
    await raised(client.connect(), told)


# -- frames ------------------------------------------------------------------------------


async def test_frames_that_cannot_be_read(
    server: LocalRealtime, make: MakeClient, told: Told
) -> None:
    told.secrets.append(server.anon_key)
    client = make(server.ws_url, params={"apikey": server.anon_key})
    await client.channel("room").subscribe()
    for frame in (f"{{{TOKEN}", f'["{TOKEN}"]', b"\x04" + TOKEN.encode(), b"\xff"):
        server.faults.send_raw(frame)
    await until(lambda: client.health().decode_errors == 4)
    await asyncio.wait_for(client.disconnect(), 5)
