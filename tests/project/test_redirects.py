"""No key, token, password or header follows a redirect, for every kind of request that we make."""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

import supabase_rt
import supabase_rt.sync
from supabase_rt import ConnectionFailed, RealtimeClient, RealtimeError, SendError
from supabase_rt._backfill.pages import BackfillPage
from supabase_rt._backfill.postgrest import read_rows
from supabase_rt._wire.redirects import is_redirect, redirect_hint
from supabase_rt.server import LocalRealtime
from supabase_rt.testing.conversation import record

from ..support.peers import HttpPeer, http_peer
from ..support.waiting import our_tasks

CERTIFICATE = Path(__file__).parents[1] / "support" / "localhost.pem"
KEY = "the-key-of-the-project"
REDIRECTS = [301, 302, 303, 307, 308]


def server_tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    return context


def client_tls() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=CERTIFICATE)


@dataclass
class Pair:
    """Runs two servers: ``first`` redirects to ``second``, which should get no request."""

    first: HttpPeer
    second: HttpPeer


@asynccontextmanager
async def pair(
    status: int, *, first_tls: bool = False, second_tls: bool = False
) -> AsyncIterator[Pair]:
    async with (
        http_peer(status=200, body="{}", ssl=server_tls() if second_tls else None) as second,
        http_peer(status=status, ssl=server_tls() if first_tls else None) as first,
    ):
        # A hostile server would redirect to another port, with the received secrets in the query.
        first.headers["Location"] = f"{second.url}/taken?secret=in-the-query"
        yield Pair(first, second)
        assert first.requests, "the redirect was never asked for"
        assert second.requests == []


def check_words(error: BaseException, there: str) -> None:
    said = "\n".join([str(error), *getattr(error, "__notes__", ())])
    assert there in said
    assert "in-the-query" not in said
    assert "taken" not in said


# -- the socket --------------------------------------------------------------------------


async def refused(url: str, **options: Any) -> ConnectionFailed:
    client = RealtimeClient(
        url,
        params={"apikey": KEY},
        api_key_in="header",
        headers={"X-Mine": "a secret of mine", "Authorization": "Bearer mine"},
        timeout=5.0,
        **options,
    )
    client.set_auth("a.b.c")
    with pytest.raises(ConnectionFailed) as caught:
        await client.connect()
    await client.disconnect()
    assert our_tasks() == []
    return caught.value


@pytest.mark.parametrize("status", REDIRECTS)
async def test_the_handshake_follows_no_redirect(status: int) -> None:
    async with pair(status) as found:
        error = await refused(f"{found.first.url}/realtime/v1")
        assert (error.status, error.code, error.retryable) == (status, f"HTTP{status}", False)
        check_words(error, found.second.url)
        assert found.first.requests[0]["headers"]["x-api-key"] == KEY
        assert len(found.first.requests) == 1


async def test_the_handshake_does_not_go_from_tls_to_cleartext() -> None:
    async with pair(302, first_tls=True) as found:
        error = await refused(f"{found.first.url}/realtime/v1", ssl=client_tls())
        check_words(error, found.second.url)
        assert "without TLS" in error.hint


async def test_the_handshake_does_not_go_from_cleartext_to_tls_by_itself() -> None:
    async with pair(308, second_tls=True) as found:
        error = await refused(f"{found.first.url}/realtime/v1", ssl=client_tls())
        check_words(error, found.second.url)


async def test_a_session_of_the_users_follows_none_for_us_and_all_of_its_own() -> None:
    async with http_peer(status=200, body="there") as second, http_peer(status=302) as first:
        first.headers["Location"] = f"{second.url}/open"
        async with aiohttp.ClientSession(headers={"X-Session": "mine"}) as session:
            for _ in range(2):
                error = await refused(f"{first.url}/realtime/v1", session=session)
                assert error.status == 302
            assert second.requests == []
            async with session.get(first.url) as response:
                assert await response.text() == "there"
            assert len(session.trace_configs) == 1


async def test_a_socket_at_the_other_end_gets_neither_key_nor_token(
    server: LocalRealtime,
) -> None:
    async with http_peer(status=307) as first:
        first.headers["Location"] = f"{server.url}/realtime/v1/websocket?apikey={server.anon_key}"
        error = await refused(f"{first.url}/realtime/v1")
        assert error.status == 307
    assert server.connections == 0


