"""The errors of failed attempts, broken sockets, and closing."""

from __future__ import annotations

import asyncio
import email.utils
import ssl
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from supabase_rt import ConnectionFailed, ConnectionLost
from supabase_rt._connection.transport import Transport, connection_failed
from supabase_rt._runtime.http_session import TransportOptions
from supabase_rt.server import LocalRealtime

from ...support.clients import MakeClient
from ...support.peers import RawPeer, closed_port, http_peer, raw_peer
from ...support.recorder import ClientEvents
from ...support.waiting import our_tasks, until

CERTIFICATE = Path(__file__).parents[2] / "support" / "localhost.pem"
"""A self-signed certificate of localhost, valid until 2126."""


async def failure(make_client: MakeClient, url: str | None = None, **options: Any) -> Any:
    """Returns the exception of ``await client.connect()``, after which nothing is left running."""
    client = make_client(url, **options)
    with pytest.raises(ConnectionFailed) as caught:
        await client.connect()
    assert our_tasks() == []
    assert client.connection_state() == "closed"
    return caught.value


# -- failed attempts ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "retryable"),
    [(401, False), (403, False), (404, False), (429, True), (500, True), (503, True), (302, False)],
)
async def test_a_refused_handshake_has_status_hint_and_whether_to_retry(
    server: LocalRealtime, make_client: MakeClient, status: int, retryable: bool
) -> None:
    server.faults.refuse(status)
    error = await failure(make_client)
    assert error.status == status
    assert error.retryable is retryable
    assert error.hint
    assert f"HTTP {status}" in str(error)
    assert error.__cause__ is None


async def test_a_wrong_key_is_refused(make_client: MakeClient) -> None:
    error = await failure(make_client, params={"apikey": "eyJwrong.wrong.wrong"})
    assert error.status == 401
    assert not error.retryable
    assert "wrong" not in str(error)


@pytest.mark.conformance("LC12", "RT1")
async def test_nobody_listens_on_the_port(make_client: MakeClient) -> None:
    port = closed_port()
    error = await failure(make_client, f"ws://127.0.0.1:{port}/realtime/v1")
    assert isinstance(error.__cause__, OSError)
    assert f"127.0.0.1:{port}" in str(error)
    assert "Connection refused" in str(error)
    assert error.retryable
    assert "is the server running" in error.hint


async def test_the_host_does_not_exist(make_client: MakeClient) -> None:
    error = await failure(make_client, "ws://no-such-host.invalid/realtime/v1")
    assert error.code == "DNSError"
    assert error.retryable
    assert "no-such-host.invalid" in str(error)


