"""The rules of the architecture: the allowed imports of each folder, and other things that must
never happen.

``docs/contributing/architecture.md`` describes it. If a rule does not hold everywhere yet,
``offenders.py`` lists the exceptions. A new one fails the test, and so does one that was mended.
"""

from __future__ import annotations

import ast
import fnmatch
import pickle
import re
import subprocess
import sys
import typing
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import supabase_rt
from supabase_rt import enums, errors

from . import offenders
from .test_exports import PROMISED

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "supabase_rt"

LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "enums", "_version", "_name_hints", "_printable"),
    ("_wire",),
    ("_payloads",),
    ("_protocol",),
    ("_runtime",),
    ("_stores",),
    ("_connection", "_handlers", "_http"),
    ("_backfill", "_queues", "_live", "_replica"),
    ("types", "rows"),
    ("_client",),
    (".",),
    ("server",),
    ("otel", "sync", "testing", "examples", "cli", "__main__"),
)
"""The folders and modules of the root, from the bottom up. A module may import what lies below its
own layer. Modules of one layer do not import each other, except in the first layer.
"""

PURE = (
    "errors",
    "enums",
    "_version",
    "_name_hints",
    "_wire",
    "_payloads",
    "_protocol",
    "_backfill.planner",
    "_backfill.progress",
    "_backfill.pages",
    "_connection.frame_decoders",
)
"""Modules that do no I/O, do not wait and have no clock: time is an argument there."""

SERVER_SHARES = {"errors", "enums", "_printable", "_wire"}
"""The parts that the local server shares with the client; there are no others."""

PUBLIC_MODULES = {
    ".",
    "errors",
    "enums",
    "types",
    "rows",
    "otel",
    "sync",
    "server",
    "testing",
}
"""Modules that a user may import. All others are programs, or have an underscore."""

PROGRAMS = {"cli", "examples", "__main__"}

FOR_TOOLS = {
    *(".", "server", "types", "rows", "errors", "enums"),
    *("_wire.jwt_claims", "_wire.redirects", "_printable", "_client.signals"),
}
"""Modules that a tool may import: the public ones, and four that must behave as in the client.

They read a token, recognize a redirect, escape text for a terminal and handle signals."""

STDLIB = sys.stdlib_module_names
WAITING = {"asyncio", "threading", "selectors", "socket", "sched", "concurrent"}
CLOCKS = {"time"}
FOREIGN = {
    "_wire": {"msgspec"},
    "_payloads": {"msgspec", "dataclasses_json", "typing_extensions"},
    "_protocol": {"msgspec"},
    "_runtime": {"aiohttp"},
    "_connection": {"msgspec", "aiohttp", "yarl"},
    "_handlers": {"pyee"},
    "_http": {"msgspec", "aiohttp", "yarl"},
    "_backfill": {"msgspec", "aiohttp", "yarl"},
    "_client": {"msgspec", "aiohttp"},
    "rows": {"dataclasses_json"},
    "types": {"aiohttp"},
}
"""The core dependencies, by the places that may import them. yarl belongs to aiohttp, and only type
checkers see typing_extensions. The server and the tools may use what their extra has.
"""

WIRED = {"postgrest", "storage3", "supabase_auth", "supabase_functions"}
FOREIGN_OF = {
    "_client.project_services": {"httpx", *WIRED},
    "_client.supabase_client": WIRED,
    "_stores.redis_store": {"redis"},
    "_stores.postgres_store": {"psycopg"},
    "_payloads.models.pydantic_models": {"pydantic"},
}
"""A package outside the core dependencies is imported only in a file named for it."""

AT_HOME = {
    "psycopg": (
        *("server._postgres", "testing.postgres"),
        *("cli.conninfo", "cli.doctor.check_database", "cli.gen_types.from_database"),
    ),
    "anyio": ("sync",),
    "jwt": ("server.tokens",),
    "opentelemetry": ("otel",),
    "pytest": ("testing.pytest_supabase_rt",),
    "re2": ("server._tables.patterns",),
}
"""The folder or module above the client that may import a package of an extra."""

CORE = {"aiohttp", "msgspec", "pyee", "dataclasses_json", "yarl", "typing_extensions"}

VALUE_TYPES = {"Outcome", "CallNext", "JsonDataclass", "ErrorReported", "OnceOptions"}
"""Classes of ours that may have subclasses, one level deep."""

LARGEST_ROOT, LARGEST_FOLDER = 14, 20
"""The most modules that the root and any other folder may have."""

