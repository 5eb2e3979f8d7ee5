"""The architecture, read from the source: who imports whom, and what stands nowhere.

A file may import from a lower layer, or from its own without a cycle; ``TYPE_CHECKING`` is no
way around it.
"""

from __future__ import annotations

import ast
import fnmatch
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import supabase_rt
from supabase_rt import errors

from .test_exports import PROMISED

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "supabase_rt"

LAYERS: dict[str, tuple[int, str]] = {
    ("_name_hints _printable _version enums errors "): (0, "vocabulary"),
    (
        "_connection _connection.frame_decoders _payloads _payloads.base "
        "_payloads.broadcast _payloads.json_dataclass _payloads.json_shapes "
        "_payloads.models _payloads.models.dataclass_models _payloads.pg_arrays "
        "_payloads.pg_values _payloads.postgres_change _payloads.presence_events "
        "_payloads.row_conversion _payloads.system_message _protocol.changes_filter "
        "_protocol.channel _protocol.channel.presence_state _protocol.channel_options "
        "_protocol.reconnect_policy _protocol.refusals _wire _wire.envelope "
        "_wire.json_codec _wire.jwt_claims _wire.redirects _wire.serializer _wire.urls "
        "rows "
    ): (1, "values"),
    (
        "_backfill _backfill.pages _backfill.planner _backfill.progress _protocol "
        "_protocol.channel.bindings _protocol.channel.channel_machine "
        "_protocol.channel.channel_states _protocol.channel.inbound "
        "_protocol.channel.join_probe _protocol.channel.join_timeout "
        "_protocol.channel.presence_tracking _protocol.channel.rejoin "
        "_protocol.channel.silent_feed _protocol.client_machine _protocol.deadlines "
        "_protocol.events _protocol.fast_routes _protocol.heartbeat _protocol.join_queue "
        "_protocol.outbox _protocol.reconnect _protocol.requests _protocol.shared_state "
        "_protocol.token_bucket _protocol.token_refresh "
    ): (2, "machines"),
    (
        "_connection.access_tokens _connection.codec _connection.connection "
        "_connection.link _connection.reader _connection.transport _http "
        "_http.http_client _runtime _runtime.background_tasks _runtime.event_loop "
        "_runtime.http_session _runtime.log_fields _runtime.outcome _runtime.slow_handler "
        "_runtime.timer _stores _stores.protocols _stores.sqlite_store "
    ): (3, "shell"),
    (
        "_backfill.backfill_runner _backfill.backfill_stream _backfill.options "
        "_backfill.postgrest _backfill.saved_progress _client _client.channel "
        "_client.channel_handlers _client.channel_listening _client.channel_sender "
        "_client.channel_shortcuts _client.channel_streams _client.client "
        "_client.client_options _client.health _client.parts _client.project_services "
        "_client.realtime_py_compat _client.run _client.send_limit "
        "_client.supabase_client _handlers _handlers.concurrent_runner "
        "_handlers.dispatcher _handlers.event_stream _handlers.handler "
        "_handlers.handler_tasks _handlers.keyed_queue _handlers.listener_table "
        "_handlers.middleware _handlers.pending_decorator _handlers.signatures types "
    ): (4, "public API"),
    (
        "server server._http server._http.app server._http.broadcast_endpoints "
        "server._http.client_left server._http.gate server._http.listening_socket "
        "server._http.postgrest server._http.postgrest.endpoints "
        "server._http.postgrest.errors server._http.postgrest.memory_rows "
        "server._http.postgrest.query server._http.status_page "
        "server._http.status_page.live_view server._http.status_page.memory_tables "
        "server._http.status_page.page server._http.turns server._http.websocket "
        "server._machine server._machine.intake server._machine.join_request "
        "server._machine.memory_bounds server._machine.message_store "
        "server._machine.outgoing server._machine.presence_book "
        "server._machine.rate_limits server._machine.server_channel "
        "server._machine.server_deadlines server._machine.server_session "
        "server._machine.server_state server._machine.topics server._postgres "
        "server._postgres.connections server._postgres.data_folder "
        "server._postgres.database server._postgres.database_feed "
        "server._postgres.embedded server._postgres.errors server._postgres.piecewise "
        "server._postgres.pool server._postgres.queries server._postgres.queries.catalog "
        "server._postgres.queries.change_rendering server._postgres.queries.claims "
        "server._postgres.queries.filter_sql server._postgres.queries.policies "
        "server._postgres.queries.status_page_tables "
        "server._postgres.queries.table_reader server._postgres.queries.visibility "
        "server._postgres.replication server._postgres.replication.commit_visibility "
        "server._postgres.replication.follower server._postgres.replication.pgoutput "
        "server._postgres.replication.row_changes "
        "server._postgres.replication.slow_channels server._postgres.replication.stream "
        "server._postgres.replication.table_batch server._postgres.roles "
        "server._postgres.setup server._tables server._tables.change_feed "
        "server._tables.column_types server._tables.filter_matching "
        "server._tables.hidden_schemas server._tables.patterns "
        "server._tables.table_writer server._tables.tables server.activity "
        "server.client_script server.faults server.local server.settings server.tokens "
    ): (5, "local server"),
    (
        "__main__ cli cli.command cli.commands cli.commands.doctor cli.commands.gen_types "
        "cli.commands.listen cli.commands.presence cli.commands.send cli.commands.serve "
        "cli.connection_arguments cli.conninfo cli.dataclass_arguments cli.doctor "
        "cli.doctor.check_database cli.doctor.check_network cli.doctor.check_realtime "
        "cli.doctor.report cli.gen_types cli.gen_types.from_database "
        "cli.gen_types.from_openapi cli.gen_types.identifiers cli.gen_types.render "
        "cli.gen_types.schema cli.output cli.program cli.secret examples examples.bot "
        "examples.chat_relay examples.command_bot examples.cursor_broadcaster "
        "examples.demo examples.environment examples.order_watcher "
        "examples.presence_board otel sync sync.facade sync.loop_thread sync.sync_channel "
        "sync.sync_client sync.sync_supabase testing testing.clock testing.conversation "
        "testing.postgres testing.pytest_supabase_rt testing.threaded "
    ): (6, "tools"),
    (". "): (4, "the package itself"),
}
"""The table of the architecture; of two patterns that fit, the first counts."""

