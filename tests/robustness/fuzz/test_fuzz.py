"""The quick part of ``make fuzz``: the kept inputs, and new random input in each run."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from supabase_rt.server._tables import filter_matching as server_filters

from . import seeds
from .machine_targets import TARGETS as MACHINES
from .targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
IS_MACHINE = {target.__name__ for target in MACHINES}


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Unreadable frames are logged as warnings of the server, and these tests send thousands."""
    caplog.set_level(logging.CRITICAL)


def kept(target: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((CORPUS / target).glob("*"))]


@pytest.mark.parametrize("target", TARGETS)
def test_what_fuzzing_found_breaks_nothing_any_more(target: str) -> None:
    inputs = [*kept(target), *seeds.WRITTEN.get(target, ())]
    assert inputs, "no input was kept for this target"
    for data in inputs:
        TARGETS[target](data)


@pytest.mark.parametrize("target", TARGETS)
def test_any_bytes_at_all(target: str) -> None:
    @settings(
        max_examples=20 if target in IS_MACHINE else 100,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(st.binary(max_size=200) | st.sampled_from(seeds.seeds(target)))
    def run(data: bytes) -> None:
        TARGETS[target](data)

    run()


def test_the_corpus_stays_small() -> None:
    assert sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()) < 200_000
    assert {path.name for path in CORPUS.iterdir()} <= set(TARGETS)


@pytest.mark.parametrize("text", ['a=eq.""', 'a=in.(""'], ids=["value", "list"])
def test_the_time_of_a_filter_grows_with_its_length_only(text: str) -> None:
    """Found beside the fuzzing: the time grew with the square, which would exceed the time limit of
    the test.
    """
    assert len(list(server_filters.segments(text + '"' * 1_000_000))) == 1
