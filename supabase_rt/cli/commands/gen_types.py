"""``supabase-rt gen types``: dataclasses for the rows of a project's tables."""

from __future__ import annotations

import argparse
import asyncio
import difflib
import io
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..._wire.redirects import is_redirect, redirect_hint
from ..command import Command, CommandFailed
from ..output import Screen, complain

if TYPE_CHECKING:
    import aiohttp

    from ..gen_types import Schema

__all__ = ["COMMAND"]

EPILOG = """\
examples:
  supabase-rt gen types --url https://x.supabase.co --key SECRET -o rows.py
  supabase-rt gen types --db postgresql://postgres:postgres@127.0.0.1:54322/postgres -o rows.py
  supabase-rt gen types --db ... -o rows.py --check      in CI: fails when rows.py is out of date

SUPABASE_URL, SUPABASE_KEY and SUPABASE_DB_URL in the environment do the same as --url, --key and
--db. Newer projects show their tables to a secret (service) key only.
"""
TIMEOUT = 30.0
MOST = 64 * 2**20
"""Bytes of a description."""
DIFF_LINES = 40


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    source = parser.add_argument_group("where the schema is read (one of)")
    source.add_argument("--url", help="the project: its PostgREST describes the tables")
    source.add_argument("--key", help="an API key for --url")
    source.add_argument("--from-file", metavar="FILE", help="PostgREST's description, saved")
    source.add_argument("--db", metavar="URL", help="a database; also shows generated columns")
    parser.add_argument(
        "--schema", action="append", default=[], metavar="S", help="a schema (public); repeatable"
    )
    parser.add_argument(
        "--only", action="append", default=[], metavar="T", help="only this table; repeatable"
    )
    parser.add_argument(
        "--exclude", action="append", default=[], metavar="T", help="not this table; repeatable"
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="where to write (standard output)")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail if --output is out of date"
    )


def run(options: argparse.Namespace) -> int:
    """Read the schema; write the module, or compare it with ``--check``."""
    from ..gen_types import SchemaError, render

    if options.check and not options.output:
        raise CommandFailed("--check compares with a file: name it with --output", code=2)
    try:
        found = _read(options)
        if not found.tables:
            raise CommandFailed(_empty(options))
        schema = found.only(options.only, options.exclude)
    except SchemaError as exc:
        raise CommandFailed(str(exc)) from None
    text, collisions = render(schema)
    for line in collisions:
        complain(f"supabase-rt gen types: {line}")
    if options.check:
        return _compare(Path(options.output), text)
    if not options.output:
        if isinstance(sys.stdout, io.TextIOWrapper):
            # Python source is UTF-8, even if the terminal has another encoding.
            sys.stdout.reconfigure(encoding="utf-8")
        Screen().say_text(text)
        return 0
    path = Path(options.output)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as exc:
        raise CommandFailed(f"cannot write {path}: {exc.strerror}") from None
    count = len(schema.tables)
    complain(f"wrote {path}: {count} table{'' if count == 1 else 's'}")
    return 0


def _empty(options: argparse.Namespace) -> str:
    names = ", ".join(options.schema or ["public"])
    return f"there are no tables in {names} that this user or key can see; check --schema"


def _compare(path: Path, text: str) -> int:
    try:
        found = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise CommandFailed(f"{path} is not there yet; run it without --check") from None
    except (OSError, UnicodeDecodeError) as exc:
        raise CommandFailed(f"cannot read {path}: {exc}") from None
    if found == text:
        return 0
    lines = list(
        difflib.unified_diff(
            found.splitlines(), text.splitlines(), str(path), "the schema of now", lineterm="", n=1
        )
    )
    screen = Screen()
    screen.say_text("\n".join(lines[:DIFF_LINES]))
    if len(lines) > DIFF_LINES:
        screen.say(f"... and {len(lines) - DIFF_LINES} lines more")
    raise CommandFailed(f"{path} is out of date; run it without --check")


# -- sources -------------------------------------------------------------------------------


def _read(options: argparse.Namespace) -> Schema:
    given = [name for name in ("url", "from_file", "db") if getattr(options, name)]
    if len(given) > 1:
        raise CommandFailed("give one of --url, --from-file and --db", code=2)
    if not given:
        options.db = os.environ.get("SUPABASE_DB_URL")
        options.url = None if options.db else os.environ.get("SUPABASE_URL")
    from ..gen_types import read_database, read_openapi

    schemas = list(dict.fromkeys(options.schema)) or ["public"]
    if options.db:
        return read_database(options.db, schemas)
    if options.from_file:
        return read_openapi(_load(Path(options.from_file)), schemas[0])
    if not options.url:
        raise CommandFailed("where is the schema? Give --url, --db or --from-file", code=2)
    key = options.key or os.environ.get("SUPABASE_KEY")
    if not key:
        raise CommandFailed("--url needs a key: give --key, or set SUPABASE_KEY", code=2)
    found: tuple[Any, ...] = ()
    for schema in schemas:
        document = asyncio.run(_fetch(options.url, key, schema))
        found += read_openapi(document, schema).tables
    from ..gen_types import Schema

    return Schema(found)


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except OSError as exc:
        raise CommandFailed(f"cannot read {path}: {exc.strerror}") from None
    except (ValueError, RecursionError):
        raise CommandFailed(f"{path} is not JSON, or nested too deeply") from None


async def _fetch(url: str, key: str, schema: str) -> Any:
    import aiohttp

    headers = {"apikey": key, "Authorization": f"Bearer {key}", "Accept-Profile": schema}
    timeout = aiohttp.ClientTimeout(total=TIMEOUT)
    target = f"{url.rstrip('/')}/rest/v1/"
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, trust_env=True) as session,
            session.get(target, headers=headers, allow_redirects=False) as response,
        ):
            status, location = response.status, response.headers.get("Location")
            # The status tells of a refusal; the body of a refusal is a page for people and is not
            # read.
            body = await _body(response, target) if status == 200 else b""
    except (aiohttp.ClientError, TimeoutError, ValueError) as exc:
        raise CommandFailed(f"{target} cannot be reached: {exc or type(exc).__name__}") from None
    if is_redirect(status):
        raise CommandFailed(f"{target} answers {status}: {redirect_hint(location, target)}")
    if status != 200:
        raise CommandFailed(_refusal(target, status, schema))
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise CommandFailed(f"{target} answers, but not with JSON; is --url the project?") from None


async def _body(response: aiohttp.ClientResponse, target: str) -> bytes:
    """The body, which a server may send without end, or packed to a thousandth of its size."""
    parts: list[bytes] = []
    size = 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > MOST:
            problem = f"the answer is larger than {MOST:,} bytes; is --url the project?"
            raise CommandFailed(f"{target}: {problem}")
        parts.append(part)
    return b"".join(parts)


def _refusal(target: str, status: int, schema: str) -> str:
    advice = {
        401: "the key is not accepted; newer projects need a secret (service) key here",
        403: "the key is not allowed to; newer projects need a secret (service) key here",
        404: "there is no PostgREST; is --url the project, such as https://x.supabase.co? "
        "For a local server give --db, with the Database that serve prints",
        406: f"the schema {schema!r} is not exposed by the API; see the project's API settings",
    }
    return f"{target} answers {status}: {advice.get(status, 'try again later')}"


COMMAND = Command(
    name="gen types",
    summary="write dataclasses for the rows of a project's tables",
    description="Dataclasses (Row, Insert and Update) for the tables of a schema, for `model=`\n"
    "and for typed reading and writing with dataclasses-json.",
    epilog=EPILOG,
    configure=configure,
    run=run,
)