STDLIB = sys.stdlib_module_names
WAITING = {"asyncio", "threading", "selectors", "socket", "sched", "concurrent"}
CLOCKS = {"time"}
FOREIGN = {
    0: set[str](),
    1: {"msgspec", "dataclasses_json", "typing_extensions"},
    2: {"msgspec"},
    3: {"msgspec", "aiohttp", "yarl"},
    4: {"msgspec", "aiohttp", "pyee"},
}
"""What comes from elsewhere, by layer; yarl is aiohttp's own, and typing_extensions only type
checkers see. The server and the tools may use
what their extra has."""

WIRED = {"postgrest", "storage3", "supabase_auth", "supabase_functions"}
FOREIGN_OF = {"_client.project_services": {"httpx", *WIRED}, "_client.supabase_client": WIRED}
"""What single modules may use beyond that: the clients of the extra ``full``."""

FOR_TOOLS = {".", "server", "types", "_wire.jwt_claims", "_wire.redirects", "_printable"}
"""What a tool may import: what is public, how a token is read, as ``doctor`` has to see a key
with the eyes of the client, what a redirect is, as no tool follows one with a key, and what makes
words fit for a terminal."""

EXTRA_NAMES = {
    "Backfill",
    "SqliteStore",
    "Health",
    "PostgresChangesEvent",
    "PresenceEvent",
    "__version__",
}
"""Public beyond the promised names: what ``health()`` returns and two enums behind JS names."""

TOP_LEVEL = {
    "pyproject.toml",
    "supabase_rt",
    "tests",
    "docs",
    "benchmarks",
    "mkdocs.yml",
    "Makefile",
    "README.md",
    "CHANGELOG.md",
    "LICENSE",
}


class Import(NamedTuple):
    """``target`` is a module of ours without ``supabase_rt.``, or one from elsewhere."""

    source: str
    target: str
    ours: bool
    line: int


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    if parts[-1] == "__init__":
        parts = parts[:-1]
    return ".".join(parts) or "."


SOURCES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(SOURCES[module].read_text(), str(SOURCES[module]))


@cache
def nodes(module: str) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(tree(module)))


