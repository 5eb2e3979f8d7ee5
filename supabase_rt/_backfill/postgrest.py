"""Reading missed rows from PostgREST."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp

from .._http.http_client import JSON_TYPE, HttpClient, reason_in
from .._wire.urls import path_segment
from ..errors import RealtimeError, SendError
from .pages import BackfillPage, ReadRow, read_page, read_params

__all__ = ["TableAccess", "read_postgrest", "read_rows"]


@dataclass(frozen=True, slots=True)
class TableAccess:
    """The means of one client to read tables of its project."""

    client: HttpClient
    timeout: float
    refresh_token: Callable[[], asyncio.Task[None] | None]
    """Asks the token source for a fresh token; returns None if the client has no source."""


async def read_postgrest(tables: TableAccess, url: str, page: BackfillPage) -> list[Any]:
    """Reads one page, once more with a fresh token if the first one was refused."""
    try:
        return await read_rows(tables.client, url, page, tables.timeout)
    except RealtimeError as exc:
        if exc.code != "HTTP401":
            raise
        refused = exc
    try:
        flight = tables.refresh_token()
        if flight is None:
            # Without a source of tokens the next one comes by set_auth, and with it another
            # reading.
            refused.retryable = False
            raise refused
    finally:
        # Otherwise this frame and the exception hold each other.
        del refused
    await asyncio.wait([flight])
    return await read_rows(tables.client, url, page, tables.timeout)


_READ_HINTS = {
    400: "check cursor= and key= of the backfill and the filter: columns and types must fit",
    401: "the token or the key was not accepted; a fresh token is asked for",
    403: "the role of the token may not select from the table",
    404: "the table is not offered under this URL and schema: see url= of the backfill",
    406: "the schema is not exposed by the project's API settings",
}


def _query(page: BackfillPage) -> str:
    return urlencode(read_params(page), quote_via=quote)


def _rows(status: int, text: bytes, page: BackfillPage) -> list[ReadRow]:
    """Returns the rows in an answer of PostgREST; raises ``RealtimeError`` for any other one."""
    if 200 <= status < 300:
        found = read_page(text)
        if found is not None:
            return found
        raise RealtimeError("the answer to a backfill is no list of rows", code="NotRows")
    raise RealtimeError(
        f"cannot read {page.schema}.{page.table}: {reason_in(text, f'HTTP {status}')}",
        code=f"HTTP{status}",
        retryable=status in (401, 408, 425, 429) or status >= 500,
        hint=_READ_HINTS.get(status, "the server could not answer; the reading is tried again"),
    )


async def read_rows(
    client: HttpClient, url: str, page: BackfillPage, timeout: float
) -> list[ReadRow]:
    """Reads one page of a table from PostgREST at ``url``; raises ``RealtimeError``."""
    headers = {"Accept-Profile": page.schema, "Accept": JSON_TYPE}
    url = f"{url}/{path_segment(page.table)}?{_query(page)}"
    try:
        status, _, text = await client.request("GET", url, JSON_TYPE, timeout, headers=headers)
    except SendError as exc:
        if exc.status is None:
            raise
        problem = f"cannot read {page.schema}.{page.table}: {exc}"
        error = RealtimeError(problem, code=exc.code, retryable=False, hint=exc.hint)
    except TimeoutError:
        error = RealtimeError(f"no rows within {timeout:g} s", code="TimedOut", retryable=True)
    except (aiohttp.ClientError, OSError) as exc:
        problem = f"cannot reach the server: {type(exc).__name__}"
        error = RealtimeError(problem, code="NoConnection", retryable=True)
    else:
        return _rows(status, text, page)
    # Outside the except blocks: the exceptions of aiohttp quote the URL.
    raise error
