"""Rows as instances of the user's dataclass: ``model=Todo``.

A converter is compiled once for each class: msgspec reads the JSON of the row straight into a
struct with the columns and types of the dataclass, and the dataclass is made of that. The
field configs of dataclasses-json (``field_name``, ``letter_case``, ``decoder``) are honoured.
"""

from __future__ import annotations

import binascii
import dataclasses
import functools
import operator
import re
import types
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final, NamedTuple, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import UNSET, UnsetType

from ..errors import DecodeError
from .columns import convert_row
from .messages import dumps, plain

__all__ = ["RowModel", "model_of"]

Post = Callable[[Any], Any]

_UNREAD: Final = (msgspec.MsgspecError, UnicodeError, RecursionError)
_PATH: Final = re.compile(r"at `\$\.(.+)`$")
_MISSING: Final = re.compile(r"Object missing required field `(.+?)`(?: - at `\$\.(.+)`)?$")


class _Field(NamedTuple):
    """A field of the dataclass: the column it is read from, as what, and what is done then."""

    name: str
    column: str
    hint: Any
    read_as: Any
    post: Post | None
    required: bool
    default: Callable[[], Any]


class RowModel:
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
        self.shape: type[msgspec.Struct] = self._struct(partial=False)
        self._whole: msgspec.json.Decoder[Any] = msgspec.json.Decoder(self.shape)
        self._partial: msgspec.json.Decoder[Any] = msgspec.json.Decoder(self._struct(partial=True))
        self._positional = self._getter()

    def _struct(self, *, partial: bool) -> type[msgspec.Struct]:
        members: list[Any] = [
            (field.name, field.read_as)
            if field.required and not partial
            else (field.name, Any if field.read_as is Any else field.read_as | UnsetType, UNSET)
            for field in self._fields
        ]
        renamed = {field.name: field.column for field in self._fields}
        return msgspec.defstruct(self.cls.__name__, members, rename=renamed, kw_only=True)

    def _getter(self) -> Callable[[Any], Any] | None:
        """All values at once, for a dataclass that can be made of them in one call."""
        simple = all(field.required and field.post is None for field in self._fields)
        if not simple or len(self._fields) < 2:
            return None
        if any(field.kw_only for field in dataclasses.fields(self.cls) if field.init):
            return None
        return operator.attrgetter(*(field.name for field in self._fields))

    # -- reading -------------------------------------------------------------------------

    def new(self, data: Any) -> Any:
        """The row after the change, or None where there is none."""
        if data.type != "INSERT" and data.type != "UPDATE":
            return None
        return self.build(self._read(data, data.record, self._whole), data)

    def old(self, data: Any) -> Any:
        """What is known of the row before: columns that are not have the default, or None."""
        if data.type != "UPDATE" and data.type != "DELETE":
            return None
        found = self._read(data, data.old_record, self._partial)
        values = self._values(found, data)
        for field in self._fields:
            if field.name not in values:
                values[field.name] = field.default()
        return self.cls(**values)

    def _read(self, data: Any, record: Any, decoder: msgspec.json.Decoder[Any]) -> Any:
        if isinstance(record, msgspec.Raw):
            try:
                return decoder.decode(record)
            except _UNREAD:
                pass
        return self._read_slowly(data, record, decoder.type)

    def _read_slowly(self, data: Any, record: Any, shape: Any) -> Any:
        """By way of a dict, and for what does not fit by the type of the column.

        A server of old sends every value as text, and Postgres has its own ways to write a time.
        """
        row = plain(record) if isinstance(record, msgspec.Raw) else record
        row = dict(row) if isinstance(row, Mapping) else {}
        # What no field asks for is not looked at: msgspec fails at a lone surrogate in a name.
        row = {name: value for name, value in row.items() if name in self._by_column}
        by_type = convert_row(data.columns, record, "python") if row else {}
        for column in self._decimals & row.keys():
            # Not by way of a float, which would lose digits.
            row[column] = by_type[column]
        for column in self._undecoded & row.keys():
            row[column] = self._undecoded_again(data, column, row)
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
            row[misfit] = by_type[misfit]

    def _undecoded_again(self, data: Any, column: str, row: dict[str, Any]) -> msgspec.Raw:
        try:
            return msgspec.Raw(dumps(row[column]))
        except ValueError:
            pass
        raise self._misfit(data, column, row)

    def _column(self, problem: str) -> str | None:
        """The column that a complaint of msgspec is about."""
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

    def build(self, found: Any, data: Any = None) -> Any:
        """The dataclass of what was read."""
        if self._positional is not None:
            return self.cls(*self._positional(found))
        return self.cls(**self._values(found, data))

    def _values(self, found: Any, data: Any) -> dict[str, Any]:
        values = {}
        for name, column, _, _, post, _, _ in self._fields:
            value = getattr(found, name)
            if value is UNSET:
                continue
            if post is not None:
                try:
                    value = post(value)
                except (ValueError, TypeError, ArithmeticError, LookupError) as exc:
                    raise self._misfit(data, column, {column: value}) from exc
            values[name] = value
        return values

    def _misfit(self, data: Any, column: str | None, row: dict[str, Any]) -> DecodeError:
        """Names and types; the values are nobody's business but the row's."""
        where = ".".join(
            part for part in (getattr(data, "schema", None), getattr(data, "table", None)) if part
        )
        prefix = f"{where}: " if where else ""
        if column is None:
            return DecodeError(f"{prefix}a row that is no {self.cls.__name__}", hint=_HINT)
        field = self._by_column[column]
        expected = f"{self.cls.__name__}.{field.name} expects {_name(field.hint)}"
        if column in row:
            problem = f"column {column!r} is of type {type(row[column]).__name__}, {expected}"
        else:
            problem = f"column {column!r} is missing, {expected}"
        return DecodeError(prefix + problem, code="ModelMismatch", hint=_HINT)