def layer(module: str) -> int:
    for patterns, (number, _) in LAYERS.items():
        if any(fnmatch.fnmatchcase(module, pattern) for pattern in patterns.split()):
            return number
    raise AssertionError(f"{module} stands in no layer; say in LAYERS where it belongs")


def absolute(module: str, node: ast.ImportFrom) -> str:
    """The full dotted name that a ``from`` names, ``supabase_rt`` included."""
    if not node.level:
        return node.module or ""
    package = [] if module == "." else module.split(".")
    if SOURCES[module].name != "__init__.py":
        package = package[:-1]
    package = package[: len(package) - (node.level - 1)]
    return ".".join(["supabase_rt", *package, *([node.module] if node.module else [])])


def named(module: str, node: ast.AST) -> Iterator[str]:
    """The modules that an import statement names; a name in a package may be one itself."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        origin = absolute(module, node)
        for alias in node.names:
            inner = f"{origin}.{alias.name}"
            is_module = inner.removeprefix("supabase_rt.") in SOURCES
            yield inner if origin.startswith("supabase_rt") and is_module else origin


@cache
def imports(module: str) -> tuple[Import, ...]:
    """Every import of a module, wherever in it, ``TYPE_CHECKING`` included."""
    found = []
    for node in nodes(module):
        for name in named(module, node):
            ours = name == "supabase_rt" or name.startswith("supabase_rt.")
            target = (name.removeprefix("supabase_rt").lstrip(".") or ".") if ours else name
            found.append(Import(module, target, ours, getattr(node, "lineno", 0)))
    return tuple(dict.fromkeys(found))


def calls(module: str) -> Iterator[tuple[str, ast.Call]]:
    """Every call with the last part of the name that is called."""
    for node in nodes(module):
        if isinstance(node, ast.Call):
            function = node.func
            if isinstance(function, ast.Attribute):
                yield function.attr, node
            elif isinstance(function, ast.Name):
                yield function.id, node


# -- layers --------------------------------------------------------------------------------


def may_import(module: str, target: str) -> bool:
    mine, theirs = layer(module), layer(target)
    if mine == 5:
        return theirs <= 2 or theirs == 5
    if mine == 6:
        return target in FOR_TOOLS or theirs == 6
    return theirs <= mine


def test_a_module_imports_from_its_own_layer_or_below() -> None:
    """The server shares values and machines only, a tool the public API."""
    wrong = [
        f"{module}:{found.line} imports {found.target}"
        for module in SOURCES
        for found in imports(module)
        if found.ours and not may_import(module, found.target)
    ]
    assert wrong == []


def test_there_is_no_cycle() -> None:
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module in done:
            return
        for found in imports(module):
            # A package's __init__ that takes from its own modules is below nothing of them.
            if found.ours and found.target != module:
                visit(found.target, (*path, module))
        done.add(module)

    for module in SOURCES:
        visit(module, ())


def test_a_layer_uses_only_the_libraries_it_may() -> None:
    """Machines and values do not wait, and time is an argument there."""
    wrong = []
    for module in SOURCES:
        number = layer(module)
        if number > 4:
            continue
        allowed = STDLIB | FOREIGN[number] | FOREIGN_OF.get(module, set())
        if number <= 2:
            allowed -= WAITING | CLOCKS
        wrong += [
            f"{module}:{found.line} imports {found.target}"
            for found in imports(module)
            if not found.ours and found.target.split(".")[0] not in allowed
        ]
    assert wrong == []


def test_machines_and_values_never_ask_what_time_it_is() -> None:
    clocks = ("now", "utcnow", "today", "monotonic", "perf_counter")
    wrong = [
        f"{module}:{call.lineno} calls {name}()"
        for module in SOURCES
        if layer(module) <= 2
        for name, call in calls(module)
        if name in clocks
    ]
    assert wrong == []


def test_only_the_package_itself_knows_the_client_by_its_full_name() -> None:
    """Relative imports inside, so that a copy of the folder is a package of its own."""
    for module in SOURCES:
        for node in nodes(module):
            if isinstance(node, ast.ImportFrom) and not node.level and layer(module) < 6:
                assert not (node.module or "").startswith("supabase_rt"), (module, node.lineno)


def test_the_table_names_no_module_that_is_gone() -> None:
    for patterns in LAYERS:
        for pattern in patterns.split():
            assert fnmatch.filter(SOURCES, pattern), pattern


# -- what stands nowhere -------------------------------------------------------------------


def test_print_is_for_tools() -> None:
    wrong = [
        f"{module}:{call.lineno}"
        for module in SOURCES
        if layer(module) < 6 and not module.endswith("cli")
        for name, call in calls(module)
        if name == "print"
    ]
    assert wrong == []


def test_every_task_has_a_name() -> None:
    wrong = []
    for module in SOURCES:
        for name, call in calls(module):
            unnamed = name == "create_task" and "name" not in {one.arg for one in call.keywords}
            if unnamed or name in ("ensure_future", "get_event_loop"):
                wrong.append(f"{module}:{call.lineno} calls {name}()")
    assert wrong == []


LOGS = {"debug", "info", "warning", "error", "exception", "log"}


def test_every_log_record_says_in_fields_what_it_is_about() -> None:
    """For those who search logs by topic or handler instead of by words."""
    found = [
        (f"{module}:{call.lineno}", {one.arg for one in call.keywords})
        for module in SOURCES
        if layer(module) <= 4
        for name, call in calls(module)
        if name in LOGS and ast.unparse(call.func).partition(".")[0].endswith("log")
    ]
    assert len(found) > 30
    assert [where for where, keywords in found if "extra" not in keywords] == []


# -- the surface ---------------------------------------------------------------------------


def test_the_public_names_are_the_promised_ones() -> None:
    assert set(supabase_rt.__all__) == PROMISED | EXTRA_NAMES


def test_the_package_imports_what_it_exports_and_nothing_else() -> None:
    taken = {
        alias.asname or alias.name
        for node in tree(".").body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert taken == set(supabase_rt.__all__)


def bound_names(module: str) -> set[str]:
    """What a module defines or imports, at its top level or under a condition there."""
    found = set()
    for node in nodes(module):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found.update(alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found


def exports(module: str) -> set[str]:
    """The names in ``__all__``; none where a module has none."""
    for node in tree(module).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


def test_what_a_module_exports_it_has() -> None:
    """Read from the source: the server's modules want extras that need not be here."""
    missing = {
        f"{module}.{name}" for module in SOURCES for name in exports(module) - bound_names(module)
    }
    assert missing == set()


