"""``make audit`` reports if nothing was looked up."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .audit import verdict

CLEAN: dict[str, Any] = {"name": "aiohttp", "version": "3.14.0", "vulns": []}
UNKNOWN = {"name": "pyee", "skip_reason": "Dependency not found on PyPI: pyee (13.0.0)"}
OURS = {"name": "supabase-rt", "skip_reason": "distribution marked as editable"}
HIT = {"id": "PYSEC-1", "fix_versions": ["3.14.1"], "aliases": [], "description": "x"}


def of(*packages: Any) -> tuple[int, str]:
    return verdict(json.dumps({"dependencies": list(packages), "fixes": []}), "")


def test_a_vulnerability_is_named_and_fails() -> None:
    assert of({**CLEAN, "vulns": [HIT]}, UNKNOWN) == (
        1,
        "aiohttp 3.14.0: PYSEC-1, mended in 3.14.1",
    )
    assert "no version yet" in of({**CLEAN, "vulns": [{**HIT, "fix_versions": []}]})[1]


def test_what_was_looked_up_is_counted() -> None:
    assert of(CLEAN, OURS) == (0, "no known vulnerability in 1 packages")
    assert of(CLEAN, UNKNOWN, OURS)[1].endswith("1 packages, 1 could not be looked up")


@pytest.mark.parametrize(
    ("report", "problem"),
    [
        ("", "ERROR:pip_audit:could not connect"),
        ("", ""),
        ("[]", "x"),
        (json.dumps({"dependencies": [UNKNOWN, OURS]}), "No known vulnerabilities found"),
    ],
)
def test_where_nothing_could_be_looked_up_that_is_said(report: str, problem: str) -> None:
    code, text = verdict(report, problem)
    assert code == 0
    assert text.startswith("NOT AUDITED")
    assert "\n" not in text
