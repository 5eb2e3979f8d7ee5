"""The conversions of cells to Python objects, for ``types="python"``.

A value that cannot be converted is returned unchanged, such as ``infinity`` or a date before
Christ or after the year 9999.
"""

from __future__ import annotations

import binascii
import datetime
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import msgspec

from .._wire.json_codec import UNREADABLE, loads, plain
from ..errors import DecodeError
from .pg_arrays import MAX_DIMENSIONS, parse_array

__all__ = ["Cell", "decode_raw", "python_cell"]

Convert = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Cell:
    """The conversion of a column: ``plain`` takes decoded JSON, ``raw`` the JSON text."""

    plain: Convert
    raw: Callable[[msgspec.Raw], Any]
    native: Any = None
    """The type for which msgspec gives the same result, unless it refuses the value; or None."""
    is_exact: bool = False
    """True if the JSON text is needed, because a float would lose digits."""
    is_of_text: bool = False
    """True if only texts are converted."""

    def __call__(self, value: Any) -> Any:
        """Returns ``plain(value)``. As a callable object a cell can be the decoder of a field."""
        return self.plain(value)


_decode: Final = msgspec.json.Decoder().decode


def decode_raw(raw: msgspec.Raw) -> Any:
    """Returns ``json_codec.plain`` of a cell, with fewer calls and without a copy of the text."""
    try:
        return _decode(raw)
    except UNREADABLE:
        return plain(raw)


_INTEGER: Final = re.compile(r"[+-]?[0-9]+")
# int() and float() also accept underscores, blanks and digits of other scripts.
_NUMBER: Final = re.compile(
    r"[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|Infinity)|NaN"
)


