"""Auth, tables, storage and functions beside Realtime: one token for all of them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from aiohttp import web
from anyio.from_thread import start_blocking_portal
from supabase_auth import AsyncMemoryStorage
from supabase_auth.errors import AuthApiError
from supabase_auth.types import SignInWithEmailAndPasswordCredentials
from supabase_functions.errors import FunctionsHttpError

from supabase_rt import InvalidState, SupabaseClient, create_client
from supabase_rt.server import LocalRealtime

from ...support.waiting import until
from .project import Project, open_project, served

ANNA: SignInWithEmailAndPasswordCredentials = {
    "email": "anna@example.org",
    "password": "secret",
}


@pytest.fixture
async def project(server: LocalRealtime) -> AsyncIterator[Project]:
    async with open_project(server) as found:
        yield found


@pytest.fixture
async def supabase(project: Project) -> AsyncIterator[SupabaseClient]:
    async with create_client(project.url, project.realtime.anon_key) as found:
        yield found


def pushed_tokens(project: Project) -> list[Any]:
    return [
        each.payload["access_token"]
        for each in project.realtime.received
        if each.event == "access_token"
    ]


def joins(project: Project) -> list[Any]:
    return [each for each in project.realtime.received if each.event == "phx_join"]


async def test_signed_out_every_service_gets_the_key(
    project: Project, supabase: SupabaseClient
) -> None:
    key = project.realtime.anon_key
    rows = await supabase.from_("todos").select("*").eq("id", 1).execute()
    assert rows.data == [{"id": 1, "path": "/rest/v1/todos?select=%2A&id=eq.1"}]
    await supabase.table("todos").insert({"id": 2}).execute()
    await supabase.rpc("greet", {"name": "anna"}).execute()
    await supabase.storage.list_buckets()
    await supabase.functions.invoke("hello")
    assert [(method, path) for method, path, _ in project.asked] == [
        ("GET", "/rest/v1/todos"),
        ("POST", "/rest/v1/todos"),
        ("POST", "/rest/v1/rpc/greet"),
        ("GET", "/storage/v1/bucket"),
        ("POST", "/functions/v1/hello"),
    ]
    assert {token for _, _, token in project.asked} == {key}
    assert {headers["apikey"] for headers in project.headers} == {key}
    assert project.bodies == [None, {"id": 2}, {"name": "anna"}]


@pytest.mark.conformance("SJ12")
async def test_signing_in_and_out_moves_every_token(
    project: Project, supabase: SupabaseClient
) -> None:
    key = project.realtime.anon_key
    channel = supabase.channel("room")
    await channel.subscribe()
    signed_in = await supabase.auth.sign_in_with_password(ANNA)
    assert signed_in.session is not None
    token = signed_in.session.access_token
    await until(lambda: pushed_tokens(project) == [token])
    await supabase.from_("todos").select("*").execute()
    assert project.tokens("/rest/v1/todos") == [token]
    await supabase.auth.sign_out()
    await until(lambda: pushed_tokens(project) == [token, key])
    await supabase.from_("todos").select("*").execute()
    assert project.tokens("/rest/v1/todos") == [token, key]
    assert supabase.realtime.access_token_value == key


@pytest.mark.conformance("SJ11", "SJ12")
async def test_a_renewed_session_reaches_the_joined_channels(
    project: Project, supabase: SupabaseClient
) -> None:
    await supabase.auth.sign_in_with_password(ANNA)
    await supabase.channel("room").subscribe()
    renewed = await supabase.auth.refresh_session()
    assert renewed.session is not None
    token = renewed.session.access_token
    await until(lambda: pushed_tokens(project) == [token])
    assert project.refreshes == 1


async def test_a_rejoin_renews_a_session_that_has_expired_meanwhile(
    project: Project, supabase: SupabaseClient
) -> None:
    """The auth client's own timer is off here, as for a laptop that slept."""
    project.lifetime = 5  # The auth client renews a session with less than ten seconds left.
    quiet = create_client(
        project.url,
        project.realtime.anon_key,
        auth={"autoRefreshToken": False},
        realtime={"heartbeat_interval": 60.0},
    )
    async with quiet:
        signed_in = await quiet.auth.sign_in_with_password(ANNA)
        await quiet.channel("room").subscribe()
        project.lifetime = 3600
        project.realtime.faults.cut()
        await until(lambda: len(joins(project)) == 2)
        assert signed_in.session is not None
        used = joins(project)[1].payload["access_token"]
        assert used not in (signed_in.session.access_token, project.realtime.anon_key)


async def test_requests_at_once_renew_an_expired_session_once(
    project: Project, supabase: SupabaseClient
) -> None:
    project.lifetime = 5
    await supabase.auth.sign_in_with_password(ANNA)
    project.lifetime = 3600
    await asyncio.gather(*(supabase.from_("todos").select("*").execute() for _ in range(5)))
    assert project.refreshes == 1
    assert len(set(project.tokens("/rest/v1/todos"))) == 1


