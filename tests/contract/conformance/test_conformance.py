"""The checklist has no hole, its markers name existing ids, and the page is up to date."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from supabase_rt import RealtimeClient

from .capabilities import CAPABILITIES, PATH, declared, resolve
from .marked import Unsure, marked
from .rows import numbers, rows
from .table import PATH as PAGE
from .table import render, status

LAST = {
    "CE": 25,
    "CI": 5,
    "CL": 23,
    "CM": 44,
    "CP": 47,
    "CR": 20,
    "PU": 25,
    "AR": 4,
    "AU": 13,
    "CC": 18,
    "CF": 7,
    "LG": 3,
    "LC": 23,
    "RS": 7,
    "RT": 15,
    "TR": 7,
    "WK": 8,
    "FB": 72,
    "IX": 3,
    "NE": 9,
    "SZ": 24,
    "TF": 8,
    "WF": 30,
    "AD": 5,
    "PA": 14,
    "SA": 5,
    "SJ": 15,
    "SI": 9,
    "PC": 70,
    "PS": 74,
    "PP": 14,
    "NX": 21,
}
"""The number of behaviours in each group, so that none is lost."""


def test_every_behaviour_has_its_row_once() -> None:
    found = [number for row in rows() for number in numbers(row.id)]
    assert len(set(found)) == len(found)
    assert set(found) == {(name, n) for name, last in LAST.items() for n in range(1, last + 1)}


def test_every_row_has_a_test_or_a_reason() -> None:
    found = marked()
    holes = [row.id for row in rows() if status(row, found.get(row.id, [])) == "MISSING"]
    assert holes == []


def test_only_what_makes_no_sense_in_python_or_has_a_reason_is_without_a_test() -> None:
    found = marked()
    for row in rows():
        assert row.mark in ("P", "A", "N")
        assert row.behaviour
        if row.mark == "N":
            assert row.reason, f"{row.id} needs a reason"
            assert row.id not in found, f"{row.id} has a test: it is A"


def test_every_marker_names_something() -> None:
    known = {row.id for row in rows()} | set(CAPABILITIES)
    assert set(marked()) - known == set()


def test_the_page_is_the_latest() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(), "run make conformance"


# -- the collector -----------------------------------------------------------------------


def write(folder: Path, text: str) -> Path:
    tests = folder / "tests"
    tests.mkdir()
    (tests / "test_x.py").write_text(text)
    return tests


def test_markers_are_found_on_tests_and_on_their_parameters(tmp_path: Path) -> None:
    tests = write(
        tmp_path,
        "@pytest.mark.conformance('A1', 'A2')\n"
        "@pytest.mark.parametrize('x', [pytest.param(1, marks=pytest.mark.conformance('A3'))])\n"
        "async def test_it(x): ...\n",
    )
    name = "tests/test_x.py::test_it"
    assert marked(tests) == {"A1": [name], "A2": [name], "A3": [name]}


@pytest.mark.parametrize(
    "text",
    [
        "@pytest.mark.skip\n@pytest.mark.conformance('A1')\ndef test_it(): ...\n",
        "@pytest.mark.conformance('A1')\n@pytest.mark.xfail(reason='x')\ndef test_it(): ...\n",
        "pytestmark = pytest.mark.skipif(True)\n@pytest.mark.conformance('A1')\ndef test_it(): ...",
        "pytest.importorskip('x')\n@pytest.mark.conformance('A1')\ndef test_it(): ...\n",
    ],
)
def test_a_marker_on_a_test_that_may_not_run_is_an_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(Unsure, match=r"test_x\.py::test_it"):
        marked(write(tmp_path, text))


def test_a_marked_test_that_skips_while_it_runs_fails(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makeini("[pytest]\nmarkers = conformance: ids\n")
    pytester.makepyfile(
        "import pytest\n"
        "@pytest.mark.conformance('A1')\n"
        "def test_marked(): pytest.skip('no')\n"
        "def test_other(): pytest.skip('no')\n"
    )
    found = pytester.runpytest("-p", "tests.support.markers", "-p", "no:cacheprovider")
    found.assert_outcomes(failed=1, skipped=1)


# -- capabilities ------------------------------------------------------------------------


def test_all_capabilities_are_declared_and_no_other() -> None:
    assert len(CAPABILITIES) == 33
    assert list(declared()) == CAPABILITIES


@pytest.mark.parametrize("id", CAPABILITIES)
def test_a_capability_is_implemented_by_symbols_that_exist_and_has_a_test(id: str) -> None:
    about = declared()[id]
    assert about["status"] == "implemented"
    assert about["symbols"]
    for symbol in about["symbols"]:
        resolve(symbol)
    assert marked().get(id), f"no test is marked with {id}"


def test_a_symbol_that_is_gone_is_noticed() -> None:
    with pytest.raises(AttributeError):
        resolve("RealtimeChannel.nothing")


def test_the_options_that_the_notes_name_exist() -> None:
    keywords = set(inspect.signature(RealtimeClient).parameters)
    named = set(re.findall(r"`(\w+)=`", PATH.read_text()))
    assert named
    assert named <= keywords
