from __future__ import annotations

import pytest

from supabase_rt._protocol.refusals import (
    BY_CODE,
    CHANGE_REMEDIES,
    CHANGE_RULES,
    RULES,
    UNKNOWN,
    Rule,
    Verdict,
)


@pytest.mark.parametrize("rule", [*RULES, *CHANGE_RULES, UNKNOWN])
def test_every_rule_says_what_to_do(rule: Rule) -> None:
    assert rule.hint.strip() == rule.hint != ""


def test_every_remedy_says_what_to_do() -> None:
    assert all(part and hint for part, hint in CHANGE_REMEDIES)


def test_no_rule_stands_behind_one_that_takes_its_texts() -> None:
    for position, rule in enumerate(RULES):
        for earlier in RULES[:position]:
            if earlier.code == rule.code or (earlier.text and rule.text):
                assert not rule.text.startswith(earlier.text), (earlier, rule)


def test_the_last_change_rule_takes_every_text() -> None:
    assert [rule.text for rule in CHANGE_RULES].index("") == len(CHANGE_RULES) - 1


def test_rules_are_found_by_code_in_their_order() -> None:
    assert [rule for rules in BY_CODE.values() for rule in rules] == sorted(
        RULES, key=lambda rule: list(BY_CODE).index(rule.code)
    )


@pytest.mark.parametrize("code", [code for code in BY_CODE if code.endswith("RateLimitReached")])
def test_rate_limits_wait_except_where_the_user_must_leave_channels(code: str) -> None:
    verdict = Verdict.FINAL if code == "ChannelRateLimitReached" else Verdict.RETRY_LATER
    assert {rule.verdict for rule in BY_CODE[code]} == {verdict}
