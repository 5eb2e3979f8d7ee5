"""What mkdocs does not do by itself."""

import re
from pathlib import Path
from typing import Any

COMING = ("security.md",)
"""Pages with a place in the navigation that is taken once they are written."""


def on_config(config: Any) -> Any:
    """Leave the places free that no page has taken yet."""
    missing = [name for name in COMING if not (Path(config["docs_dir"]) / name).exists()]
    config["nav"] = _without(config["nav"], missing)
    return config


def _without(entries: list[Any], missing: list[str]) -> list[Any]:
    found = []
    for entry in entries:
        ((title, target),) = entry.items()
        if isinstance(target, list):
            found.append({title: _without(target, missing)})
        elif target not in missing:
            found.append(entry)
    return found


def on_page_content(html: str, **_: Any) -> str:
    """Take out the ``::`` that stands before an example in a docstring, for ``help()``."""
    return re.sub(r"<p>::</p>", "", re.sub(r"([^:>]):?::</p>", r"\1:</p>", html))