async def test_a_client_that_nobody_awaits_gives_up_at_a_redirect() -> None:
    async with pair(301) as found:
        client = RealtimeClient(f"{found.first.url}/realtime/v1", params={"apikey": KEY})
        client.channel("room").subscribe()
        with pytest.raises(ConnectionFailed) as caught:
            await client.run_forever()
        check_words(caught.value, found.second.url)


async def test_the_recorder_follows_no_redirect(tmp_path: Path) -> None:
    async with pair(307) as found, record(found.first.url, tmp_path / "x.jsonl") as recorder:
        client = RealtimeClient(
            f"{recorder.url}/realtime/v1", params={"apikey": KEY}, api_key_in="header"
        )
        with pytest.raises(ConnectionFailed):
            await client.connect()
        await client.disconnect()


# -- over HTTP ---------------------------------------------------------------------------


@pytest.mark.parametrize("status", REDIRECTS)
async def test_http_sends_and_reads_name_the_address(status: int) -> None:
    async with pair(status) as found:
        client = RealtimeClient(f"{found.first.url}/realtime/v1", params={"apikey": KEY})
        with pytest.raises(SendError) as sent:
            await client.channel("room").http_send("x", {})
        page = BackfillPage("public", "todos", ("id",))
        with pytest.raises(RealtimeError) as read:
            await read_rows(client._parts.http_client, f"{found.first.url}/rest/v1", page, 5.0)
        for error in (sent.value, read.value):
            assert (error.code, error.retryable) == (f"HTTP{status}", False)
            check_words(error, found.second.url)
        assert "public.todos" in str(read.value)
        message = {"type": "broadcast", "event": "x", "payload": {}}
        assert await client.channel("room").send(message) == "error"
        await client.disconnect()
        assert len(found.first.requests) == 3


# -- the command line --------------------------------------------------------------------


