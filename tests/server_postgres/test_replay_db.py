"""The recorded conversations, played to our server instead of the real one."""

from __future__ import annotations

import pytest

from supabase_rt.server import LocalRealtime
from tests.contract.replay.recordings import NAMES

from .differences import DIFFERENCES
from .player import play
from .scripts import SCRIPTS
from .table import PAGE, PLAYED, page


@pytest.mark.parametrize("name", PLAYED)
async def test_a_recorded_conversation(db: LocalRealtime, name: str) -> None:
    script = SCRIPTS[name]() if name in SCRIPTS else {}
    player = await play(db, name, script)
    assert player.compared > 2
    assert player.unneeded() == [], "explanations of what did not happen"


def test_every_difference_belongs_to_a_recording_that_is_played() -> None:
    for each in DIFFERENCES:
        assert set(each.recordings) <= set(PLAYED)
    assert set(NAMES) - set(PLAYED) == {"longpoll"}


def test_the_page_of_differences_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run python -m tests.server_postgres.table"
