"""Answers over HTTP that never end, or that unpack to a thousand times their size."""

from __future__ import annotations

import asyncio
import gzip
import os
import sys
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from aiohttp import web

import supabase_rt
from supabase_rt import RealtimeClient, RealtimeError, SendError, SupabaseClient
from supabase_rt._backfill.pages import BackfillPage
from supabase_rt._backfill.postgrest import read_rows
from supabase_rt._client.project_services import MOST_FILE
from supabase_rt._runtime.http_session import MOST_ANSWER, close_session, open_session

KEY = "the-key-of-the-project"
MIB = 2**20
SLACK = 8 * MIB
"""Bytes that may be on their way in the buffers of both sides."""


@dataclass
class Server:
    """Answers every request with one body; ``sent`` counts its bytes."""

    url: str = ""
    status: int = 200
    bomb: bytes | None = None
    most: int = 2 * MOST_ANSWER
    sent: int = 0
    cookies: list[str] = field(default_factory=list)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        headers = {"Content-Type": "application/json"}
        if self.bomb is not None:
            headers["Content-Encoding"] = "gzip"
            return web.Response(status=self.status, body=self.bomb, headers=headers)
        response = web.StreamResponse(status=self.status, headers=headers)
        await response.prepare(request)
        try:
            while self.sent < self.most:
                await response.write(b"x" * MIB)
                self.sent += MIB
        except ConnectionError:
            pass
        return response


@asynccontextmanager
async def served(server: Server, answer: Any = None) -> AsyncIterator[Server]:
    runner = web.ServerRunner(web.Server(answer or server.answer), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()


@asynccontextmanager
async def project_of(server: Server, answer: Any = None) -> AsyncIterator[SupabaseClient]:
    async with served(server, answer), supabase_rt.create_client(server.url, KEY) as project:
        yield project


@pytest.fixture(scope="module")
def bomb() -> bytes:
    """A quarter of a megabyte that unpacks to twice the limit for an answer."""
    packer = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    parts = [packer.compress(bytes(MIB)) for _ in range(2 * MOST_ANSWER // MIB)]
    return b"".join([*parts, packer.flush()])


KINDS = pytest.mark.parametrize("packed", [False, True], ids=["without end", "packed"])


@KINDS
@pytest.mark.parametrize("status", [202, 500])
async def test_an_http_send_reads_a_bounded_answer(bomb: bytes, packed: bool, status: int) -> None:
    async with served(Server(status=status, bomb=bomb if packed else None)) as server:
        client = RealtimeClient(server.url, params={"apikey": KEY})
        with pytest.raises(SendError) as caught:
            await client.channel("room").http_send("x", {})
        error = caught.value
        assert (error.code, error.status, error.retryable) == ("AnswerTooLarge", status, False)
        assert "max_message_size" in error.hint
        message = {"type": "broadcast", "event": "x", "payload": {}}
        assert await client.channel("room").send(message) == "error"
        assert server.sent < 2 * (client._parts.http_client.options.max_message_size + SLACK)


@KINDS
async def test_a_backfill_reads_a_bounded_page(bomb: bytes, packed: bool) -> None:
    async with served(Server(bomb=bomb if packed else None)) as server:
        client = RealtimeClient(server.url, params={"apikey": KEY}, max_message_size=MIB)
        page = BackfillPage("public", "todos", ("id",))
        with pytest.raises(RealtimeError) as caught:
            await read_rows(client._parts.http_client, f"{server.url}/rest/v1", page, 5.0)
        assert (caught.value.code, caught.value.retryable) == ("AnswerTooLarge", False)
        assert server.sent < MIB + SLACK


CALLS: dict[str, Callable[[Any], Any]] = {
    "auth": lambda project: project.auth.sign_in_with_password(
        {"email": "anna@example.org", "password": "correct horse"}
    ),
    "tables": lambda project: project.from_("todos").insert({"id": 1}).execute(),
    "storage": lambda project: project.storage.list_buckets(),
    "functions": lambda project: project.functions.invoke("hello"),
}


@KINDS
@pytest.mark.parametrize("name", CALLS)
async def test_a_service_reads_a_bounded_answer(bomb: bytes, name: str, packed: bool) -> None:
    async with served(Server(bomb=bomb if packed else None)) as server:
        async with supabase_rt.create_client(server.url, KEY) as project:
            with pytest.raises(Exception, match="larger than 67,108,864 bytes"):
                await CALLS[name](project)
        assert server.sent < MOST_ANSWER + SLACK


@pytest.mark.parametrize("packing", ["br", "zstd", "gzip, gzip"])
async def test_a_packing_that_was_not_asked_for_is_not_unpacked(packing: str) -> None:
    async def answer(request: web.BaseRequest) -> web.Response:
        assert request.headers["Accept-Encoding"] == "gzip"
        return web.Response(body=b"x" * 100, headers={"Content-Encoding": packing})

    async with project_of(Server(), answer) as project:
        with pytest.raises(httpx.DecodingError, match="not asked for"):
            await project.functions.invoke("hello")


@pytest.mark.parametrize("size", [0, 1, 100_000, 3 * MIB])
async def test_an_honest_packed_answer_arrives_whole(size: int) -> None:
    content = os.urandom(size // 2) + b"a" * (size - size // 2)

    async def answer(_: web.BaseRequest) -> web.Response:
        packed = gzip.compress(content)
        return web.Response(body=packed, headers={"Content-Encoding": "gzip", "X-Mine": "yes"})

    async with project_of(Server(), answer) as project:
        assert await project.functions.invoke("hello") == content
        found = await project.from_("todos").session.get(str(project.functions.url))
        assert (found.content, found.headers["x-mine"]) == (content, "yes")


async def test_a_packed_answer_that_is_broken_is_an_error_of_httpx() -> None:
    async def answer(_: web.BaseRequest) -> web.Response:
        return web.Response(body=b"not gzip", headers={"Content-Encoding": "gzip"})

    async with project_of(Server(), answer) as project:
        with pytest.raises(httpx.DecodingError, match="cannot be unpacked"):
            await project.functions.invoke("hello")


async def test_a_file_of_the_storage_may_be_larger() -> None:
    assert MOST_FILE > MOST_ANSWER
    async with project_of(Server(most=MOST_ANSWER + MIB)) as project:
        found = await project.storage.from_("bucket").download("a.bin")
    assert len(found) == MOST_ANSWER + MIB


@KINDS
async def test_gen_types_reads_a_bounded_description(bomb: bytes, packed: bool) -> None:
    async with served(Server(bomb=bomb if packed else None)) as server:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "supabase_rt", "gen", "types",
            "--url", server.url, "--key", KEY,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said, _ = await asyncio.wait_for(process.communicate(), 30)
        assert process.returncode == 1
        assert b"larger than 67,108,864 bytes" in said
        assert server.sent < MOST_ANSWER + SLACK


async def test_no_cookie_of_a_server_is_kept() -> None:
    found: list[str | None] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        found.append(request.headers.get("Cookie"))
        return web.Response(headers={"Set-Cookie": f"c{len(found)}={'x' * 4000}; Path=/"})

    async with served(Server(), answer) as server:
        # aiohttp's own jar keeps no cookies of addresses.
        url = server.url.replace("127.0.0.1", "localhost")
        session = open_session()
        for _ in range(3):
            async with session.get(url):
                pass
        await close_session(session)
    assert found == [None] * 3