async def run_command(*words: str) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "supabase_rt", *words,
        env={**os.environ, "SSL_CERT_FILE": str(CERTIFICATE), "NO_COLOR": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await asyncio.wait_for(process.communicate(), 30)
    return process.returncode, said.decode()


@pytest.mark.parametrize(("status", "tls"), [(302, False), (307, False), (308, True)])
async def test_gen_types_follows_no_redirect(status: int, tls: bool) -> None:
    async with pair(status, first_tls=tls) as found:
        code, said = await run_command("gen", "types", "--url", found.first.url, "--key", KEY)
        assert code == 1
        assert found.second.url in said
        assert "in-the-query" not in said
        assert found.first.requests[0]["headers"]["apikey"] == KEY


async def test_doctor_and_send_follow_no_redirect() -> None:
    for words in (["doctor"], ["send", "room", "event", "{}"], ["listen", "room"]):
        async with pair(307) as found:
            code, said = await run_command(*words, "--url", found.first.url, "--key", KEY)
            assert code not in (0, 2), said
            assert "in-the-query" not in said


# -- the wired services ------------------------------------------------------------------

PASSWORD = "correct horse battery staple"
CREDENTIALS = {"email": "anna@example.org", "password": PASSWORD}
CALLS: dict[str, Callable[[Any], Any]] = {
    "sign in": lambda project: project.auth.sign_in_with_password(CREDENTIALS),
    "sign up": lambda project: project.auth.sign_up(CREDENTIALS),
    "one-time password": lambda project: project.auth.sign_in_with_otp({"email": "a@b.c"}),
    "reset": lambda project: project.auth.reset_password_for_email("a@b.c"),
    "user": lambda project: project.auth.get_user("a.b.c"),
    "admin": lambda project: project.auth.admin.list_users(),
    "select": lambda project: project.from_("todos").select("*").execute(),
    "insert": lambda project: project.from_("todos").insert({"id": 1}).execute(),
    "delete": lambda project: project.from_("todos").delete().eq("id", 1).execute(),
    "schema": lambda project: project.schema("shop").from_("todos").select("*").execute(),
    "rpc": lambda project: project.rpc("greet", {}).execute(),
    "buckets": lambda project: project.storage.list_buckets(),
    "upload": lambda project: project.storage.from_("b").upload("a.txt", b"content"),
    "download": lambda project: project.storage.from_("b").download("a.txt"),
    "function": lambda project: project.functions.invoke("hello", {"body": {"a": 1}}),
}


async def refusal(call: Callable[[Any], Any], url: str, *, blocking: bool) -> Exception:
    if not blocking:
        async with supabase_rt.create_client(url, KEY) as project:
            with pytest.raises(Exception) as caught:
                await call(project)
        return caught.value

    def work() -> Exception:
        with (
            supabase_rt.sync.create_client(url, KEY) as project,
            pytest.raises(Exception) as caught,
        ):
            call(project)
        return caught.value

    return await asyncio.to_thread(work)


@pytest.mark.parametrize("blocking", [False, True], ids=["async", "sync"])
@pytest.mark.parametrize("name", CALLS)
async def test_no_service_follows_a_redirect(name: str, blocking: bool) -> None:
    async with pair(307) as found:
        error = await refusal(CALLS[name], found.first.url, blocking=blocking)
        check_words(error, found.second.url)
        assert PASSWORD not in str(error)
        assert found.first.requests[0]["headers"]["apikey"] == KEY


@pytest.mark.parametrize("status", REDIRECTS)
@pytest.mark.parametrize("name", ["sign in", "select", "buckets", "function"])
async def test_no_kind_of_redirect_moves_a_service(name: str, status: int) -> None:
    async with pair(status) as found:
        check_words(await refusal(CALLS[name], found.first.url, blocking=False), found.second.url)


@pytest.mark.parametrize("name", ["sign in", "select", "buckets", "function"])
async def test_no_service_goes_from_tls_to_cleartext(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    async with pair(307, first_tls=True) as found:
        error = await refusal(CALLS[name], found.first.url, blocking=False)
        check_words(error, found.second.url)


async def test_a_caller_that_asks_the_http_client_to_follow_is_not_followed_either() -> None:
    async with pair(302) as found, supabase_rt.create_client(found.first.url, KEY) as project:
        http = project.from_("todos").session
        response = await http.get(f"{found.first.url}/x", follow_redirects=True)
        assert response.status_code == 302


async def test_every_answer_of_a_function_that_is_no_redirect_arrives() -> None:
    async def answer(_: web.BaseRequest) -> web.Response:
        return web.Response(status=201, headers={"Location": "/made/7"}, text="made")

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with supabase_rt.create_client(url, KEY) as project:
            assert await project.functions.invoke("make") == b"made"
    finally:
        await runner.cleanup()


# -- the words ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("https://other.example/x?y=z", "use https://other.example;"),
        ("https://other.example:443/", "use https://other.example;"),
        ("http://other.example:8080/", "http://other.example:8080, without TLS"),
        ("//other.example/x", "use https://other.example;"),
        ("wss://other.example/x", "use https://other.example;"),
        ("https://user:letmein@other.example/", "use https://other.example;"),
        ("/elsewhere", "another path of https://x.supabase.co"),
        ("https://x.supabase.co/v2", "another path of https://x.supabase.co"),
        ("https://[::1]:99/", "use https://[::1]:99;"),
        ("https://\x1b[31mevil/", "no usable address"),
        ("https://a\x1bb/", "use https://a%1Bb;"),
        ("https://\u202eevil.example/", "use https://%E2%80%AEevil.example;"),
        ("https://\udcffevil.example/", "no usable address"),
        ("https://" + "a" * 300, "no usable address"),
        ("https://h:99999/", "no usable address"),
        ("http://[", "no usable address"),
        ("ftp://other.example/", "no usable address"),
        ("javascript:alert(1)", "no usable address"),
        ("", "no usable address"),
        (None, "no usable address"),
    ],
)
def test_the_hint_names_scheme_and_host_only_in_plain_text(
    location: str | None, words: str
) -> None:
    for asked in ("wss://x.supabase.co", "https://x.supabase.co/rest/v1?apikey=k"):
        hint = redirect_hint(location, asked)
        assert words in hint
        assert hint.isascii()
        assert hint.isprintable()
        assert "letmein" not in hint


def test_what_counts_as_a_redirect() -> None:
    assert [status for status in range(200, 600) if is_redirect(status)] == [
        status for status in range(300, 400) if status != 304
    ]
