"""What mkdocs does not do by itself."""

import re
from typing import Any


def on_page_content(html: str, **_: Any) -> str:
    """Take out the ``::`` that stands before an example in a docstring, for ``help()``."""
    return re.sub(r"<p>::</p>", "", re.sub(r"([^:>]):?::</p>", r"\1:</p>", html))
