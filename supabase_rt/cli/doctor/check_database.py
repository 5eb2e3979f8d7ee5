"""Checks of the database: replication, publication, grants and policies."""

from __future__ import annotations

from typing import Any

from ..gen_types.from_database import check_url
from ..gen_types.schema import SchemaError
from .report import Report

__all__ = ["check_database"]

PUBLICATION = "supabase_realtime"
IDENTITIES = {"d": "default", "n": "nothing", "f": "full", "i": "index"}

TABLE = """
select c.oid::regclass::text, c.relreplident, c.relrowsecurity,
       exists (select from pg_publication_tables p
               where p.pubname = %(publication)s and p.schemaname = n.nspname
                 and p.tablename = c.relname),
       has_schema_privilege(%(role)s, n.oid, 'usage')
           and has_table_privilege(%(role)s, c.oid, 'select'),
       (select count(*) from pg_policy p
        where p.polrelid = c.oid and p.polcmd in ('r', '*')
          and (0 = any(p.polroles) or exists (
              select from unnest(p.polroles) as r(oid)
              where r.oid <> 0 and pg_has_role(%(role)s, r.oid, 'member'))))
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname = %(schema)s and c.relname = %(table)s and c.relkind in ('r', 'p')
"""
MESSAGES = """
select (select relrowsecurity from pg_class where oid = to_regclass('realtime.messages')),
       (select count(*) from pg_policy where polrelid = to_regclass('realtime.messages')
          and polcmd in ('r', '*')),
       (select count(*) from pg_policy where polrelid = to_regclass('realtime.messages')
          and polcmd in ('a', '*'))
"""
SLOTS = """
select current_setting('max_replication_slots')::int, (select count(*) from pg_replication_slots)
"""


def check_database(
    report: Report, url: str, *, schema: str, table: str | None, role: str, timeout: float
) -> None:
    """Check logical replication, the publication, a table and the policies of Realtime."""
    try:
        import psycopg
    except ImportError:
        report.fail("database", "psycopg is not installed", "pip install 'supabase-rt[server]'")
        return
    try:
        check_url(url)
        with psycopg.connect(url, connect_timeout=max(2, int(timeout)), autocommit=True) as found:
            report.ok("database", f"PostgreSQL {found.info.server_version // 10000}")
            _check_replication(report, found)
            _check_publication(report, found)
            if table is None:
                report.skip("table", "name one with --table to check its policies")
            else:
                _check_table(report, found, schema, table, role)
            _check_messages(report, found)
    except SchemaError as exc:
        report.fail("database", "the URL of --db cannot be used", str(exc))
    except psycopg.Error as exc:
        line = str(exc).strip().splitlines()[0]
        report.fail("database", line, "is --db right? It is the database's URL, with a password")


def _check_replication(report: Report, connection: Any) -> None:
    (level,) = connection.execute("show wal_level").fetchone()
    if level != "logical":
        remedy = "alter system set wal_level = logical; then restart the database"
        report.fail("replication", f"wal_level is {level}", remedy)
        return
    most, used = connection.execute(SLOTS).fetchone()
    if used >= most:
        remedy = "drop what nobody uses: select * from pg_replication_slots where not active"
        report.fail("replication", f"all {most} replication slots are taken", remedy)
        return
    report.ok("replication", f"wal_level is logical, {used} of {most} slots are taken")


def _check_publication(report: Report, connection: Any) -> None:
    row = connection.execute(
        "select puballtables, pubinsert, pubupdate, pubdelete,"
        " (select count(*) from pg_publication_tables where pubname = %s)"
        " from pg_publication where pubname = %s",
        [PUBLICATION, PUBLICATION],
    ).fetchone()
    if row is None:
        remedy = f"create publication {PUBLICATION}; then add the tables to it"
        report.fail("publication", f"there is no publication {PUBLICATION}", remedy)
        return
    everything, *kinds, count = row
    lacking = [
        name for name, on in zip(("INSERT", "UPDATE", "DELETE"), kinds, strict=True) if not on
    ]
    if lacking:
        remedy = f"alter publication {PUBLICATION} set (publish = 'insert, update, delete')"
        report.warn("publication", f"it leaves out {', '.join(lacking)}", remedy)
    elif count == 0 and not everything:
        remedy = f"alter publication {PUBLICATION} add table …"
        report.fail("publication", "it has no tables, so nothing ever comes", remedy)
    else:
        report.ok("publication", f"{PUBLICATION} has {count} table{'s' * (count != 1)}")


def _check_table(report: Report, connection: Any, schema: str, table: str, role: str) -> None:
    known = connection.execute("select 1 from pg_roles where rolname = %s", [role]).fetchone()
    if known is None:
        report.fail("table", f"there is no role {role!r}", "which role has the token? Give --role")
        return
    row = connection.execute(
        TABLE, {"publication": PUBLICATION, "role": role, "schema": schema, "table": table}
    ).fetchone()
    if row is None:
        report.fail("table", f"there is no table {schema}.{table}", "check --schema and --table")
        return
    name, identity, secured, published, readable, policies = row
    if published:
        report.ok("table", f"{name} is in the publication")
    else:
        remedy = f"alter publication {PUBLICATION} add table {name}"
        report.fail("table", f"{name} is not in the publication", remedy)
    if not readable:
        report.fail("grants", f"{role} may not read {name}", f"grant select on {name} to {role}")
    elif secured and not policies:
        remedy = f"create policy … on {name} for select to {role} using (…)"
        report.fail("policies", f"{name} has row level security and no policy for {role}", remedy)
    elif secured:
        report.ok("policies", f"{policies} for select by {role}")
    else:
        remedy = f"alter table {name} enable row level security, with policies"
        report.warn("policies", f"everybody with a key sees every row of {name}", remedy)
    if identity == "f":
        report.ok("old rows", "replica identity full: UPDATE and DELETE carry the whole old row")
    elif identity == "n":
        remedy = f"alter table {name} replica identity default (or full)"
        report.fail("old rows", "replica identity nothing: no UPDATE and no DELETE", remedy)
    else:
        remedy = f"alter table {name} replica identity full, if you need old rows"
        text = f"replica identity {IDENTITIES.get(identity, identity)}: `old` has the key only"
        report.warn("old rows", text, remedy)


def _check_messages(report: Report, connection: Any) -> None:
    secured, reading, writing = connection.execute(MESSAGES).fetchone()
    if secured is None:
        remedy = "Realtime makes it when it first starts; is this the right database?"
        report.warn("private", "there is no table realtime.messages", remedy)
    elif not reading:
        remedy = "create policy … on realtime.messages for select to authenticated using (…)"
        report.warn("private", "no policy on realtime.messages lets anybody join", remedy)
    elif not writing:
        remedy = "create policy … on realtime.messages for insert to authenticated with check (…)"
        report.warn("private", "no policy on realtime.messages lets anybody send", remedy)
    else:
        report.ok(
            "private", f"policies on realtime.messages: {reading} to read, {writing} to write"
        )
