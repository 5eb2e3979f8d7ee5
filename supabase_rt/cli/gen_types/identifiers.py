"""Turns names of the database into unique Python identifiers."""

from __future__ import annotations

import builtins
import keyword
import re
import unicodedata
from collections.abc import Iterable

__all__ = ["MODULE", "class_name", "field_name", "member_name", "unique"]

IN_CLASSES = {"bool", "bytes", "dt", "field", "float", "int", "list", "pg", "str", "tuple"}
IN_CLASSES |= {"Any", "ClassVar", "Decimal", "UNSET", "UUID"}
"""Names that annotations and defaults in a class use. A field of the same name with a default is a
class attribute, and would hide them from the fields below it."""
MODULE = {*IN_CLASSES, "annotations", "dataclass", "DataClassJsonMixin", "StrEnum", *dir(builtins)}
"""Names that a class of the module must not have."""
OF_ROWS = {"schema", "to_dict", "from_dict", "to_json", "from_json", "dataclass_json_config"}
"""Attributes that dataclasses-json reads from the class."""
TAKEN = IN_CLASSES | OF_ROWS
ENUM_TAKEN = {"name", "value", "mro", *dir(str)}


def _folded(text: str) -> str:
    """Returns the text in the normal form in which Python compares identifiers."""
    return unicodedata.normalize("NFKC", text)


def _words(name: str) -> list[str]:
    """Split at characters that no identifier has, and at the humps of camelCase."""
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", _folded(name))
    return [word for word in re.split(r"[^0-9A-Za-z\u0080-\U0010ffff]+", apart) if word]


def _identifier(text: str, fallback: str) -> str:
    text = "".join(c if f"_{c}".isidentifier() else "_" for c in _folded(text)) or fallback
    # Removing a character may bring two others together that fold into one.
    text = _folded(text)
    return text if text.isidentifier() else f"_{text}"


def class_name(name: str) -> str:
    """``order_items`` as ``OrderItems``."""
    text = "".join(word[:1].upper() + word[1:] for word in _words(name))
    text = _identifier(text, "Unnamed")
    return f"{text}_" if keyword.iskeyword(text) else text


def field_name(name: str) -> str:
    """Returns the field name of a column: the same, if Python accepts it."""
    text = _identifier(name, "unnamed")
    # Two leading underscores are mangled inside a class.
    text = f"field{text}" if text.startswith("__") else text
    return f"{text}_" if keyword.iskeyword(text) or text in TAKEN else text


def member_name(value: str) -> str:
    """``in progress`` as ``IN_PROGRESS``."""
    text = _identifier("_".join(_words(value)).upper(), "EMPTY").strip("_") or "EMPTY"
    text = text if text.isidentifier() else f"V_{text}"
    return f"{text}_" if keyword.iskeyword(text) or text in ENUM_TAKEN else text


def unique(wanted: Iterable[str], taken: Iterable[str] = ()) -> list[str]:
    """Returns the names in order; a repeated one gets a number at its end."""
    seen = set(taken)
    found = []
    for name in wanted:
        number, free = 2, name
        while free in seen:
            free, number = f"{name.rstrip('_')}_{number}", number + 1
        seen.add(free)
        found.append(free)
    return found
