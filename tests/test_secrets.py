"""No key, token or password of anybody's in a log, a repr, an exception or a warning."""

from __future__ import annotations

import asyncio
import gc
import logging
import traceback
import warnings
from typing import Any

import pytest

from supabase_rt import RealtimeClient, ReconnectPolicy, create_client
from supabase_rt.server import LocalRealtime

from .support.peers import RawPeer, closed_port, http_peer, raw_peer
from .support.waiting import turns, until

PASSWORD = "hunter2PASSWORDofTheProxy"
OPAQUE_KEY = "plainSECRETkeyWithoutAnyShape"
WRONG_KEY = "eyJhbGciOiJIUzI1NiJ9.eyJzZWNyZXQiOiJXUk9OR0tFWSJ9.WRONGkeySIGNATURE"
BAD_TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzZWNyZXQiOiJCQURUT0tFTiJ9.BADtokenSIGNATURE"


class Everything:
    """All that a user, a log collector or a bug tracker could get to see."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def note(self, *things: object) -> None:
        for thing in things:
            self.seen += [repr(thing), str(thing)]
            if isinstance(thing, BaseException):
                self._exception(thing)

    def _exception(self, error: BaseException) -> None:
        self.seen.append("".join(traceback.format_exception(error)))
        for other in (error.__cause__, error.__context__):
            if other is not None:
                self.note(other)
        self.seen += [repr(error.args), repr(vars(error)), *getattr(error, "__notes__", [])]

    def watch(self, client: RealtimeClient) -> None:
        client.on("error", lambda error, event, handler: self.note(error, event, handler))
        client.on("close", self.note)
        client.on("gave_up", self.note)
        client.on("reconnecting", lambda attempt, delay, cause: self.note(cause))
        core = client._core
        self.note(client, client.health(), core, core.rest, core.session.context)
        self.note(core.connection, core.connection._options, core.connection.tokens)

    async def failing(self, awaitable: Any) -> None:
        with pytest.raises(Exception) as caught:
            await awaitable
        self.note(caught.value)

    def log_record(self, record: logging.LogRecord) -> None:
        self.seen += [record.getMessage(), repr(record.args), repr(record.__dict__)]
        if record.exc_info and record.exc_info[1] is not None:
            self.note(record.exc_info[1])


@pytest.fixture
def everything(caplog: pytest.LogCaptureFixture) -> Everything:
    caplog.set_level(logging.DEBUG)
    return Everything()


def assert_clean(everything: Everything, caplog: pytest.LogCaptureFixture, *secrets: str) -> None:
    for record in caplog.records:
        everything.log_record(record)
    assert everything.seen
    for secret in secrets:
        # Parts count too: of a token it is the signature that must not be seen.
        for part in (secret, *secret.split(".")[1:]):
            found = [text for text in everything.seen if part in text]
            assert not found, f"{part} in {found[0][:2000]}"


def client_of(url: str, key: str, **options: Any) -> RealtimeClient:
    return RealtimeClient(
        url,
        params={"apikey": key},
        **{
            "timeout": 0.3,
            "reconnect": ReconnectPolicy(initial_backoff=0.01, jitter=0, max_attempts=1),
            **options,
        },
    )


async def test_good_handshakes_joins_and_tokens(
    server: LocalRealtime, everything: Everything, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = server.token(sub="first"), server.token(sub="second")
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        supabase = create_client(
            server.url,
            server.anon_key,
            realtime={"logger": lambda *args: everything.note(*args)},
        )
        everything.watch(supabase.realtime)
        everything.note(supabase)
        channel = supabase.channel("room", {"config": {"private": True}})
        supabase.realtime.set_auth(first)
        await channel.subscribe(everything.note)
        supabase.realtime.set_auth(second)
        await channel.send({"type": "broadcast", "event": "x", "payload": {}})
        await channel.http_send("x", {})
        server.faults.cut()
        await until(lambda: server.connections == 2)
        await channel
        everything.note(channel, channel.params)
        everything.watch(supabase.realtime)
        server.faults.phx_close("room", "Token has expired")
        await turns()
        await supabase.realtime.disconnect()
        gc.collect()
    everything.note(*warned)
    assert_clean(everything, caplog, server.anon_key, first, second)


async def test_failed_handshakes(
    server: LocalRealtime, everything: Everything, caplog: pytest.LogCaptureFixture
) -> None:
    async def reset(peer: RawPeer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")

    async def nonsense(peer: RawPeer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        peer.writer.write(b"HTTP/1.1 101 Switching\r\nUpgrade: nothing\r\n\r\n")

    async with (
        raw_peer(reset) as resetting,
        raw_peer(nonsense) as nonsensical,
        http_peer(status=200) as plain,
        http_peer(status=302, headers={"Location": "http://127.0.0.1:1/"}) as redirecting,
        http_peer(status=403, body=f"no {WRONG_KEY}") as refusing,
        http_peer(hang=True) as silent,
    ):
        urls = [server.ws_url, resetting, nonsensical, f"ws://127.0.0.1:{closed_port()}"]
        urls += [plain.url, redirecting.url, refusing.url, silent.url]
        urls += [server.ws_url.replace("ws:", "wss:"), "ws://no-such-host.invalid"]
        for key in (WRONG_KEY, OPAQUE_KEY):
            for url in urls:
                client = client_of(url, key)
                everything.watch(client)
                await everything.failing(client.connect())
                client.channel("room").subscribe(everything.note)
                await everything.failing(client.wait_closed())
                await everything.failing(client.__aenter__())
    assert_clean(everything, caplog, WRONG_KEY, OPAQUE_KEY)


async def test_proxies_with_passwords(
    server: LocalRealtime, everything: Everything, caplog: pytest.LogCaptureFixture
) -> None:
    async with http_peer(status=407) as proxy:
        proxies = [
            proxy.url.replace("//", f"//user:{PASSWORD}@"),
            f"http://user:{PASSWORD}@127.0.0.1:{closed_port()}",
            f"http://user:{PASSWORD}@no-such-host.invalid:1",
        ]
        for url in (server.ws_url, server.ws_url.replace("ws:", "wss:")):
            for each in proxies:
                client = client_of(url, OPAQUE_KEY, proxy=each)
                everything.watch(client)
                await everything.failing(client.connect())
                await everything.failing(client.channel("room").http_send("x", {}))
                everything.note(await client.channel("r").send({"type": "broadcast", "event": "x"}))
    assert_clean(everything, caplog, PASSWORD, OPAQUE_KEY)


async def test_passwords_in_the_url(
    everything: Everything, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"ws://user:{PASSWORD}@127.0.0.1:{closed_port()}/realtime/v1?token={OPAQUE_KEY}"
    client = client_of(url, OPAQUE_KEY)
    everything.watch(client)
    everything.note(client._endpoint, client.channel("room"))
    await everything.failing(client.connect())
    await everything.failing(client.channel("room").http_send("x", {}))
    for bad in (f"ftp://user:{PASSWORD}@x", f"ws://user:{PASSWORD}@", f"ws://u:{PASSWORD}@h:bad"):
        with pytest.raises(ValueError) as caught:
            RealtimeClient(bad, params={"apikey": OPAQUE_KEY})
        everything.note(caught.value)
    assert_clean(everything, caplog, PASSWORD, OPAQUE_KEY)


async def test_refused_joins_and_bad_tokens(
    server: LocalRealtime, everything: Everything, caplog: pytest.LogCaptureFixture
) -> None:
    expired = server.token(expires_in=-60)
    client = client_of(server.ws_url, server.anon_key, logger=lambda *args: everything.note(*args))
    everything.watch(client)
    for token in (BAD_TOKEN, expired, OPAQUE_KEY):
        client.set_auth(token)
        channel = client.channel(f"room-{len(everything.seen)}", {"config": {"private": True}})
        await everything.failing(_await(channel.subscribe(everything.note)))
        everything.note(channel)
    for bad in ("line\nbreak" + OPAQUE_KEY, "ümläut" + OPAQUE_KEY):
        with pytest.raises(ValueError) as caught:
            client.set_auth(bad)
        everything.note(caught.value)
        with pytest.raises(ValueError) as caught:
            RealtimeClient(server.ws_url, params={"apikey": bad})
        everything.note(caught.value)
    await client.disconnect()
    assert_clean(everything, caplog, BAD_TOKEN, expired, OPAQUE_KEY, server.anon_key)


async def test_callbacks_that_return_or_raise_tokens(
    server: LocalRealtime, everything: Everything, caplog: pytest.LogCaptureFixture
) -> None:
    for answer in ("bad\n" + OPAQUE_KEY, [OPAQUE_KEY], OPAQUE_KEY.encode()):
        client = client_of(server.ws_url, server.anon_key, access_token=lambda a=answer: a)
        everything.watch(client)
        await client.channel("room").subscribe()
        await client.disconnect()
    assert_clean(everything, caplog, OPAQUE_KEY, server.anon_key)


async def test_decoders_that_fail_on_a_frame_with_a_secret(
    server: LocalRealtime, everything: Everything, caplog: pytest.LogCaptureFixture
) -> None:
    client = client_of(server.ws_url, server.anon_key)
    everything.watch(client)
    channel = await client.channel("room").subscribe()
    for frame in (
        f'[null,null,"realtime:room","system",{{"access_token":"{OPAQUE_KEY}"',
        f'[null,null,"realtime:room","postgres_changes",{{"ids":"{OPAQUE_KEY}"}}]',
        f'["1","2","realtime:room","phx_reply",{{"status":5,"token":"{OPAQUE_KEY}"}}]',
    ):
        server.faults.send_raw(frame)
    await until(lambda: client.health().decode_errors == 3)
    everything.note(channel, client.health())
    await client.disconnect()
    assert_clean(everything, caplog, OPAQUE_KEY, server.anon_key)


async def test_a_client_that_is_dropped_without_a_word(
    everything: Everything, caplog: pytest.LogCaptureFixture
) -> None:
    async def upgrade(peer: RawPeer) -> None:
        await peer.handshake()
        await peer.eof()

    handler = asyncio.get_running_loop().get_exception_handler()
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: everything.note(context))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        async with raw_peer(upgrade) as url:
            client = client_of(url, OPAQUE_KEY)
            everything.watch(client)
            await client.connect()
            link = client._core.connection._link
            assert link is not None
            assert link.task is not None
            link.task.cancel()  # as asyncio.run does at its end
            await asyncio.wait([link.task])
            del client, link
            gc.collect()
    everything.note(*warned)
    asyncio.get_running_loop().set_exception_handler(handler)
    assert_clean(everything, caplog, OPAQUE_KEY)


async def _await(channel: Any) -> Any:
    return await channel
