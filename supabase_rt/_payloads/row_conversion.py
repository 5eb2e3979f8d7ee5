"""Rows of the database converted by the types of their columns as supabase-js does.

A change arrives with ``columns``, a list of ``{"name", "type"}``, and one or two rows. Three
modes turn a row into a dict:

``"js"``
    The result of supabase-js, except that integers of any size are exact. Only strings are
    converted: current servers send numbers, booleans, JSON and arrays as such.
``"python"``
    Python objects: ``Decimal``, ``datetime``, ``UUID``, ``bytes``, nested lists.
``"raw"``
    The decoded JSON, unchanged.

The public functions for cells have the names of those that supabase-js exports.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Container, Mapping, Sequence
from operator import itemgetter
from typing import Any, ClassVar, Final, NoReturn

import msgspec
from msgspec import UNSET, UnsetType

from .._wire.json_codec import UNREADABLE, loads, plain
from ..errors import DecodeError
from .pg_values import Cell, decode_raw, python_cell

__all__ = [
    "MODES",
    "check_mode",
    "convert_cell",
    "convert_change_data",
    "convert_column",
    "convert_row",
    "js_row",
    "to_array",
    "to_boolean",
    "to_json",
    "to_number",
    "to_timestamp_string",
    "undecoded",
]

MODES: Final = ("js", "python", "raw")
"""The values of ``types=``."""

PLANS: Final = 512
"""Tables in the cache; a row of any other table takes some microseconds more."""

Convert = Callable[[Any], Any]


def check_mode(types: object) -> None:
    """Raise ``ValueError`` unless ``types`` is ``"js"``, ``"python"`` or ``"raw"``."""
    if types not in MODES:
        raise ValueError(f'types must be "js", "python" or "raw", not {types!r}')


# -- the helpers of supabase-js ----------------------------------------------------------

# The beginning of a text that parseFloat of JavaScript reads; it ignores the remainder too.
_NUMBER: Final = re.compile(
    "[\\s\ufeff]*([+-]?(?:Infinity|([0-9]+\\.?[0-9]*|\\.[0-9]+)(?:[eE][+-]?[0-9]+)?))"
)
_INTEGER: Final = re.compile(r"[+-]?[0-9]+")


def to_boolean(value: Any) -> Any:
    """Returns ``"t"`` and ``"f"`` as booleans, any other value unchanged."""
    if isinstance(value, str):
        return {"t": True, "f": False}.get(value, value)
    return value


def to_number(value: Any) -> Any:
    """Returns a text as a number: ``int`` if it is an integer, else ``float``.

    As in JavaScript, text after the number is ignored. A text that begins with no number
    (``"NaN"`` too) is returned unchanged, as is a value that is no text.
    """
    if not isinstance(value, str):
        return value
    found = _NUMBER.match(value)
    if found is None:
        return value
    text = found[1]
    try:
        return int(text) if _INTEGER.fullmatch(text) else float(text)
    except ValueError:
        # Longer than sys.set_int_max_str_digits allows.
        return value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _parse_json(text: str) -> Any:
    """Decode strict JSON, as JavaScript does; raises ``ValueError`` or ``RecursionError``."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError):
        # JavaScript reads numbers beyond float and lone surrogates, but not NaN.
        return json.loads(text, parse_constant=_refuse)


def to_json(value: Any) -> Any:
    """Returns a JSON text decoded, any other value unchanged."""
    if isinstance(value, str):
        try:
            return _parse_json(value)
        except (ValueError, RecursionError):
            pass
    return value


def to_array(value: Any, type: str) -> Any:
    """Returns ``"{a,b}"`` as a list whose elements are converted as ``type``.

    This is the incomplete parser of supabase-js: it reads quoted elements, but ``NULL`` stays a
    text and nested arrays break. ``types="python"`` reads all of them. A value that is no text in
    braces is returned unchanged.
    """
    if not isinstance(value, str) or value[:1] != "{" or value[-1:] != "}":
        return value
    inner = value[1:-1]
    try:
        elements = _parse_json(f"[{inner}]")
    except (ValueError, RecursionError):
        elements = inner.split(",")
    # Postgres has no type "array of arrays", so a second underscore is no array. A made-up name
    # of many underscores must not recurse.
    convert = None if type[:1] == "_" else _js_convert(type)
    return elements if convert is None else [convert(element) for element in elements]


def to_timestamp_string(value: Any) -> Any:
    """Returns a text with its first space replaced by ``T``, as in ISO 8601."""
    return value.replace(" ", "T", 1) if isinstance(value, str) else value


_JS_CONVERTS: Final[dict[str, Convert]] = {
    "bool": to_boolean,
    **dict.fromkeys(("int2", "int4", "int8", "float4", "float8", "numeric", "oid"), to_number),
    "json": to_json,
    "jsonb": to_json,
    "timestamp": to_timestamp_string,
}


