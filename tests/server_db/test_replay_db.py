"""The recorded conversations about a database, with our server in the place of the real one."""

from __future__ import annotations

import pytest

from supabase_rt.server import LocalRealtime

from .player import play


@pytest.mark.parametrize(
    "name",
    [
        "postgres_changes",
        "postgres_changes_types",
        "postgres_changes_rls",
        "postgres_changes_filters",
        "postgres_changes_filters_update_delete",
        "postgres_changes_select",
        "postgres_changes_errors",
        "postgres_changes_bulk",
        "db_broadcast_replay",
        "private_channel",
    ],
)
async def test_a_recorded_conversation(db: LocalRealtime, name: str) -> None:
    assert await play(db, name) > 3


async def test_a_new_token_subscribes_anew(db: LocalRealtime) -> None:
    # The rest of that recording is about tokens of other kinds, and needs no database.
    assert await play(db, "access_token", until=1952.9) == 4
