"""A sample of the random schedules; ``make soak`` plays a thousand."""

from __future__ import annotations

import pytest

from .laboratory import play
from .virtual import run_virtual

SEEDS = range(16)


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_goes_wrong_everything_is_well_again_and_nothing_is_lost(seed: int) -> None:
    # asyncio's debug mode triples the time, and finds none of the faults that these tests look for.
    run_virtual(play(seed), debug=False)
