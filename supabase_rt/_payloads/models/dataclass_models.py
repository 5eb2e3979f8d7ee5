"""Rows as instances of the user's dataclass: ``model=Todo``.

A converter is compiled once for each class. msgspec decodes the JSON of a row into a struct with
the columns and types of the dataclass. Then the dataclass is built from the struct. The field
configs of dataclasses-json (``field_name``, ``letter_case``, ``decoder``) apply.
"""

from __future__ import annotations

import binascii
import dataclasses
import datetime
import functools
import inspect
import re
import types
import uuid
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final, NamedTuple, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import UNSET, UnsetType, structs

from ..._wire.json_codec import UNREADABLE, dumps, plain
from ...errors import DecodeError
from ..pg_values import Cell
from ..row_conversion import convert_row, undecoded

__all__ = ["DataclassConverter", "dataclass_converter", "name_of"]

Post = Callable[[Any], Any]

_UNMADE: Final = (
    DecodeError,
    msgspec.MsgspecError,
    ValueError,
    TypeError,
    ArithmeticError,
    LookupError,
)
"""The errors of a field decoder for a value that it cannot decode."""
_PATH: Final = re.compile(r"at `\$\.(.+)`$")
_MISSING: Final = re.compile(r"Object missing required field `(.+?)`(?: - at `\$\.(.+)`)?$")


class _Field(NamedTuple):
    """A field of the dataclass: its column, the type to decode, and the function to apply then."""

    name: str
    column: str
    hint: Any
    read_as: Any
    post: Post | None
    required: bool
    default: Callable[[], Any]
    native: Any = None
    """A type that msgspec decodes without ``post`` for most values; None if there is none."""


class _Shape:
    """A struct of the columns, and the list of values that need another step.

    ``partial`` is True for rows that may lack any column. ``names`` is True for dataclasses that
    are built with keyword arguments instead of positions.
    """

    def __init__(self, title: str, fields: list[_Field], *, partial: bool, names: bool) -> None:
        self.special: list[tuple[Any, Post | None, _Field]] = []
        self.keeps_unset = names and not partial
        self.values: Callable[[Any], Any] = structs.asdict if names else _list
        members: list[Any] = []
        for index, field in enumerate(fields):
            is_given = field.required and not partial
            if field.post is not None or not is_given:
                self.special.append((field.name if names else index, field.post, field))
            if is_given:
                members.append((field.name, field.read_as))
            else:
                read_as = Any if field.read_as is Any else field.read_as | UnsetType
                members.append((field.name, read_as, UNSET))
        renamed = {field.name: field.column for field in fields}
        self.type = msgspec.defstruct(title, members, rename=renamed, kw_only=True, gc=False)
        self.decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(self.type)


def _list(found: Any) -> list[Any]:
    return list(structs.astuple(found))


