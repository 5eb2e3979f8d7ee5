"""Every scenario goes the same way in both languages, but for the differences it explains."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from .compare import unexplained
from .explained import RULES
from .javascript_side import Missing, install
from .run import play_both
from .scenario import Scenario
from .scenarios import SCENARIOS
from .statements import QUIRKS, UNOBSERVED, VERIFIED
from .table import README, with_table

Records = dict[str, Any]


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> tuple[Records, Records]:
    """Both sides' records of all scenarios, which are played at once."""
    try:
        install()
    except Missing as exc:
        pytest.skip(f"THE DIFFERENTIAL TEST AGAINST supabase-js WAS SKIPPED: {exc}")
    # A hundred conversations at once are too many for asyncio's debug mode.
    return asyncio.run(play_both(SCENARIOS, tmp_path_factory.mktemp("js")), debug=False)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.id)
def test_same_as_the_official_client(scenario: Scenario, records: tuple[Records, Records]) -> None:
    js, ours = records
    found = unexplained(scenario, js[scenario.id], ours[scenario.id])
    assert not found, "\n".join(["not the same:", *found])


def test_scenarios_have_names_of_their_own() -> None:
    names = [scenario.id for scenario in SCENARIOS]
    assert len(set(names)) == len(names) >= 60


def test_scenarios_run_both_protocol_versions() -> None:
    assert sum(one.client.get("vsn") == "1.0.0" for one in SCENARIOS) >= 5


def test_every_statement_is_covered_or_said_to_be_out_of_sight() -> None:
    covered = {id for scenario in SCENARIOS for id in scenario.covers}
    known = VERIFIED.keys() | QUIRKS.keys()
    assert len(VERIFIED) == 88
    assert covered | UNOBSERVED.keys() == known
    assert not covered & UNOBSERVED.keys()


def test_every_difference_has_a_reason() -> None:
    for scenario in SCENARIOS:
        for differs in scenario.differs:
            assert len(differs.why) > 20, f"{scenario.id}: {differs.at}"


def test_every_rule_is_needed() -> None:
    assert {name for scenario in SCENARIOS for name in scenario.rules} == set(RULES)


def test_table_of_the_readme_is_up_to_date() -> None:
    text = README.read_text(encoding="utf-8")
    assert text == with_table(text), "run python -m tests.differential.table"


def test_scenarios_are_data_for_the_other_side(tmp_path: Path) -> None:
    for scenario in SCENARIOS:
        assert set(scenario.for_javascript()) == {"id", "client", "steps"}