def test_what_one_module_takes_from_another_is_exported_there() -> None:
    """So ``__all__`` says what a change of a module may break."""
    hidden = []
    for module in SOURCES:
        for node in nodes(module):
            if not isinstance(node, ast.ImportFrom) or not node.level:
                continue
            origin = absolute(module, node).removeprefix("supabase_rt").lstrip(".")
            exported = exports(origin or ".")
            hidden += [
                f"{module}:{node.lineno} takes {origin}.{alias.name}"
                for alias in node.names
                if exported
                and alias.name not in exported
                and f"{origin}.{alias.name}" not in SOURCES
            ]
    assert hidden == []


def test_the_tree_of_errors_is_as_drawn() -> None:
    """The docstring of ``errors`` draws every class under its base."""
    drawn: dict[str, str] = {}
    bases = {-1: "Exception"}
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^    ([│ ]*)(?:[├└]── )?([A-Z]\w+)(?: .*)?$", line)
        if found is None:
            continue
        depth = len(found[1]) // 4 + ("── " in line)
        drawn[found[2]] = bases[depth - 1]
        bases[depth] = found[2]
    real = {name: getattr(errors, name).__bases__[0].__name__ for name in errors.__all__}
    assert drawn == real


def test_importing_loads_nothing_that_is_not_needed() -> None:
    """dataclasses-json and marshmallow cost 50 ms and serve the edge only."""
    unwanted = ("marshmallow", "dataclasses_json", "jwt", "psycopg", "httpx", "supabase_rt.server")
    code = f"import sys, supabase_rt; print([name for name in {unwanted} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.strip() == "[]"


def test_nothing_else_stands_at_the_top_level() -> None:
    ignored = [
        line.rstrip("/") for line in (ROOT / ".gitignore").read_text().splitlines() if line.strip()
    ]
    for path in ROOT.iterdir():
        made = any(fnmatch.fnmatchcase(path.name, pattern) for pattern in ignored)
        assert path.name in TOP_LEVEL or path.name.startswith(".") or made, path.name
