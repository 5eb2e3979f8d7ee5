"""The plugin that searches the suite's output for secrets finds them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from supabase_rt.server import LocalRealtime, new_secret

from ..support.leaks import LeakWatch, found_secret

SERVER = LocalRealtime()
TOKEN = SERVER.anon_key
PAGE = SERVER.inspector_url.partition("=")[2]


@pytest.mark.parametrize(
    "secret",
    [TOKEN, new_secret(), PAGE, "sb_secret_abcdefgh", "plainkey1f9q"],
    ids=["token", "signing secret", "page token", "secret key", "key"],
)
def test_a_secret_is_found_and_not_shown(secret: str) -> None:
    assert found_secret(f"the key {secret} was told") == "the key "
    assert found_secret(f"{secret[:8]} cut off, eyJhbGciOiJI... and sb_ are none") is None


@pytest.mark.parametrize(
    "tell",
    [
        lambda: logging.getLogger("anybody").error("the key %s", TOKEN),
        lambda: logging.getLogger("anybody").error("%s", {"token": TOKEN}),
    ],
)
@pytest.mark.tells_secrets("on purpose")
def test_records_are_searched_with_their_arguments(tell: Callable[[], Any]) -> None:
    watch = LeakWatch()
    logging.getLogger().addHandler(watch)
    try:
        tell()
    finally:
        logging.getLogger().removeHandler(watch)
    assert len(watch.told) == 1
    assert TOKEN not in watch.told[0]


@pytest.mark.tells_secrets("the report of the tests within")
def test_a_test_that_tells_a_secret_fails(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        f"""
        import logging, pytest
        TOKEN = {TOKEN!r}
        def test_nothing(): print("eyJ")
        def test_print(): print(TOKEN)
        def test_log(): logging.getLogger("x").critical(TOKEN)
        @pytest.mark.tells_secrets("on purpose")
        def test_exempt(): print(TOKEN)
        """
    )
    pytester.makeini("[pytest]\nmarkers = tells_secrets(why): exempt")
    found = pytester.runpytest_inprocess("-p", "tests.support.leaks", "-p", "no:asyncio")
    found.assert_outcomes(passed=4, errors=2)


@pytest.mark.loop_errors("the report of the tests within")
def test_a_test_in_which_asyncio_reports_an_error_fails(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import asyncio, gc, pytest
        def leave(number):
            async def fail(): raise OSError(number)
            async def main():
                task = asyncio.create_task(fail())
                await asyncio.wait([task])
            asyncio.run(main())
            gc.collect()
        def test_nothing(): pass
        def test_left(): leave(1)
        @pytest.mark.loop_errors("on purpose")
        def test_exempt(): leave(2)
        """
    )
    pytester.makeini("[pytest]\nmarkers = loop_errors(why): exempt")
    found = pytester.runpytest_inprocess("-p", "tests.support.loop_errors", "-p", "no:asyncio")
    found.assert_outcomes(passed=3, errors=1)
    found.stdout.fnmatch_lines(["*asyncio reported an error*", "*never retrieved*"])
