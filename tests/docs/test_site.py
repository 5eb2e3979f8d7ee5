"""``make docs``: the site is built without a warning, is complete, and fetches nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import supabase_rt
from supabase_rt import errors, otel, rows, server, sync, testing, types

from ..support.snippets import PAGES, ROOT

EXTERNAL = re.compile(r"""<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=["']?(?:https?:)?//""")
ANCHOR = re.compile(r'\bid="([^"]+)"')


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Builds the site in a process without a proxy, because it needs no network."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.timeout(150)
def test_every_page_is_built_and_loads_nothing_from_elsewhere(site: Path) -> None:
    for page in PAGES:
        if page.name != "README.md":
            built = site / page.relative_to(ROOT / "docs").with_suffix(".html")
            found = EXTERNAL.findall(re.sub(r'<link rel="canonical"[^>]*>', "", built.read_text()))
            assert found == [], page
    for style in site.glob("**/*.css"):
        assert not re.search(r"url\(['\"]?(?:https?:)?//", style.read_text()), style


@pytest.mark.timeout(150)
def test_every_public_name_stands_in_the_reference(site: Path) -> None:
    known = {
        anchor
        for page in (site / "api").glob("*.html")
        for anchor in ANCHOR.findall(page.read_text())
    }
    names = {
        # The reference shows the errors as a whole module, with their tree.
        f"{(errors if name in errors.__all__ else module).__name__}.{name}"
        for module in (supabase_rt, otel, rows, server, sync, testing, types)
        for name in module.__all__
        # The names REALTIME_... are aliases of enums in the reference.
        if not name.startswith(("__", "REALTIME_"))
    }
    assert names - known == set()
