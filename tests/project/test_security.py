"""The promises of docs/security.md besides secrecy: the hosts that are contacted, and the limits of
text."""

from __future__ import annotations

import ast
import ssl
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supabase_rt import RealtimeClient, RealtimeError, SendError
from supabase_rt._backfill.pages import BackfillPage
from supabase_rt._backfill.postgrest import read_rows
from supabase_rt._wire.urls import Endpoint

from ..support.peers import RawPeer, http_peer, raw_peer

PACKAGE = Path(__file__).parents[2] / "supabase_rt"
CERTIFICATE = Path(__file__).parents[1] / "support" / "localhost.pem"
DANGEROUS = {"eval", "exec", "compile", "__import__"}
UNPICKLERS = {"pickle", "marshal", "shelve", "dill", "yaml", "code", "codeop", "ctypes"}


# -- TLS: the socket's side is in test_transport.py ----------------------------------------


async def accepted(peer: RawPeer) -> None:
    """Runs an HTTP server with one fixed answer."""
    peer.request = await peer.reader.readuntil(b"\r\n\r\n")
    peer.writer.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    await peer.writer.drain()


@pytest.mark.loop_errors("the server's side of a handshake that we refuse")
async def test_http_goes_to_nobody_whose_certificate_is_not_vouched_for() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    seen: list[bytes] = []

    async def serve(peer: RawPeer) -> None:
        await accepted(peer)
        seen.append(peer.request)

    async with raw_peer(serve, ssl=context) as url:
        secure = url.replace("ws:", "wss:")
        doubting = RealtimeClient(secure, params={"apikey": "key"})
        with pytest.raises(SendError, match="issuer of the certificate") as caught:
            await doubting.channel("room").http_send("x", {})
        await doubting.disconnect()
        assert (caught.value.code, caught.value.retryable) == ("CertificateError", False)
        assert seen == []
        trusting = ssl.create_default_context(cafile=CERTIFICATE)
        client = RealtimeClient(secure, params={"apikey": "key"}, ssl=trusting)
        await client.channel("room").http_send("x", {})
        await client.disconnect()
        assert len(seen) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_carries_the_key_elsewhere(status: int) -> None:
    async with http_peer() as other, http_peer(status=status) as peer:
        peer.headers["Location"] = f"{other.url}/elsewhere"
        client = RealtimeClient(f"{peer.url}/realtime/v1", params={"apikey": "key"})
        with pytest.raises(SendError, match="redirect") as caught:
            await client.channel("room").http_send("x", {})
        assert not caught.value.retryable
        page = BackfillPage("public", "todos", ("id",))
        with pytest.raises(RealtimeError, match="redirect"):
            await read_rows(client._parts.http_client, f"{peer.url}/rest/v1", page, 5.0)
        await client.disconnect()
        assert len(peer.requests) == 2
        assert other.requests == []


# -- text that would be structure ------------------------------------------------------------

HOSTILE = "../a?b=1#c&d%2F\\;é "


async def test_a_topic_and_an_event_stay_one_segment_of_the_path_each() -> None:
    async with http_peer() as peer:
        client = RealtimeClient(f"{peer.url}/realtime/v1", params={"apikey": "key"})
        await client.channel(HOSTILE).http_send(HOSTILE, {})
        await client.disconnect()
    path = peer.requests[0]["path"]
    assert path.startswith("/realtime/v1/api/broadcast/")
    assert path.count("/") == "/realtime/v1/api/broadcast/x/events/x".count("/")
    assert "b" not in peer.requests[0]["query"]


@given(st.text(), st.text(), st.text())
def test_no_text_breaks_out_of_an_address(topic: str, event: str, key: str) -> None:
    endpoint = Endpoint("wss://x.supabase.co/realtime/v1")
    try:
        url = endpoint.broadcast_url(topic, event, params={"apikey": key})
        socket = endpoint.socket_url({"apikey": key}, "2.0.0")
    except UnicodeEncodeError:
        return
    assert url.isascii()
    assert url.count("/") == "https://x.supabase.co/realtime/v1/api/broadcast/t/events/e".count("/")
    assert (url.count("?"), url.count("&"), url.count("#")) == (1, 0, 0)
    assert (socket.count("?"), socket.count("&"), socket.count("#")) == (1, 1, 0)


@pytest.mark.parametrize("bad", ["a\r\nX: 1", "a\nb", "a\x00b", "a\x7fb"])
def test_what_would_end_a_header_is_refused_at_the_call(bad: str) -> None:
    url, params = "wss://x.supabase.co/realtime/v1", {"apikey": "key"}
    for options in (
        {"params": params, "headers": {"X-Mine": bad}},
        {"params": params, "headers": {bad: "x"}},
        {"params": {"apikey": bad}, "api_key_in": "header"},
    ):
        with pytest.raises(ValueError):
            RealtimeClient(url, **options)
    client = RealtimeClient(url, params=params)
    with pytest.raises(ValueError):
        client.set_auth(bad)


# -- the tree ----------------------------------------------------------------------------------


def _names(tree: ast.AST) -> set[str]:
    """Returns the imports of a module and the built-in functions that it calls."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(str(node.module).split(".")[0])
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            found.add(f"{node.func.id}()")
    return found


def _bad(source: str) -> set[str]:
    return _names(ast.parse(source)) & (UNPICKLERS | {f"{name}()" for name in DANGEROUS})


def test_nothing_that_was_received_can_become_code() -> None:
    """Neither the package nor its server and tools use ``eval``, pickle or similar functions."""
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) > 100
    assert {str(path): _bad(path.read_text()) for path in files if _bad(path.read_text())} == {}


@pytest.mark.parametrize("source", ["eval('1')", "import pickle", "from yaml import load"])
def test_the_search_for_it_finds_it(source: str) -> None:
    assert _bad(source)


def test_no_shell_is_given_a_command() -> None:
    calls = [
        node
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.keyword) and node.arg == "shell"
    ]
    assert calls == []