class DataclassConverter:
    """The converter of one dataclass."""

    def __init__(self, cls: type[Any]) -> None:
        self.cls = cls
        hints = get_type_hints(cls)
        self._fields = [
            _field(cls, field, hints[field.name]) for field in dataclasses.fields(cls) if field.init
        ]
        self._by_column = {field.column: field for field in self._fields}
        if len(self._by_column) < len(self._fields):
            raise TypeError(f"two fields of {cls.__name__} are read from the same column")
        self._decimals = {
            field.column
            for field in self._fields
            if Decimal in (field.read_as, *get_args(field.read_as))
        }
        self._undecoded = {one.column for one in self._fields if one.read_as is msgspec.Raw}
        self._names = not _is_made_by_position(cls, [field.name for field in self._fields])
        self._whole, self._partial = self._shapes(partial=False), self._shapes(partial=True)
        self.shape: type[Any] = self._whole[-1].type

    def __reduce__(self) -> tuple[Any, ...]:
        # Payloads can be copied and pickled; compiled decoders cannot.
        return dataclass_converter, (self.cls,)

    def _shapes(self, *, partial: bool) -> list[_Shape]:
        """Returns the quick shape for most rows, if there is one, and the shape for all rows."""
        native = [
            field if field.native is None else field._replace(read_as=field.native, post=None)
            for field in self._fields
        ]
        kinds = [self._fields] if native == self._fields else [native, self._fields]
        title = self.cls.__name__
        return [_Shape(title, fields, partial=partial, names=self._names) for fields in kinds]

    # -- reading -------------------------------------------------------------------------

    def new(self, data: Any) -> Any:
        """Returns the row after the change, or None for a DELETE."""
        if data.type != "INSERT" and data.type != "UPDATE":
            return None
        return self._read(data, data.record, self._whole)

    def old(self, data: Any) -> Any:
        """Returns the known part of the old row; unknown columns have their default, or None."""
        if data.type != "UPDATE" and data.type != "DELETE":
            return None
        return self._read(data, data.old_record, self._partial)

    def _read(self, data: Any, record: Any, shapes: list[_Shape]) -> Any:
        if isinstance(record, msgspec.Raw):
            for shape in shapes:
                try:
                    found = shape.decoder.decode(record)
                except UNREADABLE:
                    continue
                return self._make(shape, found, data)
        shape = shapes[-1]
        return self._make(shape, self._read_slowly(data, record, shape.type), data)

    def _read_slowly(self, data: Any, record: Any, shape: Any) -> Any:
        """Decode by a dict; a value that does not fit is converted by its column's type first.

        Older servers send every value as text, and Postgres writes times in forms of its own.
        """
        row = plain(record) if isinstance(record, msgspec.Raw) else record
        row = dict(row) if isinstance(row, Mapping) else {}
        # Only columns of fields: msgspec fails at a lone surrogate in any other name.
        row = {name: value for name, value in row.items() if name in self._by_column}
        by_type = functools.cache(lambda: convert_row(data.columns, record, "python"))
        for column in self._decimals & row.keys():
            # A float would lose digits.
            row[column] = by_type()[column]
        texts = undecoded(record) if self._undecoded else {}
        for column in self._undecoded & row.keys():
            known = texts.get(column)
            row[column] = self._undecoded_again(data, column, row) if known is None else known
        tried: set[str] = set()
        while True:
            try:
                return msgspec.convert(row, shape)
            except msgspec.ValidationError as exc:
                misfit = self._column(str(exc))
            except (UnicodeError, RecursionError):
                misfit = None
            if misfit is None or misfit in tried or misfit not in row:
                raise self._misfit(data, misfit, row)
            tried.add(misfit)
            row[misfit] = by_type()[misfit]

    def _undecoded_again(self, data: Any, column: str, row: dict[str, Any]) -> msgspec.Raw:
        try:
            return msgspec.Raw(dumps(row[column]))
        except ValueError:
            pass
        raise self._misfit(data, column, row)

    def _column(self, problem: str) -> str | None:
        """Returns the column that an error of msgspec is about, or None."""
        missing = _MISSING.search(problem)
        path = _PATH.search(problem)
        where = (missing[2] or missing[1]) if missing else path[1] if path else ""
        found = [
            column
            for column in self._by_column
            if where == column or where.startswith((f"{column}.", f"{column}["))
        ]
        return max(found, key=len, default=None)

    # -- making --------------------------------------------------------------------------

    def build(self, found: Any) -> Any:
        """Returns the dataclass for an object of ``shape``; for a field of another model."""
        return self._make(self._whole[-1], found, None)

    def _make(self, shape: _Shape, found: Any, data: Any) -> Any:
        values = shape.values(found)
        for key, post, field in shape.special:
            value = values[key]
            if value is UNSET:
                if shape.keeps_unset:
                    del values[key]
                else:
                    values[key] = field.default()
            elif post is not None:
                try:
                    values[key] = post(value)
                except _UNMADE as exc:
                    raise self._misfit(data, field.column, {field.column: plain(value)}) from exc
        return self.cls(**values) if self._names else self.cls(*values)

    def _misfit(self, data: Any, column: str | None, row: dict[str, Any]) -> DecodeError:
        """Returns the error with names and types only: the values may be secret."""
        where = ".".join(
            part for part in (getattr(data, "schema", None), getattr(data, "table", None)) if part
        )
        prefix = f"{where}: " if where else ""
        if column is None:
            return DecodeError(f"{prefix}a row that is no {self.cls.__name__}", hint=_HINT)
        field = self._by_column[column]
        expected = f"{self.cls.__name__}.{field.name} expects {name_of(field.hint)}"
        if column in row:
            problem = f"column {column!r} is of type {type(row[column]).__name__}, {expected}"
        else:
            problem = f"column {column!r} is missing, {expected}"
        return DecodeError(prefix + problem, code="ModelMismatch", hint=_HINT)


_HINT: Final = "change the field of the model, give it a default, or leave model= out"


@functools.lru_cache(512)
def dataclass_converter(cls: type[Any]) -> DataclassConverter:
    """Returns the converter of a dataclass, compiled at the first use."""
    return DataclassConverter(cls)