async def test_the_connection_is_dropped_in_the_handshake(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    server.faults.refuse(0)
    error = await failure(make_client)
    assert error.retryable
    assert "cannot connect" in str(error)


async def test_no_answer_to_the_handshake(server: LocalRealtime, make_client: MakeClient) -> None:
    server.faults.stall(handshakes=True)
    error = await failure(make_client, timeout=0.05)
    assert error.code == "ConnectTimeout"
    assert "within 0.05 s" in str(error)


async def test_no_websocket_at_all(make_client: MakeClient) -> None:
    async with http_peer(status=200, body="hello") as peer:
        error = await failure(make_client, peer.url)
    assert error.status == 200


async def test_no_http_at_all(make_client: MakeClient) -> None:
    async def script(peer: RawPeer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        peer.writer.write(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")

    async with raw_peer(script) as url:
        error = await failure(make_client, url)
    assert error.code == "NotHTTP"
    assert error.hint
    # aiohttp calls it a 400, but no server refused: the next attempt may reach one.
    assert error.retryable
    assert error.status is None


def server_tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    return context


async def upgrade_only(peer: RawPeer) -> None:
    await peer.handshake()
    await peer.eof()


@pytest.mark.loop_errors("the server's side of a handshake that we refuse")
async def test_a_certificate_that_nobody_vouches_for(make_client: MakeClient) -> None:
    async with raw_peer(upgrade_only, ssl=server_tls()) as url:
        error = await failure(make_client, url.replace("ws:", "wss:"))
    assert error.code == "CertificateError"
    assert "signed certificate" in str(error)
    assert not error.retryable
    assert "pass ssl=" in error.hint


async def test_a_certificate_that_the_users_context_knows(make_client: MakeClient) -> None:
    context = ssl.create_default_context(cafile=CERTIFICATE)
    async with raw_peer(upgrade_only, ssl=server_tls()) as url:
        client = make_client(url.replace("ws:", "wss:"), ssl=context)
        await client.connect()
        assert client.is_connected()
        await client.disconnect()


async def test_tls_on_a_port_without_it(server: LocalRealtime, make_client: MakeClient) -> None:
    error = await failure(make_client, server.ws_url.replace("ws:", "wss:"))
    assert error.code == "TLSError"
    assert "not permitted" not in str(error)
    assert "use ws:// or http://" in error.hint


async def test_a_proxy_that_refuses(make_client: MakeClient) -> None:
    async with http_peer(status=407) as peer:
        proxy = peer.url.replace("//", "//user:letmein@")
        plain = await failure(make_client, proxy=proxy)
        tls = await failure(make_client, "wss://realtime.invalid/realtime/v1", proxy=proxy)
    assert plain.status == tls.status == 407
    assert str(tls).startswith("the proxy before wss://realtime.invalid")
    assert "letmein" not in f"{plain!r}{tls!r}{plain}{tls}"
    asked = [request["headers"].get("Proxy-Authorization") for request in peer.requests]
    assert all(value and value.startswith("Basic") for value in asked)


async def test_a_proxy_that_is_not_there(server: LocalRealtime, make_client: MakeClient) -> None:
    error = await failure(make_client, proxy=f"http://user:letmein@127.0.0.1:{closed_port()}")
    assert isinstance(error.__cause__, OSError)
    assert "letmein" not in f"{error}{error.__cause__}"


async def test_an_address_that_aiohttp_will_not_have() -> None:
    error = connection_failed(aiohttp.InvalidUrlClientError("ws://?secret"), "ws://host", 1.0)
    assert error.code == "InvalidURL"
    assert not error.retryable
    assert "secret" not in str(error)


async def test_a_key_with_every_kind_of_character_arrives_as_it_is(
    make_client: MakeClient,
) -> None:
    key = "a+b/c=d&e%20f?g#h i~'()"
    async with http_peer(status=403) as peer:
        await failure(make_client, peer.url, params={"apikey": key})
    assert peer.requests[0]["query"]["apikey"] == key


# -- a session of the user's -------------------------------------------------------------


@pytest.mark.conformance("realtime.configuration.custom_websocket_transport")
async def test_a_session_of_the_users_is_used_and_left_open(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    async with aiohttp.ClientSession(headers={"X-Mine": "yes"}) as session:
        client = make_client(session=session)
        await client.connect()
        await client.disconnect()
        assert not session.closed
        await client.connect()
        assert client.is_connected()
        await client.disconnect()
    error = await failure(make_client, session=session)
    assert error.code == "SessionClosed"
    assert not error.retryable


async def test_headers_and_the_key_as_a_header(make_client: MakeClient) -> None:
    async with http_peer(status=403) as peer:
        await failure(
            make_client,
            peer.url,
            params={"apikey": "the-key"},
            api_key_in="header",
            headers={"X-Mine": "yes"},
        )
    request = peer.requests[0]
    assert "apikey" not in request["query"]
    assert request["headers"]["x-api-key"] == "the-key"
    assert request["headers"]["X-Mine"] == "yes"


# -- a socket that breaks ----------------------------------------------------------------


async def broken(make_client: MakeClient, script: Any, **options: Any) -> ConnectionLost:
    """Returns the error that a link ended with; another link must follow."""
    connections: list[int] = []

    async def serve(peer: RawPeer) -> None:
        await peer.handshake()
        connections.append(1)
        if len(connections) == 1:
            await script(peer)
        await peer.eof()

    async with raw_peer(serve) as url:
        client = make_client(url, **options)
        events = ClientEvents(client)
        client.connect()
        await events.some("reconnected")
        assert client.is_connected()
        await client.disconnect()
    cause = events.of("reconnecting")[0][2]
    assert isinstance(cause, ConnectionLost)
    return cause


async def test_a_message_over_the_limit_ends_the_link(
    make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    async def script(peer: RawPeer) -> None:
        peer.text(b"x" * 2000)

    error = await broken(make_client, script, max_message_size=1000)
    assert error.close_code == 1009
    assert "max_message_size" in error.hint
    assert "broke" in caplog.text


async def test_a_bad_opcode_ends_the_link(make_client: MakeClient) -> None:
    async def script(peer: RawPeer) -> None:
        peer.frame(0x83, b"reserved")

    error = await broken(make_client, script)
    assert error.close_code == 1002


async def test_a_truncated_frame_ends_the_link(make_client: MakeClient) -> None:
    async def script(peer: RawPeer) -> None:
        peer.writer.write(bytes([0x81, 100]) + b"only a little")
        await peer.writer.drain()
        peer.writer.close()

    error = await broken(make_client, script)
    assert error.close_code == 1006


@pytest.mark.conformance("NE5")
async def test_an_end_without_a_close_frame_is_1006(make_client: MakeClient) -> None:
    async def script(peer: RawPeer) -> None:
        peer.writer.close()

    error = await broken(make_client, script)
    assert str(error) == "socket closed: 1006"


@pytest.mark.conformance("NE6")
async def test_a_close_frame_without_a_code(make_client: MakeClient) -> None:
    async def script(peer: RawPeer) -> None:
        peer.frame(0x88, b"")

    error = await broken(make_client, script)
    assert error.reason == ""


@pytest.mark.conformance("NE4")
async def test_the_reason_of_a_close_frame_is_kept(make_client: MakeClient) -> None:
    async def script(peer: RawPeer) -> None:
        peer.frame(0x88, (4001).to_bytes(2, "big") + b"because")

    error = await broken(make_client, script)
    assert (error.close_code, error.reason) == (4001, "because")
    assert str(error) == "socket closed: 4001 (because)"


async def test_a_ping_of_the_server_is_answered(make_client: MakeClient) -> None:
    got: list[bytes] = []

    async def serve(peer: RawPeer) -> None:
        await peer.handshake()
        peer.frame(0x89, b"")
        got.append(await peer.reader.readexactly(6))
        await peer.eof()

    async with raw_peer(serve) as url:
        client = make_client(url)
        await client.connect()
        await until(lambda: got)
        assert client.is_connected()
        await client.disconnect()
    assert got[0][:2] == b"\x8a\x80"  # a masked pong without a body


async def test_what_is_written_to_a_closed_socket_is_a_loss(server: LocalRealtime) -> None:
    async with aiohttp.ClientSession() as http:
        url = f"{server.ws_url}/websocket?apikey={server.anon_key}"
        transport = await Transport.open(http, url, "ws://host", TransportOptions())
        await transport.close()
        with pytest.raises(ConnectionLost):
            transport.write("text")
        with pytest.raises(ConnectionLost):
            transport.write(b"bytes")
        ended = await transport.pump(lambda data: None, lambda data: None)
        assert ended.close_code == 1000


async def test_a_binary_frame_is_handed_over_apart(make_client: MakeClient) -> None:
    async def serve(peer: RawPeer) -> None:
        await peer.handshake()
        peer.frame(0x82, b"\x00")
        peer.text(b"\x00")
        await peer.eof()

    seen: list[tuple[str, bytes]] = []
    async with raw_peer(serve) as url, aiohttp.ClientSession() as http:
        transport = await Transport.open(http, url, "ws://host", TransportOptions())
        pump = asyncio.create_task(
            transport.pump(
                lambda data: seen.append(("text", data)),
                lambda data: seen.append(("binary", data)),
            )
        )
        await until(lambda: len(seen) == 2)
        transport.give_up_on(ConnectionLost("enough"))
        await transport.close()
        assert str(await pump) == "enough"
    assert seen == [("binary", b"\x00"), ("text", b"\x00")]


@pytest.mark.conformance("SA1", "RT2")
async def test_a_peer_that_does_not_answer_the_close_is_left(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    client = make_client()
    await client.connect()
    server.faults.stall()
    started = time.monotonic()
    assert await client.disconnect() == "ok"
    assert time.monotonic() - started < 4
    assert our_tasks() == []
    server.faults.resume()


# -- the server's clock ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "offset"),
    [
        pytest.param(3600.0, 3600.0, id="an hour ahead"),
        pytest.param(0.0, 0.0, id="right"),
        pytest.param("the day after tomorrow", 0.0, id="no date"),
        pytest.param("", 0.0, id="no header"),
    ],
)
async def test_the_servers_clock_counts_where_ours_is_clearly_wrong(
    header: str | float, offset: float
) -> None:
    if isinstance(header, float):
        header = email.utils.formatdate(time.time() + header, usegmt=True)

    async def serve(peer: RawPeer) -> None:
        await peer.handshake(f"Date: {header}\r\n".encode() if header else b"")
        await peer.eof()

    async with raw_peer(serve) as url, aiohttp.ClientSession() as http:
        transport = await Transport.open(http, url, "ws://host", TransportOptions())
        assert transport.unix_time() - time.time() == pytest.approx(offset, abs=30)
        await transport.close()


# -- a peer that does not read -----------------------------------------------------------


async def test_a_socket_that_cannot_even_take_the_close_frame_is_dropped(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supabase_rt._connection.transport.CLOSE_TIMEOUT", 0.05)
    first_ended = asyncio.Event()
    read = asyncio.Event()
    connections: list[int] = []

    async def serve(peer: RawPeer) -> None:
        await peer.handshake()
        connections.append(1)
        if len(connections) > 1:
            await peer.eof()
            return
        await read.wait()
        while await peer.reader.read(65536):
            pass
        first_ended.set()

    async with raw_peer(serve) as url:
        client = make_client(url, heartbeat_interval=0.1)
        events = ClientEvents(client)
        await client.connect()
        for _ in range(64):
            client.push({"topic": "t", "event": "e", "payload": "x" * 2**20, "ref": None})
        await events.some("reconnected")
        assert isinstance(events.of("reconnecting")[0][2], ConnectionLost)
        read.set()
        await asyncio.wait_for(first_ended.wait(), 2)
        await client.disconnect()