def _from_text(parse: Callable[[str], Any]) -> Convert:
    def convert(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return parse(value)
        except (ValueError, ArithmeticError):
            return value

    return convert


def _bool(text: str) -> Any:
    return {"t": True, "true": True, "f": False, "false": False}.get(text, text)


def _int(text: str) -> Any:
    return int(text) if _INTEGER.fullmatch(text) else text


def _float_text(text: str) -> Any:
    return float(text) if _NUMBER.fullmatch(text) else text


def _decimal_text(text: str) -> Any:
    return Decimal(text) if _NUMBER.fullmatch(text) else text


def _native(kind: type, text: str) -> Any:
    """Returns the object that msgspec makes of the text, or None if it refuses the text."""
    try:
        return msgspec.convert(text, kind)
    except msgspec.ValidationError:
        return None


def _datetime(text: str) -> Any:
    found = _native(datetime.datetime, text)
    if found is not None:
        return found
    # msgspec refuses offsets without minutes or with seconds. fromisoformat also accepts week dates
    # and dates without dashes, which Postgres never writes.
    if text[4:5] != "-" or text[7:8] != "-":
        return text
    return datetime.datetime.fromisoformat(text)


def _date(text: str) -> Any:
    return _native(datetime.date, text) or text


def _time(text: str) -> Any:
    # 24:00:00 is the end of a day in Postgres; some versions of Python read it as the start.
    if text[2:3] != ":" or text.startswith("24"):
        return text
    return datetime.time.fromisoformat(text)


def _uuid(text: str) -> Any:
    return _native(uuid.UUID, text) or text


def _bytes(text: str) -> Any:
    # bytes.fromhex would skip blanks. Postgres writes \x; the server omits it.
    return binascii.unhexlify(text.removeprefix("\\x"))


def _json(text: str) -> Any:
    # A string in a json column arrives as that string. Older servers send a whole document as text:
    # only objects and arrays are decoded.
    if not text.startswith(("{", "[")):
        return text
    try:
        return loads(text)
    except DecodeError:
        return text


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_from_float_text: Final = _from_text(_float_text)
_from_decimal_text: Final = _from_text(_decimal_text)


def _float(value: Any) -> Any:
    """Returns a float; Postgres writes 2.0 as ``2``, so the value may be an integer."""
    if type(value) is float:
        return value
    if not _number(value):
        return _from_float_text(value)
    try:
        return float(value)
    except OverflowError:
        return value


def _decimal(value: Any) -> Any:
    # With repr, because Decimal(1.1) has the binary digits of the float.
    return Decimal(repr(value)) if _number(value) else _from_decimal_text(value)


def _decimal_raw(raw: msgspec.Raw) -> Any:
    """Returns the decimal of the JSON text, because a float would lose digits."""
    text = str(raw, "latin-1")
    if text[0] not in "-0123456789":
        return _decimal(decode_raw(raw))
    try:
        # The grammar of JSON numbers is stricter than _NUMBER, and the decoder has checked it.
        return Decimal(text)
    except ArithmeticError:
        return text


_elements: Final = msgspec.json.Decoder(list[msgspec.Raw])


def _decimals_raw(raw: msgspec.Raw, depth: int = MAX_DIMENSIONS) -> Any:
    if bytes(raw)[:1] != b"[" or not depth:
        return _decimal_raw(raw)
    try:
        elements = _elements.decode(raw)
    except UNREADABLE:
        # The array is nested too deeply for this decoder; the other decoder reads it or raises an
        # error.
        return decode_raw(raw)
    return [_decimals_raw(element, depth - 1) for element in elements]


_OF_TEXT: Final[dict[str, Convert]] = {
    "bool": _from_text(_bool),
    **dict.fromkeys(("int2", "int4", "int8", "oid"), _from_text(_int)),
    "timestamp": _from_text(_datetime),
    "timestamptz": _from_text(_datetime),
    "date": _from_text(_date),
    "time": _from_text(_time),
    "timetz": _from_text(_time),
    "uuid": _from_text(_uuid),
    "bytea": _from_text(_bytes),
    "json": _from_text(_json),
    "jsonb": _from_text(_json),
}
_CONVERTS: Final = {**_OF_TEXT, "float4": _float, "float8": _float, "numeric": _decimal}


def _each(convert: Convert, values: list[Any], depth: int = MAX_DIMENSIONS) -> list[Any]:
    return [
        _each(convert, value, depth - 1)
        if depth > 1 and isinstance(value, list)
        else convert(value)
        for value in values
    ]


def _same(value: Any) -> Any:
    return value


def _array(element: str) -> Convert:
    convert = _CONVERTS.get(element, _same)
    # A list in a list is a dimension, or a JSON value of a json array. The elements of a json array
    # are decoded already.
    decoded = _same if element in ("json", "jsonb") else convert
    delimiter = ";" if element == "box" else ","

    def convert_array(value: Any) -> Any:
        if isinstance(value, list):
            return value if decoded is _same else _each(decoded, value)
        if isinstance(value, str):
            try:
                return _each(convert, parse_array(value, delimiter))
            except ValueError:
                pass
        return value

    return convert_array


_decimals: Final = _array("numeric")


def _numeric_array_raw(raw: msgspec.Raw) -> Any:
    if bytes(raw)[:1] == b"[":
        return _decimals_raw(raw)
    return _decimals(decode_raw(raw))


def _decoded(convert: Convert) -> Callable[[msgspec.Raw], Any]:
    return lambda raw: convert(decode_raw(raw))


def _native_raw(kind: Any, convert: Convert) -> Callable[[msgspec.Raw], Any]:
    decode = msgspec.json.Decoder(kind | None).decode

    def read(raw: msgspec.Raw) -> Any:
        try:
            return decode(raw)
        except (msgspec.MsgspecError, UnicodeError):
            return convert(decode_raw(raw))

    return read


_NATIVE: Final = {
    "timestamp": datetime.datetime,
    "timestamptz": datetime.datetime,
    "date": datetime.date,
    "uuid": uuid.UUID,
}
_CELLS: Final = {
    **{
        name: Cell(convert, _decoded(convert), is_of_text=name in _OF_TEXT)
        for name, convert in _CONVERTS.items()
    },
    **{
        name: Cell(_CONVERTS[name], _native_raw(kind, _CONVERTS[name]), kind)
        for name, kind in _NATIVE.items()
    },
    "numeric": Cell(_decimal, _decimal_raw, is_exact=True),
    "_numeric": Cell(_decimals, _numeric_array_raw, is_exact=True),
}


def python_cell(type_name: str) -> Cell | None:
    """Returns the conversion for a Postgres type, by ``pg_type.typname``, or None."""
    found = _CELLS.get(type_name)
    if found is None and type_name[:1] == "_":
        convert = _array(type_name[1:])
        found = Cell(convert, _decoded(convert))
    return found
