"""The pages for contributors name what exists, and links from the code lead to headings."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from markdown.extensions.toc import slugify, unique  # type: ignore[import-untyped]

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "supabase_rt"
DOCS = ROOT / "docs"
PAGES = [ROOT / "CONTRIBUTING.md", *sorted((DOCS / "contributing").glob("*.md"))]
SOURCES = [
    path
    for folder in ("supabase_rt", "tests", "benchmarks")
    for path in sorted((ROOT / folder).rglob("*.py"))
]

NOT_OURS = {"TypedDict"}

CITATION = re.compile(r"\bdocs/([\w/-]+\.md)(?:#([\w-]+))?")
CODE = re.compile(r"`([^`\n]+)`")
PATH = re.compile(r"[\w.*-]+(?:/[\w.*-]+)*/?")
CLASS = re.compile(r"[A-Z][a-z]\w*(?:[A-Z]\w*)*")


@cache
def headings(page: Path) -> set[str]:
    """Returns the anchors of a page, as mkdocs makes them."""
    found: set[str] = set()
    in_code = False
    for line in page.read_text().splitlines():
        if line.lstrip().startswith("```"):
            in_code = not in_code
        elif not in_code and (heading := re.match(r"#+ (.+)$", line)):
            text = re.sub(r"\[(.*?)\]\(.*?\)|[`*]", r"\1", heading[1])
            found.add(unique(slugify(text, "-"), found))
    return found


def citations(path: Path) -> Iterator[tuple[str, str | None]]:
    """Yields the pages that a file names, each with its anchor or None."""
    for page, anchor in CITATION.findall(path.read_text()):
        yield page, anchor or None


def test_a_page_that_the_code_cites_exists_and_has_the_heading() -> None:
    wrong = []
    count = 0
    for path in SOURCES:
        for page, anchor in citations(path):
            count += 1
            if not (DOCS / page).exists() or (anchor and anchor not in headings(DOCS / page)):
                where = path.relative_to(ROOT)
                wrong.append(f"{where} cites docs/{page}" + (f"#{anchor}" if anchor else ""))
    assert wrong == []
    assert count > 50


def code_of(page: Path) -> list[str]:
    """Returns the pieces of code within the text of a page."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return CODE.findall(text)


def is_path(code: str) -> bool:
    return PATH.fullmatch(code) is not None and (
        "/" in code or code.endswith((".py", ".md", ".toml"))
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_path_on_a_page_for_contributors_exists(page: Path) -> None:
    """A path begins at the top of the repository or in the package."""
    missing = [
        code
        for code in code_of(page)
        if is_path(code)
        if not ((ROOT / code).exists() or (PACKAGE / code).exists())
    ]
    assert missing == []


def test_the_recipes_name_many_paths() -> None:
    assert len(list(filter(is_path, code_of(DOCS / "contributing" / "recipes.md")))) > 50


def class_names() -> set[str]:
    return {
        node.name
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    }


def test_every_class_on_a_page_for_contributors_exists() -> None:
    named = {code for page in PAGES for code in code_of(page) if CLASS.fullmatch(code)} - NOT_OURS
    assert len(named) > 10
    assert named - class_names() == set()


RECIPES = (DOCS / "contributing" / "recipes.md").read_text()


@pytest.mark.parametrize("recipe", re.findall(r"^## (.+)$", RECIPES, re.MULTILINE))
def test_a_recipe_says_which_test_fails_first(recipe: str) -> None:
    section = RECIPES.split(f"\n## {recipe}\n")[1].split("\n## ")[0]
    assert "First failing test: " in section


GLOSSARY = (DOCS / "contributing" / "glossary.md").read_text()


def test_a_word_of_the_glossary_has_one_sentence_and_is_used() -> None:
    entries = re.findall(r"^\* \*\*(.+?)\*\*: (.+)$", GLOSSARY, re.MULTILINE)
    texts = "".join(path.read_text() for path in PACKAGE.rglob("*.py")).lower()
    assert 35 <= len(entries) <= 50
    for word, sentence in entries:
        assert re.fullmatch(r"[A-Z][^.]*(?:\.\w[^.]*)*\.", sentence), word
        assert word in texts, word