@pytest.mark.conformance("SJ11", "SJ13")
async def test_a_session_of_the_last_run_is_taken_up_again(project: Project) -> None:
    storage = AsyncMemoryStorage()
    key = project.realtime.anon_key
    async with create_client(project.url, key, auth={"storage": storage}) as first:
        signed_in = await first.auth.sign_in_with_password(ANNA)
    async with create_client(project.url, key, auth={"storage": storage}) as second:
        await second.channel("room").subscribe()
        assert signed_in.session is not None
        assert joins(project)[-1].payload["access_token"] == signed_in.session.access_token


async def test_a_failed_sign_in_changes_nothing(project: Project, supabase: SupabaseClient) -> None:
    with pytest.raises(AuthApiError):
        await supabase.auth.sign_in_with_password({**ANNA, "password": "wrong"})
    assert supabase.realtime.access_token_value == project.realtime.anon_key


async def test_a_source_of_tokens_takes_the_place_of_auth(project: Project) -> None:
    token = project.realtime.token("authenticated", "ben", 60)
    supabase = create_client(project.url, project.realtime.anon_key, access_token=lambda: token)
    async with supabase:
        with pytest.raises(InvalidState, match="access_token="):
            supabase.auth
        await supabase.from_("todos").select("*").execute()
        assert project.tokens("/rest/v1/todos") == [token]


async def test_headers_and_schema_are_shared(project: Project) -> None:
    supabase = create_client(
        project.url,
        project.realtime.anon_key,
        db={"schema": "shop"},
        global_={"headers": {"x-bot": "7"}},
    )
    async with supabase:
        await supabase.from_("todos").select("*").execute()
        await supabase.schema("stock").from_("todos").select("*").execute()
        await supabase.functions.invoke("hello")
        assert [headers.get("Accept-Profile") for headers in project.headers] == [
            "shop",
            "stock",
            None,
        ]
        assert {headers["x-bot"] for headers in project.headers} == {"7"}


async def test_the_key_does_not_follow_a_redirect_to_another_host(
    project: Project, supabase: SupabaseClient
) -> None:
    seen: list[dict[str, str]] = []

    async def strange(request: web.Request) -> web.Response:
        seen.append({name.lower(): value for name, value in request.headers.items()})
        return web.json_response({})

    app = web.Application()
    app.router.add_route("*", "/", strange)
    async with served(app) as url:
        project.elsewhere = url + "/"
        with pytest.raises(FunctionsHttpError, match="redirect"):
            await supabase.functions.invoke("moved")
    assert seen == []


@asynccontextmanager
async def whole_project() -> AsyncIterator[Project]:
    async with LocalRealtime() as server, open_project(server) as found:
        yield found


def test_one_client_serves_one_loop_after_the_other() -> None:
    """A usual script signs in by ``asyncio.run``, and then runs the bot."""

    async def first(supabase: SupabaseClient) -> None:
        await supabase.auth.sign_in_with_password(ANNA)
        await supabase.from_("todos").select("*").execute()
        await supabase.aclose()

    async def second(supabase: SupabaseClient) -> None:
        await supabase.from_("todos").select("*").execute()
        await supabase.channel("room").subscribe()
        await supabase.aclose()

    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(whole_project()) as project,
    ):
        supabase = create_client(project.url, project.realtime.anon_key)
        asyncio.run(first(supabase))
        asyncio.run(second(supabase))
        tokens = project.tokens("/rest/v1/todos")
        joined = joins(project)
    assert len(tokens) == 2
    assert {*tokens, joined[0].payload["access_token"]} == {tokens[0]}
    assert tokens[0] != project.realtime.anon_key


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"auth": {"persist_session": True}}, "did you mean 'persistSession'"),
        ({"auth": {"detectSessionInUrl": True}}, "no option 'detectSessionInUrl'"),
        ({"db": {"schemas": "x"}}, "did you mean 'schema'"),
        ({"global_": {"fetch": print}}, "known: headers"),
    ],
)
def test_an_unknown_key_of_an_option_is_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        create_client("https://x.supabase.co", "key", **options)
    with pytest.raises(TypeError, match="is a dict"):
        create_client("https://x.supabase.co", "key", **dict.fromkeys(options, cast(Any, "x")))


def test_without_the_extra_the_line_to_install_it_is_said() -> None:
    code = """if True:
        import sys
        sys.modules["httpx"] = None  # As if it were not installed.
        from supabase_rt import create_client
        supabase = create_client("https://x.supabase.co", "key")
        for use in (
            lambda: supabase.auth,
            lambda: supabase.from_("todos"),
            lambda: supabase.rpc("f"),
            lambda: supabase.storage,
            lambda: supabase.functions,
        ):
            try:
                use()
            except ModuleNotFoundError as exc:
                print(exc)
    """
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 5
    assert all("'httpx'" in line and "pip install 'supabase-rt[full]'" in line for line in lines)