_HINT: Final = "change the field of the model, give it a default, or leave model= out"


def model_of(cls: Any) -> RowModel:
    """The converter of a dataclass; raises ``TypeError`` for what is none."""
    if not isinstance(cls, type) or not dataclasses.is_dataclass(cls):
        raise TypeError(f"model is a dataclass, not {_name(cls)}")
    return _compiled(cls)


@functools.lru_cache(512)
def _compiled(cls: type[Any]) -> RowModel:
    return RowModel(cls)


# -- compiling ---------------------------------------------------------------------------


def _field(cls: type[Any], field: dataclasses.Field[Any], hint: Any) -> _Field:
    config = field.metadata.get("dataclasses_json") or {}
    decoder = config.get("decoder")
    read_as, post = _reading(cls, hint) if decoder is None else _decoded(hint, decoder)
    if field.default_factory is not dataclasses.MISSING:
        default: Callable[[], Any] = field.default_factory
    else:
        value = None if field.default is dataclasses.MISSING else field.default
        default = functools.partial(_same, value)
    has_default = (
        field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
    )
    column = _column_name(cls, field, config)
    return _Field(field.name, column, hint, read_as, post, not has_default, default)


_exact: Final = msgspec.json.Decoder(float_hook=Decimal)


def _decoded(hint: Any, decoder: Post) -> tuple[Any, Post]:
    """For the user's decoder; one that makes decimals is given them, for a float loses digits."""
    if "Decimal" not in str(hint):
        return Any, decoder
    return msgspec.Raw, lambda raw: decoder(_exact.decode(raw))


def _column_name(cls: type[Any], field: dataclasses.Field[Any], config: Mapping[str, Any]) -> str:
    """``field_name`` of dataclasses-json is a ``letter_case`` that looks at nothing."""
    whole = getattr(cls, "dataclass_json_config", None) or {}
    rename = config.get("letter_case") or whole.get("letter_case")
    return str(rename(field.name)) if callable(rename) else field.name


def _same(value: Any) -> Any:
    return value


def _reading(cls: type[Any], hint: Any) -> tuple[Any, Post | None]:
    """What msgspec is asked for in the place of ``hint``, and what is made of that."""
    if hint is bytes:
        # msgspec takes bytes in JSON for base64; Postgres writes hex.
        return str, _bytes
    if isinstance(hint, type) and dataclasses.is_dataclass(hint) and hint is not cls:
        inner = model_of(hint)
        return inner.shape, inner.build
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        wanted = [one for one in args if one is not types.NoneType]
        if len(wanted) == 1:
            read_as, post = _reading(cls, wanted[0])
            optional = read_as if read_as is Any else read_as | None
            return optional, None if post is None else functools.partial(_unless_none, post)
    elif origin is list and args:
        read_as, post = _reading(cls, args[0])
        if post is not None:
            return list[read_as], functools.partial(_each, post)  # type: ignore[valid-type]
    elif origin is dict and args and args[0] is str:
        read_as, post = _reading(cls, args[1])
        if post is not None:
            return dict[str, read_as], functools.partial(_each_value, post)  # type: ignore[valid-type]
    return (hint, None) if _is_known(hint) else (Any, None)


def _is_known(hint: Any) -> bool:
    """Whether msgspec can check it; what it cannot is handed on as JSON gave it."""
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


def _name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)