def _js_convert(type_name: str) -> Convert | None:
    if type_name[:1] == "_":
        return functools.partial(to_array, type=type_name[1:])
    return _JS_CONVERTS.get(type_name)


def convert_cell(type: str, value: Any) -> Any:
    """Returns ``value`` converted as supabase-js converts a cell of this Postgres type."""
    convert = _js_convert(type)
    return value if convert is None else convert(value)


def convert_column(
    name: str,
    columns: Sequence[Mapping[str, Any]],
    record: Mapping[str, Any],
    skip_types: Container[str] = (),
) -> Any:
    """Returns the value of one column of ``record``, or None if the record lacks it.

    Types in ``skip_types`` are not converted. Raises ``DecodeError`` for malformed columns.
    """
    value = record.get(name)
    type_name = _types(columns).get(name)
    return value if type_name is None or type_name in skip_types else convert_cell(type_name, value)


def convert_change_data(
    columns: Sequence[Mapping[str, Any]],
    record: Mapping[str, Any] | None,
    skip_types: Container[str] = (),
) -> dict[str, Any]:
    """Returns a converted row; ``{}`` for no row.

    Types in ``skip_types`` are not converted. Raises ``DecodeError`` for malformed columns.
    """
    row = dict(record or {})
    for name, type_name in _types(columns).items():
        if name in row and type_name not in skip_types:
            row[name] = convert_cell(type_name, row[name])
    return row


# -- rows --------------------------------------------------------------------------------


class _Column(msgspec.Struct, gc=False):
    name: str
    type: str | None = None


_columns: Final = msgspec.json.Decoder(list[_Column] | None)
_row: Final = msgspec.json.Decoder(dict[str, Any])
_raw_row: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


def _types(columns: Any) -> dict[str, str]:
    """Returns the type of each column. The first of several equal names counts, as in
    supabase-js."""
    try:
        found = msgspec.convert(columns, list[_Column] | None) or []
    except UNREADABLE as exc:
        problem = str(exc)
    else:
        return _by_name(found)
    raise DecodeError(f"malformed columns: {problem}")


def _by_name(columns: list[_Column]) -> dict[str, str]:
    found: dict[str, str] = {}
    for column in columns:
        if column.type is not None:
            found.setdefault(column.name, column.type)
    return found


def _types_raw(columns: bytes) -> dict[str, str]:
    try:
        return _by_name(_columns.decode(columns) or [])
    except UNREADABLE:
        return _types(loads(columns))


class _JsPlan:
    """The conversions for the rows of one table in the mode ``"js"``: of texts only."""

    __slots__ = ("_converts", "_look")

    latest: ClassVar[tuple[bytes, _JsPlan]]
    """The last plan and its columns: a comparison is cheaper than a hash of the columns."""

    def __init__(self, types: dict[str, str]) -> None:
        found = ((name, _js_convert(type_name)) for name, type_name in types.items())
        self._converts = [(name, convert) for name, convert in found if convert is not None]
        names = [name for name, _ in self._converts]
        # The first name is repeated, because itemgetter returns no tuple for a single name.
        self._look = itemgetter(*names, names[0]) if names else None

    def convert(self, row: dict[str, Any]) -> None:
        """Convert a row in place."""
        if self._look is None:
            return
        try:
            # Current servers send few of these as texts, so mostly this check is enough.
            for value in self._look(row):
                if type(value) is str:
                    break
            else:
                return
        except KeyError:
            pass
        for name, convert in self._converts:
            value = row.get(name)
            if isinstance(value, str):
                row[name] = convert(value)


_JsPlan.latest = b"[]", _JsPlan({})


def _cells(types: dict[str, str]) -> dict[str, Cell]:
    cells = ((name, python_cell(type_name)) for name, type_name in types.items())
    return {name: cell for name, cell in cells if cell is not None}


