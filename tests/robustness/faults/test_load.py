"""Seconds of load; ``make soak`` runs minutes, and also checks memory and pace."""

from __future__ import annotations

from .load import Load, run_load


async def test_under_load_and_resets_nothing_is_lost_in_silence_or_out_of_order() -> None:
    said: list[str] = []
    load = Load(rate=2000, seconds=2.0, reset_every=0.6, is_soak=False)
    assert await run_load(load, said.append) == []
    assert "0 dropped" in said[0]
