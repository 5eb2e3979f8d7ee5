"""``GET /rest/v1/<table>``: rows as JSON, with the errors of PostgREST and its gateway."""

from __future__ import annotations

import time
import types
from collections.abc import Mapping

from aiohttp import web

from ...._wire.json_codec import dumps
from ..._machine.memory_bounds import MOST_ANSWER
from ..._machine.server_state import Backend, DatabaseAway
from ..._tables.hidden_schemas import is_hidden
from ..._tables.tables import Row
from ...tokens import Token, TokenError
from ..client_left import ClientLeft, while_connected
from ..large_answers import send_large
from .errors import RestProblem, too_large
from .memory_rows import read_rows
from .query import RestQuery, parse_query

__all__ = ["RestApi"]

CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Headers": (
        "authorization, apikey, content-type, x-client-info, accept-profile, range, range-unit"
    ),
    "Access-Control-Allow-Methods": "GET, HEAD, OPTIONS",
    "Access-Control-Expose-Headers": "Content-Range",
}
NONE = types.MappingProxyType[str, str]({})


class RestApi:
    """The handlers of the routes under ``/rest/v1``."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def preflight(self, _request: web.Request) -> web.Response:
        """``OPTIONS``, which a browser sends first."""
        return web.Response(status=204, headers=CORS)

    async def read(self, request: web.Request) -> web.StreamResponse:
        """``GET`` and ``HEAD``."""
        try:
            token = self._token(request)
            schema = _schema(request)
            query = parse_query(request.query.items(), request.headers.get("Range"))
            body, count = await self._rows(request, token, schema, query)
        except RestProblem as exc:
            return _answer(dumps(exc.body), exc.status)
        except ClientLeft:
            return web.Response(status=499)
        except DatabaseAway:
            away = RestProblem(
                503, "PGRST000", "Could not connect with the database. Retrying the connection."
            )
            return _answer(dumps(away.body), 503)
        headers = {"Content-Range": _content_range(count, query), "Content-Profile": schema}
        return await send_large(request, self._backend, _answer(body, 200, headers))

    def _token(self, request: web.Request) -> Token:
        """Returns the caller's token: the bearer, which PostgREST uses, or else the API key."""
        key = request.headers.get("apikey", request.query.get("apikey", ""))
        scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
        text = bearer.strip() if scheme.lower() == "bearer" else key
        if not text:
            raise RestProblem(401, "NoApiKey", "No API key found in request")
        try:
            return self._backend.tokens.verify(text, time.time())
        except TokenError as exc:
            # Only texts: a frame and an exception that it keeps would hold each other.
            reason, details = exc.handshake, str(exc)
        if reason == "Token has expired":
            raise RestProblem(401, "PGRST303", "JWT expired")
        raise RestProblem(401, "PGRST301", "JWT could not be verified", details)

    async def _rows(
        self, request: web.Request, token: Token, schema: str, query: RestQuery
    ) -> tuple[bytes, int]:
        table = request.match_info["table"]
        database = self._backend.database
        if database is not None:
            reading = database.read_table(token, schema, table, query)
            return await while_connected(request, reading)
        found = self._backend.tables.tables.find_table(schema, table)
        if found is None:
            message = f"Could not find the table '{schema}.{table}' in the schema cache"
            raise RestProblem(404, "PGRST205", message)
        return _written(read_rows(found, query, token.claims))


def _schema(request: web.Request) -> str:
    schema = request.headers.get("Accept-Profile", "public")
    # Invalid UTF-8 in a header arrives as surrogates, which no schema name contains.
    shown = schema.encode(errors="replace").decode()
    if is_hidden(schema) or shown != schema:
        raise RestProblem(406, "PGRST106", f"Invalid schema: {shown}")
    return schema


def _written(rows: list[Row]) -> tuple[bytes, int]:
    parts: list[bytes] = []
    size = 2
    for row in rows:
        parts.append(dumps(row))
        size += len(parts[-1]) + 1
        if size > MOST_ANSWER:
            raise too_large()
    return b"[" + b",".join(parts) + b"]", len(rows)


def _content_range(count: int, query: RestQuery) -> str:
    return f"{query.offset}-{query.offset + count - 1}/*" if count else "*/*"


def _answer(body: bytes, status: int, headers: Mapping[str, str] = NONE) -> web.Response:
    return web.Response(
        body=body,
        status=status,
        content_type="application/json",
        charset="utf-8",
        headers={**CORS, **headers},
    )
