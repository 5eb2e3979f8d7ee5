"""The other services, blocking."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio.from_thread import start_blocking_portal

from supabase_rt.server import LocalRealtime
from supabase_rt.sync import create_client

from ..services.project import Project, open_project


@asynccontextmanager
async def whole_project() -> AsyncIterator[Project]:
    async with LocalRealtime() as server, open_project(server) as found:
        yield found


def test_signing_in_moves_the_token_of_every_service() -> None:
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(whole_project()) as project,
        create_client(project.url, project.realtime.anon_key) as supabase,
    ):
        signed_in = supabase.auth.sign_in_with_password({"email": "a@example.org", "password": "p"})
        rows = supabase.from_("todos").select("*").eq("id", 1).execute()
        assert rows.data == [{"id": 1, "path": "/rest/v1/todos?select=%2A&id=eq.1"}]
        assert supabase.rpc("greet", {"name": "anna"}).execute().data[0]["id"] == 1
        assert supabase.schema("shop").from_("todos").select("*").execute().data[0]["id"] == 1
        assert supabase.storage.list_buckets() == []
        assert b"hello" in supabase.functions.invoke("hello")
        supabase.channel("room").subscribe()
        token = signed_in.session.access_token
        used = {token for _, path, token in project.asked if not path.startswith("/auth")}
        joins = [each for each in project.realtime.received if each.event == "phx_join"]
        assert used == {token} == {joins[0].payload["access_token"]}
        supabase.auth.sign_out()
        assert supabase.realtime.access_token_value == project.realtime.anon_key