# -- compiling ---------------------------------------------------------------------------


def _field(cls: type[Any], field: dataclasses.Field[Any], hint: Any) -> _Field:
    config = field.metadata.get("dataclasses_json") or {}
    decoder = config.get("decoder")
    read_as, post = _decode_type_for(cls, hint) if decoder is None else _decoded(hint, decoder)
    if field.default_factory is not dataclasses.MISSING:
        default: Callable[[], Any] = field.default_factory
    else:
        value = None if field.default is dataclasses.MISSING else field.default
        default = functools.partial(_same, value)
    has_default = (
        field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
    )
    column = _column_name(cls, field, config)
    native = _native(decoder)
    return _Field(field.name, column, hint, read_as, post, not has_default, default, native)


_exact: Final = msgspec.json.Decoder(float_hook=Decimal)


def _decoded(hint: Any, decoder: Post) -> tuple[Any, Post]:
    """Returns type and function for a user's decoder; one for decimals is given exact numbers."""
    if "Decimal" not in str(hint):
        return Any, decoder
    if isinstance(decoder, Cell) and decoder.is_exact:
        return msgspec.Raw, decoder.raw
    return msgspec.Raw, lambda raw: decoder(_exact.decode(raw))


_NATIVE: Final[dict[Any, Any]] = {
    Decimal: Decimal,
    uuid.UUID: uuid.UUID,
    datetime.datetime.fromisoformat: datetime.datetime,
    datetime.date.fromisoformat: datetime.date,
}
"""Decoders that msgspec can replace: its result is the same, or it refuses the value."""


def _native(decoder: Any) -> Any:
    if isinstance(decoder, Cell):
        return None if decoder.native is None else decoder.native | None
    # Other callables may not be hashable.
    return _NATIVE.get(decoder) if isinstance(decoder, type | types.BuiltinMethodType) else None


def _column_name(cls: type[Any], field: dataclasses.Field[Any], config: Mapping[str, Any]) -> str:
    """Returns the column of a field. dataclasses-json stores ``field_name`` as ``letter_case``."""
    whole = getattr(cls, "dataclass_json_config", None) or {}
    rename = config.get("letter_case") or whole.get("letter_case")
    return str(rename(field.name)) if callable(rename) else field.name


def _is_made_by_position(cls: type[Any], names: list[str]) -> bool:
    """Returns True if the constructor takes the fields by position; an own one may not."""
    try:
        parameters = inspect.signature(cls).parameters.values()
    except (TypeError, ValueError):
        return False
    wanted = [(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names]
    return [(one.name, one.kind) for one in parameters] == wanted


def _same(value: Any) -> Any:
    return value


def _decode_type_for(cls: type[Any], hint: Any) -> tuple[Any, Post | None]:
    """Returns the type that msgspec decodes for ``hint``, and the function to apply to it."""
    if hint is bytes:
        # msgspec reads bytes from base64, but Postgres writes hex.
        return str, _bytes
    if isinstance(hint, type) and dataclasses.is_dataclass(hint) and hint is not cls:
        inner = dataclass_converter(hint)
        return inner.shape, inner.build
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        wanted = [one for one in args if one is not types.NoneType]
        if len(wanted) == 1:
            read_as, post = _decode_type_for(cls, wanted[0])
            optional = read_as if read_as is Any else read_as | None
            return optional, None if post is None else functools.partial(_unless_none, post)
    elif origin is list and args:
        read_as, post = _decode_type_for(cls, args[0])
        if post is not None:
            return list[read_as], functools.partial(_each, post)  # type: ignore[valid-type]
    elif origin is dict and args and args[0] is str:
        read_as, post = _decode_type_for(cls, args[1])
        if post is not None:
            return dict[str, read_as], functools.partial(_each_value, post)  # type: ignore[valid-type]
    return (hint, None) if _is_known(hint) else (Any, None)


def _is_known(hint: Any) -> bool:
    """Returns True if msgspec supports the type; a field of any other type gets decoded JSON."""
    try:
        msgspec.json.Decoder(hint)
    except TypeError:
        return False
    return True


def _unless_none(post: Post, value: Any) -> Any:
    return None if value is None else post(value)


def _each(post: Post, values: list[Any]) -> list[Any]:
    return [post(value) for value in values]


def _each_value(post: Post, values: dict[str, Any]) -> dict[str, Any]:
    return {key: post(value) for key, value in values.items()}


def _bytes(text: str) -> bytes:
    return binascii.unhexlify(text.removeprefix("\\x"))


def name_of(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)
