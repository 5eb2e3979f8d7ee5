"""Speaking to the database in the name of a token (protocol reference, section 5.3)."""

from __future__ import annotations

import json
import types
from collections.abc import Mapping
from typing import Any

import psycopg

__all__ = ["act_as"]

ACT_AS = """
select set_config('role', %(role)s, true),
    set_config('request.jwt.claims', %(claims)s, true),
    set_config('request.jwt.claim.sub', %(sub)s, true),
    set_config('request.jwt.claim.role', %(role)s, true),
    set_config('request.headers', %(headers)s, true),
    set_config('realtime.topic', %(topic)s, true)
"""


async def act_as(
    conn: psycopg.AsyncConnection,
    claims: Mapping[str, Any],
    topic: str = "",
    headers: Mapping[str, str] = types.MappingProxyType({}),
) -> None:
    """Take over the role and the claims of a token until the transaction ends.

    Raises ``psycopg.Error`` for a role that the database does not know.
    """
    about = {
        "role": str(claims["role"]),
        "claims": json.dumps(claims, default=str),
        "sub": str(claims.get("sub") or ""),
        "topic": topic,
        "headers": json.dumps(dict(headers)),
    }
    await conn.execute(ACT_AS, about)
