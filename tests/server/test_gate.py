"""Attacks on a local server without its keys and without its terminal.

The attackers are web pages in the user's browser, other users of the machine, and anyone who
reaches the port through a forwarder. Requests are raw bytes: no HTTP client would send some.
"""

from __future__ import annotations

import asyncio
import time

import jwt
import pytest

from supabase_rt.server import Happening, LocalRealtime

KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
UPGRADE = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", KEY)
PUBLISHED = "super-secret-jwt-token-with-at-least-32-characters-long"
LOCAL = "Host: localhost:54321"
PATHS = (
    "/",
    "/healthcheck",
    "/api/ping",
    "/realtime/v1/api/ping",
    "/rest/v1/todos",
    "/inspector/rows",
    "/inspector/socket",
    "/socket/websocket",
    "/realtime/v1/websocket",
    "/socket/longpoll",
    "/realtime/v1/longpoll",
    "/no/such/path",
    "//evil.example/",
    "/realtime/v1/api/broadcast",
    "/realtime/v1/api/broadcast/room/events/e",
)
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PROPFIND")


async def send(server: LocalRealtime, request: str, body: str = "") -> tuple[int, str]:
    """Returns the status and the rest of the answer; does not read on after a handshake."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        writer.write(f"{request}\r\n\r\n{body}".encode("utf-8", "surrogateescape"))
        async with asyncio.timeout(5):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            status = int(head.split()[1])
            length = (
                0 if "content-length" not in head.lower() else int(field(head, "content-length"))
            )
            skipped = status == 101 or request.startswith("HEAD")
            rest = b"" if skipped else await reader.readexactly(length)
    finally:
        writer.close()
    return status, head + rest.decode()


def field(head: str, name: str) -> str:
    """Returns a header of the answer, empty if it is missing."""
    for line in head.splitlines():
        if line.lower().startswith(f"{name}:"):
            return line.partition(":")[2].strip()
    return ""


async def ask(
    server: LocalRealtime, *headers: str, target: str = "/", method: str = "GET"
) -> tuple[int, str]:
    return await send(server, "\r\n".join([f"{method} {target} HTTP/1.1", *headers]))


def handshake(server: LocalRealtime) -> str:
    return f"/realtime/v1/websocket?vsn=2.0.0&apikey={server.anon_key}"


# -- the secret ----------------------------------------------------------------------------


async def test_the_published_secret_of_supabase_opens_nothing(server: LocalRealtime) -> None:
    claims = {"role": "service_role", "exp": time.time() + 600}
    forged = jwt.encode(claims, PUBLISHED, algorithm="HS256")
    bearer = f"Authorization: Bearer {forged}"
    assert (await ask(server, LOCAL, bearer, target="/inspector/rows"))[0] == 401
    assert (await ask(server, LOCAL, bearer, f"apikey: {forged}", target="/rest/v1/t"))[0] == 401
    path = "/realtime/v1/api/broadcast/room/events/e"
    empty = "Content-Length: 0"
    assert (await ask(server, LOCAL, bearer, empty, target=path, method="POST"))[0] == 401
    target = f"/realtime/v1/websocket?vsn=2.0.0&apikey={forged}"
    assert (await ask(server, LOCAL, *UPGRADE, target=target))[0] == 401


async def test_a_key_of_one_server_opens_no_other(server: LocalRealtime) -> None:
    async with LocalRealtime() as other:
        target = f"/realtime/v1/websocket?vsn=2.0.0&apikey={other.service_key}"
        assert (await ask(server, LOCAL, *UPGRADE, target=target))[0] == 401


async def test_the_secret_that_was_given_is_the_one() -> None:
    async with LocalRealtime(jwt_secret=PUBLISHED) as server:
        key = jwt.encode({"role": "anon", "exp": time.time() + 60}, PUBLISHED, algorithm="HS256")
        target = f"/realtime/v1/websocket?vsn=2.0.0&apikey={key}"
        assert (await ask(server, LOCAL, *UPGRADE, target=target))[0] == 101


# -- Host ----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
async def test_a_name_that_was_rebound_reaches_no_path(server: LocalRealtime, method: str) -> None:
    for target in (*PATHS, handshake(server)):
        for more in ((), UPGRADE):
            asked = ("Host: evil.example:54321", *more, "Content-Length: 0")
            status, answer = await ask(server, *asked, target=target, method=method)
            assert status == 403, (target, answer)
            assert "access-control" not in answer.lower()
            if method != "HEAD":
                assert "--allow-host evil.example" in answer
    assert server.connections == 0


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example.",
        "localhost.evil.example",
        "127.0.0.1.evil.example:80",
        "127.0.0.1.nip.io",
        "notlocalhost",
        "2130706433",
        "0x7f.1",
        "127.1",
        "0177.0.0.1",
        "localhost@evil.example",
        "evil.example@localhost",
        "localhost:80@evil.example",
        "localhost, evil.example",
        "evil.example localhost",
        "localhost/evil.example",
        "localhost:54321:80",
        "localhost:b",
        "localhost:99999999",
        "[::1",
        "[::1].evil.example",
        "[evil.example]",
        "lоcalhost",
        "x" * 254 + ".localhost",
        "localhost\udc80",
        "",
    ],
)
async def test_only_names_of_this_machine_and_addresses_are_let_in(
    server: LocalRealtime, host: str
) -> None:
    assert (await ask(server, f"Host: {host}"))[0] in (400, 403)
    assert (await ask(server, f"Host: {host}", *UPGRADE, target=handshake(server)))[0] in (400, 403)
    assert server.connections == 0


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LocalHost:54321",
        "localhost.",
        "app.localhost:1",
        "127.0.0.1",
        "127.0.0.2:80",
        "[::1]:54321",
        "192.168.1.5:54321",
        "10.0.2.2",
        "[fe80::1]",
    ],
)
async def test_names_of_this_machine_and_addresses_are_let_in(
    server: LocalRealtime, host: str
) -> None:
    assert (await ask(server, f"Host: {host}"))[0] == 200
    assert (await ask(server, f"Host: {host}", *UPGRADE, target=handshake(server)))[0] == 101


@pytest.mark.parametrize(
    "headers",
    [
        (),
        ("Host: localhost", "Host: evil.example"),
        ("Host: evil.example", "Host: localhost"),
        ("Host: localhost", "Host: localhost"),
    ],
)
@pytest.mark.parametrize("version", ["1.1", "1.0"])
async def test_a_request_names_one_host(
    server: LocalRealtime, headers: tuple[str, ...], version: str
) -> None:
    for target in ("/", "/rest/v1/todos", handshake(server)):
        request = "\r\n".join([f"GET {target} HTTP/{version}", *headers, *UPGRADE])
        assert (await send(server, request))[0] == 400
    assert server.connections == 0


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("http://evil.example/", 403),
        ("HTTP://evil.example/", 403),
        ("ftp://evil.example/", 403),
        ("http://localhost@evil.example/", 400),
        ("http://evil.example:80\\@localhost/", 400),
        ("http:///", 400),
        ("http://localhost:54321/", 200),
        ("http://127.0.0.1/", 200),
    ],
)
async def test_the_server_that_a_target_names_is_checked_too(
    server: LocalRealtime, target: str, status: int
) -> None:
    assert (await ask(server, LOCAL, target=target))[0] == status
    assert (await ask(server, "Host: evil.example", target=target))[0] in (400, 403)


async def test_it_is_no_proxy(server: LocalRealtime) -> None:
    for target in ("evil.example:443", "localhost:22"):
        assert (await ask(server, LOCAL, target=target, method="CONNECT"))[0] == 400


async def test_what_a_proxy_says_of_others_changes_nothing(server: LocalRealtime) -> None:
    local = ("X-Forwarded-Host: localhost", "Forwarded: host=localhost", "X-Host: localhost")
    assert (await ask(server, "Host: evil.example", *local))[0] == 403
    foreign = ("X-Forwarded-Host: evil.example", "Forwarded: host=evil.example")
    assert (await ask(server, LOCAL, *foreign))[0] == 200


async def test_further_names_are_allowed_by_an_option() -> None:
    async with LocalRealtime(allow_hosts=["Dev.Example", "host.docker.internal"]) as server:
        for host in ("dev.example", "dev.example.:8000", "HOST.docker.internal:54321"):
            assert (await ask(server, f"Host: {host}"))[0] == 200
            asked = (f"Host: {host}", *UPGRADE)
            assert (await ask(server, *asked, target=handshake(server)))[0] == 101
        assert (await ask(server, "Host: evil.dev.example"))[0] == 403
        # A page from this very server is allowed; another server of the same name is not.
        page = ("Host: dev.example:8000", "Origin: http://dev.example:8000")
        assert (await ask(server, *page))[0] == 200
        page = ("Host: dev.example:8000", "Origin: http://dev.example:8001")
        assert (await ask(server, *page))[0] == 403


@pytest.mark.parametrize(
    "wrong", ["", "dev.example:80", "http://dev.example", "a b", "bücher.example", "*", "a/b"]
)
def test_what_is_no_name_cannot_be_allowed(wrong: str) -> None:
    with pytest.raises(ValueError, match="allow_hosts"):
        LocalRealtime(allow_hosts=[wrong])


def test_one_text_is_no_list() -> None:
    with pytest.raises(TypeError, match="allow_hosts is a list"):
        LocalRealtime(allow_hosts="localhost")
    with pytest.raises(TypeError, match="allow_origins is a list"):
        LocalRealtime(allow_origins="http://localhost")


# -- Origin --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "http://localhost.evil.example:3000",
        "http://evil.example:54321",
        "http://192.168.1.5:54321",
        "https://127.0.0.1.nip.io",
        "http://localhost@evil.example",
        "http://evil.example/http://localhost",
        "http://localhost evil.example",
        "null",
        "NULL",
        "",
        "localhost",
        "file://",
        "chrome-extension://localhost",
    ],
)
async def test_a_foreign_page_reaches_no_path(server: LocalRealtime, origin: str) -> None:
    for target in (*PATHS, handshake(server)):
        for method, more in (("GET", UPGRADE), ("POST", ()), ("OPTIONS", ())):
            asked = (LOCAL, f"Origin: {origin}", *more, "Content-Length: 0")
            status, answer = await ask(server, *asked, target=target, method=method)
            assert status == 403, (target, answer)
            assert "access-control" not in answer.lower()
    assert server.connections == 0


async def test_the_refusal_names_the_option(server: LocalRealtime) -> None:
    _, answer = await ask(server, LOCAL, "Origin: https://App.example:8443")
    assert "--allow-origin https://app.example:8443" in answer
    assert "connection: close" in answer.lower()


@pytest.mark.parametrize("more", [("Origin: https://evil.example",), ("Origin: null",)])
async def test_two_origins_are_none(server: LocalRealtime, more: tuple[str, ...]) -> None:
    for headers in (("Origin: http://localhost", *more), (*more, "Origin: http://localhost")):
        assert (await ask(server, LOCAL, *headers, target="/api/ping"))[0] == 403


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost:3000",
        "https://localhost",
        "http://app.localhost:5173",
        "http://127.0.0.1:8080",
        "http://[::1]:3000",
    ],
)
async def test_a_page_on_this_machine_may_use_it(server: LocalRealtime, origin: str) -> None:
    page = (LOCAL, f"Origin: {origin}")
    status, answer = await ask(server, *page, target="/api/ping")
    assert (status, field(answer, "access-control-allow-origin")) == (200, "*")
    assert (await ask(server, *page, *UPGRADE, target=handshake(server)))[0] == 101
    for target in ("/realtime/v1/api/broadcast", "/rest/v1/todos"):
        asked = (*page, "Access-Control-Request-Method: POST")
        status, answer = await ask(server, *asked, target=target, method="OPTIONS")
        assert (status, field(answer, "access-control-allow-origin")) == (204, "*")


async def test_no_page_reads_the_routes_of_the_status_page(server: LocalRealtime) -> None:
    page = (LOCAL, "Origin: http://localhost:3000")
    for target in ("/", "/inspector/rows", "/inspector/broadcast", "/inspector/socket"):
        for method in ("GET", "POST", "OPTIONS"):
            _, answer = await ask(server, *page, "Content-Length: 0", target=target, method=method)
            assert "access-control" not in answer.lower()


async def test_further_pages_are_allowed_by_an_option() -> None:
    async with LocalRealtime(allow_origins=["https://App.example:443", "app://bot"]) as server:
        for origin in ("https://app.example", "HTTPS://app.example:443", "app://bot"):
            asked = (LOCAL, f"Origin: {origin}", *UPGRADE)
            assert (await ask(server, *asked, target=handshake(server)))[0] == 101
        for origin in ("http://app.example", "https://app.example:8443", "https://x.app.example"):
            assert (await ask(server, LOCAL, f"Origin: {origin}"))[0] == 403


@pytest.mark.parametrize("wrong", ["null", "*", "app.example", "https://app.example/", ""])
def test_what_is_no_origin_cannot_be_allowed(wrong: str) -> None:
    with pytest.raises(ValueError, match="allow_origins"):
        LocalRealtime(allow_origins=[wrong])


@pytest.mark.parametrize("site", ["cross-site", "Cross-Site"])
async def test_a_foreign_page_loads_nothing_without_saying_who_it_is(
    server: LocalRealtime, site: str
) -> None:
    """An ``<img>`` or a ``<script>`` sends no Origin; following a link is allowed."""
    loaded = (LOCAL, f"Sec-Fetch-Site: {site}", "Sec-Fetch-Mode: no-cors")
    assert (await ask(server, *loaded, target="/api/ping"))[0] == 403
    followed = (LOCAL, f"Sec-Fetch-Site: {site}", "Sec-Fetch-Mode: navigate")
    assert (await ask(server, *followed))[0] == 200


async def test_a_form_of_a_foreign_page_does_nothing(server: LocalRealtime) -> None:
    """A form needs no preflight, and may send JSON as text."""
    body = '{"table": "t", "record": {"id": 1}}'
    seen: list[Happening] = []
    server.watch(seen.append)
    for target in ("/inspector/rows", "/inspector/broadcast", "/realtime/v1/api/broadcast"):
        for origin in ("https://evil.example", "null", "http://localhost:3000"):
            head = (
                f"POST {target} HTTP/1.1\r\n{LOCAL}\r\nOrigin: {origin}\r\n"
                f"Content-Type: text/plain\r\nContent-Length: {len(body)}"
            )
            status, _ = await send(server, head, body)
            assert status == (401 if "localhost" in origin else 403)
    assert {found.kind for found in seen} == {"refuse", "request"}


async def test_a_refused_request_is_told_with_its_reason(server: LocalRealtime) -> None:
    seen: list[Happening] = []
    server.watch(seen.append)
    await ask(server, LOCAL, "Origin: https://evil.example", *UPGRADE, target=handshake(server))
    assert [found.kind for found in seen] == ["refuse"]
    assert "--allow-origin https://evil.example" in seen[0].text
    assert "eyJ" not in repr(seen)


async def test_the_body_of_a_foreign_page_is_not_waited_for(server: LocalRealtime) -> None:
    head = (
        f"POST /realtime/v1/api/broadcast HTTP/1.1\r\n{LOCAL}\r\n"
        "Origin: https://evil.example\r\nContent-Length: 100000\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(head.encode())
    async with asyncio.timeout(5):
        assert (await reader.readline()).startswith(b"HTTP/1.1 403 ")
        writer.write(bytes(100000))
        # The connection is closed after that.
        await reader.read()
    writer.close()


async def test_trace_gives_nothing_back(server: LocalRealtime) -> None:
    asked = (LOCAL, "Authorization: Bearer hidden1f9q")
    status, answer = await ask(server, *asked, method="TRACE")
    assert status == 405
    assert "hidden1f9q" not in answer


@pytest.mark.parametrize(
    "line", ["apikey: {key}\0", "Host : {key}", "Authorization: Bearer {key}\r\nContent-Length: x"]
)
async def test_a_request_that_is_no_http_is_not_logged(
    server: LocalRealtime, caplog: pytest.LogCaptureFixture, line: str
) -> None:
    # The request has the page's key, and comes as often as its sender likes.
    request = f"GET / HTTP/1.1\r\nHost: localhost\r\n{line.format(key='the-key-of-somebody')}"
    head, _ = await send(server, f"{request}\r\n\r\n")
    assert "400" in str(head)
    assert [record for record in caplog.records if record.name != "asyncio"] == []
