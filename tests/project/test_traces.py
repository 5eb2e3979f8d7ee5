"""docs/contributing/traces.md shows the functions that its three calls go through."""

from __future__ import annotations

import pytest

from supabase_rt.testing import ThreadedRealtime

from .traces import TRACES, shown_now, shown_on_page


@pytest.mark.parametrize("name", TRACES)
async def test_the_page_lists_the_functions_of_a_call(
    name: str, realtime_server: ThreadedRealtime
) -> None:
    """``python -m tests.project.traces --write`` renews the lists."""
    assert (await shown_now(name, realtime_server)).splitlines() == shown_on_page(name).splitlines()