class _PythonPlan:
    """The conversions for the rows of one table in the mode ``"python"``.

    A row is decoded twice: as JSON, and into a struct. The struct has the columns that msgspec
    itself converts, and those whose JSON text is needed. That is cheaper than a call for each cell.
    """

    __slots__ = ("_of_text", "_others", "_typed", "_typed_columns", "cells", "is_complete")

    def __init__(self, types: dict[str, str]) -> None:
        self.cells = _cells(types)
        typed = {name: cell for name, cell in self.cells.items() if cell.is_exact or cell.native}
        self._typed = _typed_decoder(typed) if typed else None
        self.is_complete = not typed or self._typed is not None
        """True if the struct could be built, so that ``row`` may be called."""
        self._typed_columns = [
            (name, cell.raw if cell.is_exact else None) for name, cell in typed.items()
        ]
        rest = [(name, cell) for name, cell in self.cells.items() if name not in typed]
        self._of_text = [(name, cell.plain) for name, cell in rest if cell.is_of_text]
        self._others = [(name, cell.plain) for name, cell in rest if not cell.is_of_text]

    def row(self, record: msgspec.Raw) -> dict[str, Any]:
        """Returns the row; raises the decoder's error for a cell of an unusual form."""
        row: dict[str, Any] = _row.decode(record)
        if self._typed is not None:
            values = msgspec.structs.astuple(self._typed.decode(record))
            for (name, exact), value in zip(self._typed_columns, values, strict=True):
                if value is not UNSET:
                    row[name] = value if exact is None else exact(value)
        for name, convert in self._of_text:
            value = row.get(name)
            if type(value) is str:
                row[name] = convert(value)
        for name, convert in self._others:
            if name in row:
                row[name] = convert(row[name])
        return row


def _typed_decoder(columns: dict[str, Cell]) -> msgspec.json.Decoder[Any] | None:
    """Returns the decoder of these columns, or None if msgspec refuses a column name.

    A column that the row lacks is UNSET.
    """
    # msgspec 0.22 does not find keys of a TypedDict that are not ASCII.
    members = [
        (f"c{number}", (msgspec.Raw if cell.is_exact else cell.native | None) | UnsetType, UNSET)
        for number, cell in enumerate(columns.values())
    ]
    names = {member[0]: name for member, name in zip(members, columns, strict=True)}
    try:
        return msgspec.json.Decoder(msgspec.defstruct("Row", members, rename=names, gc=False))
    except ValueError:
        return None


# The key is the JSON text of the columns, which every change of a table repeats exactly.
@functools.lru_cache(PLANS)
def _js_plan_cached(columns: bytes) -> _JsPlan:
    return _JsPlan(_types_raw(columns))


@functools.lru_cache(PLANS)
def _python_plan(columns: bytes) -> _PythonPlan:
    return _PythonPlan(_types_raw(columns))


def undecoded(record: Any) -> dict[str, msgspec.Raw]:
    """Returns the cells of a row as JSON texts; ``{}`` for a row that msgspec cannot read."""
    try:
        found: dict[str, msgspec.Raw] = _raw_row.decode(record)
    except (*UNREADABLE, TypeError):
        return {}
    return found


def _decode_row(record: Any) -> dict[str, Any]:
    """Returns the decoded row as a new dict."""
    if isinstance(record, msgspec.Raw):
        try:
            return _row.decode(record)
        except UNREADABLE:
            record = plain(record)
    if record is None:
        return {}
    if isinstance(record, dict):
        return dict(record)
    raise DecodeError(f"a row that is no object but {type(record).__name__}")


def js_row(columns: Any, record: Any) -> dict[str, Any]:
    """Returns ``convert_row`` in the mode ``"js"``."""
    try:
        row: dict[str, Any] = _row.decode(record)
    except (*UNREADABLE, TypeError):
        row = _decode_row(record)
    if isinstance(columns, msgspec.Raw):
        text = bytes(columns)
        known, plan = _JsPlan.latest
        if text != known:
            plan = _js_plan_cached(text)
            _JsPlan.latest = text, plan
    else:
        plan = _JsPlan(_types(columns))
    plan.convert(row)
    return row


def _python_row(columns: Any, record: Any) -> dict[str, Any]:
    if isinstance(columns, msgspec.Raw):
        plan = _python_plan(bytes(columns))
        cells = plan.cells
        if plan.is_complete and isinstance(record, msgspec.Raw):
            try:
                return plan.row(record)
            except UNREADABLE:
                pass
    else:
        cells = _cells(_types(columns))
    if isinstance(record, msgspec.Raw):
        try:
            texts = _raw_row.decode(record)
        except UNREADABLE:
            pass
        else:
            return {
                name: cells[name].raw(raw) if name in cells else decode_raw(raw)
                for name, raw in texts.items()
            }
    return {
        name: cells[name].plain(value) if name in cells else value
        for name, value in _decode_row(record).items()
    }


def convert_row(columns: Any, record: Any, mode: str) -> dict[str, Any]:
    """Returns a new dict of a row, converted by the types of its columns.

    ``columns`` and ``record`` are undecoded JSON (``msgspec.Raw``) or None. If only ``json`` could
    read the frame, they are a list and a dict. A cell of an unlisted column, or of a type without a
    conversion, is left unchanged. A listed column that the record lacks is not added.

    Raises ``DecodeError`` for malformed columns or records, ``ValueError`` for an unknown mode
    (docs/protocol.md#the-event).
    """
    if mode == "js":
        return js_row(columns, record)
    if mode == "python":
        return _python_row(columns, record)
    check_mode(mode)
    return _decode_row(record)