NEVER_FIRST = {"What", "Who", "Whose", "Where", "That", "Of", "Else", "How"}
"""A docstring begins with a verb in the third person or with a noun phrase."""

LONGEST_SENTENCE = 25
"""Number of words."""

CITATION = re.compile(r"architecture\.md|protocol\s+reference|JS\s+reference|behaviour\s+reference")
"""Names of pages that are not in the repository."""


EXTRA_NAMES = {
    "Backfill",
    "SqliteStore",
    "Health",
    "PostgresChangesEvent",
    "PresenceEvent",
    "__version__",
}
"""Public names besides the promised ones: the result of ``health()`` and two enums."""

TOP_LEVEL = {
    "pyproject.toml",
    "supabase_rt",
    "tests",
    "docs",
    "benchmarks",
    "mkdocs.yml",
    "Makefile",
    "README.md",
    "CONTRIBUTING.md",
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


def place(module: str) -> str:
    """Returns the folder or module of the root that contains a module."""
    return module.split(".")[0] or "."


def layer(module: str) -> int:
    for number, names in enumerate(LAYERS):
        if place(module) in names:
            return number
    raise AssertionError(f"{module} lies in no layer; say in LAYERS where its folder belongs")


SERVER = next(number for number, names in enumerate(LAYERS) if "server" in names)
TOOLS = len(LAYERS) - 1


def is_pure(module: str) -> bool:
    return any(module == one or module.startswith(f"{one}.") for one in PURE)


def is_private(module: str) -> bool:
    return any(part.startswith("_") and part != "__main__" for part in module.split("."))


def absolute(module: str, node: ast.ImportFrom) -> str:
    """Returns the full dotted name of a ``from`` import, with ``supabase_rt``."""
    if not node.level:
        return node.module or ""
    package = [] if module == "." else module.split(".")
    if SOURCES[module].name != "__init__.py":
        package = package[:-1]
    package = package[: len(package) - (node.level - 1)]
    return ".".join(["supabase_rt", *package, *([node.module] if node.module else [])])


def named(module: str, node: ast.AST) -> Iterator[str]:
    """Yields the modules of an import; a name imported from a package may be a module."""
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
    """Returns every import of a module, also inside functions and ``TYPE_CHECKING``."""
    found = []
    for node in nodes(module):
        for name in named(module, node):
            ours = name == "supabase_rt" or name.startswith("supabase_rt.")
            target = (name.removeprefix("supabase_rt").lstrip(".") or ".") if ours else name
            found.append(Import(module, target, ours, getattr(node, "lineno", 0)))
    return tuple(dict.fromkeys(found))


def calls(module: str) -> Iterator[tuple[str, ast.Call]]:
    """Yields every call, with the last part of the function's name."""
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
    if place(module) == place(target):
        return True
    if mine == SERVER:
        return place(target) in SERVER_SHARES
    if mine == TOOLS:
        return target in FOR_TOOLS or theirs == TOOLS
    return theirs < mine or theirs == mine == 0


def test_a_module_imports_from_the_layers_below_its_own() -> None:
    """The server may use only the shared parts, a tool only the public names."""
    wrong = {
        f"{module} imports {found.target}"
        for module in SOURCES
        for found in imports(module)
        if found.ours and not may_import(module, found.target)
    }
    check(wrong, offenders.IMPORTS)


def test_every_folder_of_the_package_has_a_layer() -> None:
    assert {place(module) for module in SOURCES} <= {name for names in LAYERS for name in names}


def test_a_folder_can_be_read_at_a_glance() -> None:
    folders = Counter(path.parent.relative_to(PACKAGE).as_posix() for path in SOURCES.values())
    assert folders.pop(".") <= LARGEST_ROOT
    assert {name: count for name, count in folders.items() if count > LARGEST_FOLDER} == {}


def test_a_layer_uses_only_the_libraries_it_may() -> None:
    """Pure modules may not use modules that wait or read a clock."""
    wrong = []
    for module in SOURCES:
        if layer(module) >= SERVER:
            continue
        allowed = STDLIB | FOREIGN.get(place(module), set()) | FOREIGN_OF.get(module, set())
        if is_pure(module):
            allowed = allowed - WAITING - CLOCKS - {"aiohttp", "yarl"}
        wrong += [
            f"{module}:{found.line} imports {found.target}"
            for found in imports(module)
            if not found.ours and found.target.split(".")[0] not in allowed
        ]
    assert wrong == []


def test_a_package_of_an_extra_is_imported_where_one_looks_for_it() -> None:
    """The client has its own table, ``FOREIGN_OF``."""
    wrong = [
        f"{module}:{found.line} imports {found.target}"
        for module in SOURCES
        if layer(module) >= SERVER
        for found in imports(module)
        if not found.ours and (package := found.target.split(".")[0]) not in STDLIB | CORE
        if not any(f"{module}.".startswith(f"{home}.") for home in AT_HOME.get(package, ()))
    ]
    assert wrong == []


def test_what_is_pure_never_asks_what_time_it_is() -> None:
    clocks = ("now", "utcnow", "today", "monotonic", "perf_counter")
    wrong = [
        f"{module}:{call.lineno} calls {name}()"
        for module in SOURCES
        if is_pure(module)
        for name, call in calls(module)
        if name in clocks
    ]
    assert wrong == []


def test_only_a_tool_knows_the_client_by_its_full_name() -> None:
    """Imports inside are relative, so that a copy of the folder is a package of its own."""
    for module in SOURCES:
        for node in nodes(module):
            if isinstance(node, ast.ImportFrom) and not node.level and layer(module) < TOOLS:
                assert not (node.module or "").startswith("supabase_rt"), (module, node.lineno)


def test_what_has_no_underscore_is_public_or_a_program() -> None:
    open_names = {place(module) for module in SOURCES if not is_private(place(module))}
    assert open_names == PUBLIC_MODULES | PROGRAMS


def test_every_public_module_stands_in_the_api_pages() -> None:
    pages = "".join(path.read_text() for path in sorted((ROOT / "docs" / "api").glob("*.md")))
    named = re.findall(r"^::: supabase_rt\.(\w+)", pages, re.MULTILINE)
    exported = {name.__module__.split(".")[1] for name in vars(enums).values() if is_ours(name)}
    assert PUBLIC_MODULES - {"."} <= {*named, *exported}


def is_ours(thing: object) -> bool:
    return getattr(thing, "__module__", "").startswith("supabase_rt.")


def test_public_classes_do_not_say_where_they_are_defined() -> None:
    """So pickles and tracebacks stay valid after the next move."""
    classes = [one for one in vars(supabase_rt).values() if isinstance(one, type)]
    assert {one.__name__ for one in classes if is_private(one.__module__)} == set()


def test_what_a_public_class_is_made_of_can_still_be_read() -> None:
    """Annotations are texts, and their names exist only in their own module."""
    for one in vars(supabase_rt).values():
        if isinstance(one, type):
            typing.get_type_hints(one)
            assert pickle.loads(pickle.dumps(one)) is one


# -- what must never be ----------------------------------------------------------------------


def check(found: set[str], known: set[str]) -> None:
    """Checks that the offenders of a rule are the known ones; the list may only shrink."""
    assert sorted(found - known) == [], "this is new: follow the rule instead"
    assert sorted(known - found) == [], "mended: take it off the list in offenders.py"


OF_NAMEDTUPLES = {"_replace", "_asdict", "_fields", "_make", "_field_defaults"}


def private_uses(module: str) -> set[str]:
    """Returns the names with an underscore that are used on anything but ``self``."""
    found = set()
    for node in nodes(module):
        if not isinstance(node, ast.Attribute) or node.attr in OF_NAMEDTUPLES:
            continue
        if not node.attr.startswith("_") or node.attr.endswith("__"):
            continue
        owner = ast.unparse(node.value)
        if owner in ("self", "cls", "super()", "other"):  # the last is one of the same class
            continue
        if any(isinstance(one, ast.ClassDef) and one.name == owner for one in tree(module).body):
            continue  # a table of a class's own methods
        found.add(f"{module}: {owner}.{node.attr}")
    return found


def test_a_name_with_an_underscore_is_for_self() -> None:
    check(set().union(*map(private_uses, SOURCES)), offenders.PRIVATE_NAMES)


def classes() -> list[tuple[str, ast.ClassDef]]:
    return [
        (module, node)
        for module in SOURCES
        for node in nodes(module)
        if isinstance(node, ast.ClassDef)
    ]


def bases_of_ours(module: str, node: ast.ClassDef, ours: set[str]) -> list[str]:
    names = [ast.unparse(base).partition("[")[0] for base in node.bases]
    foreign = {
        alias.asname or alias.name
        for one in nodes(module)
        if isinstance(one, ast.ImportFrom) and not one.level
        for alias in one.names
    }
    return [] if "Protocol" in names else [x for x in names if x in ours and x not in foreign]


def test_no_class_is_a_tower() -> None:
    """Inheritance from our own classes is for errors, payloads and one-level value types."""
    ours = {node.name for _, node in classes()}
    high = {node.name for module, node in classes() if bases_of_ours(module, node, ours)}
    found = {
        f"{module}.{node.name}({base})"
        for module, node in classes()
        if module != "errors" and place(module) != "_payloads"
        for base in bases_of_ours(module, node, ours)
        if base not in VALUE_TYPES - high
    }
    check(found, offenders.TOWERS)


def test_no_two_modules_of_the_client_have_one_name() -> None:
    stems = [
        path.stem
        for module, path in SOURCES.items()
        if layer(module) < SERVER and path.stem != "__init__"
    ]
    check({stem for stem in stems if stems.count(stem) > 1}, offenders.FILE_NAMES)


def test_no_two_classes_have_one_name() -> None:
    """The blocking package is an exception: it has the same names on purpose."""
    names = [node.name for module, node in classes() if place(module) != "sync"]
    check({name for name in names if names.count(name) > 1}, offenders.CLASS_NAMES)


def test_what_is_cited_is_in_the_repository() -> None:
    found = {module for module, path in SOURCES.items() if CITATION.search(path.read_text())}
    check(found, offenders.CITATIONS)


# -- prose -----------------------------------------------------------------------------------


def docstrings(module: str) -> Iterator[tuple[str, str]]:
    """Yields the docstrings of a module, with the dotted names of their objects."""

    def visit(node: ast.AST, name: str) -> Iterator[tuple[str, str]]:
        kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        if isinstance(node, kinds):
            text = ast.get_docstring(node)
            if text:
                yield name, text
        for child in ast.iter_child_nodes(node):
            inner = getattr(child, "name", None)
            named = isinstance(child, kinds) and isinstance(inner, str)
            yield from visit(child, f"{name}.{inner}" if named else name)

    yield from visit(tree(module), module)


def sentences(text: str) -> Iterator[str]:
    """Yields the sentences of a docstring, without its examples, drawings and lists."""
    for paragraph in re.split(r"\n\s*\n", text):
        lines = paragraph.splitlines()
        if any(re.match(r"\s{4}|\s*[-*│├└|>]|\w+:$|\s*\w+: ", line) for line in lines):
            continue
        yield from re.split(r"(?<=[.!?])\s+(?=[A-Z`])", " ".join(line.strip() for line in lines))


def test_a_docstring_begins_with_a_verb_or_a_noun() -> None:
    found = {
        name
        for module in SOURCES
        for name, text in docstrings(module)
        if re.match(r"\w*", text)[0] in NEVER_FIRST  # type: ignore[index]
    }
    check(found, offenders.FIRST_WORDS)


def test_no_sentence_of_a_docstring_is_too_long() -> None:
    found = {
        name
        for module in SOURCES
        for name, text in docstrings(module)
        if any(len(one.split()) > LONGEST_SENTENCE for one in sentences(text))
    }
    check(found, offenders.LONG_SENTENCES)


def test_there_is_no_cycle() -> None:
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module in done:
            return
        for found in imports(module):
            # A package's __init__ may import from the modules of the package.
            if found.ours and found.target != module:
                visit(found.target, (*path, module))
        done.add(module)

    for module in SOURCES:
        visit(module, ())


# -- what stands nowhere -------------------------------------------------------------------


def test_print_is_for_tools() -> None:
    wrong = [
        f"{module}:{call.lineno}"
        for module in SOURCES
        if layer(module) < TOOLS and not module.endswith("cli")
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
    """The fields allow a search of logs by topic or handler."""
    found = [
        (f"{module}:{call.lineno}", {one.arg for one in call.keywords})
        for module in SOURCES
        if layer(module) < SERVER
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
    """Returns the names that a module defines or imports, also under a condition."""
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
    """Returns the names in ``__all__``, or an empty set without it."""
    for node in tree(module).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


def test_what_a_module_exports_it_has() -> None:
    """The names are read from the source, because an import would need the extras."""
    missing = {
        f"{module}.{name}" for module in SOURCES for name in exports(module) - bound_names(module)
    }
    assert missing == set()


def test_what_one_module_takes_from_another_is_exported_there() -> None:
    """So ``__all__`` shows what a change of a module may break."""
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
    """dataclasses-json and marshmallow cost 50 ms, and few calls need them."""
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
