"""Every scenario has the same course in both languages, except for the differences it explains."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest

from . import idioms
from .compare import unexplained
from .explained import RULES
from .javascript_side import SKIPPED, Missing, install
from .run import play_both
from .scenario import Scenario
from .scenarios import SCENARIOS
from .statements import ADDITIONS, KEPT, QUIRKS, VERIFIED
from .table import README, with_table

Records = dict[str, Any]


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> tuple[Records, Records]:
    """Both sides' records of all scenarios, which are played at once."""
    try:
        install()
    except Missing as exc:
        pytest.skip(f"{SKIPPED}: {exc}")
    # asyncio's debug mode is too slow for a hundred conversations at once.
    return asyncio.run(play_both(SCENARIOS, tmp_path_factory.mktemp("js")), debug=False)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.id)
def test_same_as_the_official_client(scenario: Scenario, records: tuple[Records, Records]) -> None:
    js, ours = records
    found = unexplained(scenario, js[scenario.id], ours[scenario.id])
    assert not found, "\n".join(["not the same:", *found])


def test_the_javascript_of_the_porting_page_is_javascript() -> None:
    if shutil.which("node") is None:
        pytest.skip(f"{SKIPPED}: needs Node, and found none")
    assert idioms.syntax_errors() == []


async def test_the_javascript_of_the_porting_page_runs_with_the_official_client(
    tmp_path: Path,
) -> None:
    """This test is here and not with the other pages, because the packages are installed once for
    this file.
    """
    try:
        await asyncio.to_thread(install)
    except Missing as exc:
        pytest.skip(f"{SKIPPED}: {exc}")
    played = await idioms.play(tmp_path)
    assert (played["failures"], played["missing"]) == ([], [])


def test_scenarios_have_names_of_their_own() -> None:
    names = [scenario.id for scenario in SCENARIOS]
    assert len(set(names)) == len(names) >= 60


def test_scenarios_run_both_protocol_versions() -> None:
    assert sum(one.client.get("vsn") == "1.0.0" for one in SCENARIOS) >= 30


def test_every_statement_is_covered() -> None:
    covered = {id for scenario in SCENARIOS for id in scenario.covers}
    assert len(VERIFIED) == 88
    assert covered == VERIFIED.keys() | QUIRKS.keys() | ADDITIONS.keys()


def test_every_defect_of_the_official_client_has_its_difference_written_down() -> None:
    differing = {id for one in SCENARIOS if one.differs or one.rules for id in one.covers}
    assert QUIRKS.keys() - KEPT <= differing


def test_every_difference_has_a_reason() -> None:
    for scenario in SCENARIOS:
        for differs in scenario.differs:
            assert len(differs.why) > 20, f"{scenario.id}: {differs.at}"


def test_every_rule_is_needed() -> None:
    assert {name for scenario in SCENARIOS for name in scenario.rules} == set(RULES)


def test_table_of_the_readme_is_up_to_date() -> None:
    text = README.read_text(encoding="utf-8")
    assert text == with_table(text), "run python -m tests.contract.differential.table"


def test_without_node_nothing_is_installed_and_the_reason_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(Missing, match="needs Node 20 or newer with npm, and found none"):
        install()


def test_scenarios_that_were_skipped_are_told_loudly(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile(
        f"""
        import pytest
        def test_one(): pytest.skip("{SKIPPED}: no Node")
        def test_two(): pytest.skip("for another reason")
        """
    )
    found = pytester.runpytest(
        "-p", "tests.contract.differential.conftest", "-p", "no:cacheprovider"
    )
    found.stdout.fnmatch_lines(["!* 1 scenarios did not run !*", f"{SKIPPED}: no Node"])


def test_scenarios_are_data_for_the_other_side(tmp_path: Path) -> None:
    for scenario in SCENARIOS:
        assert set(scenario.for_javascript()) == {"id", "client", "steps"}
