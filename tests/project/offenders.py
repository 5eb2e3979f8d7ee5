"""The places where a rule of test_architecture does not hold yet.

The lists only shrink: new code follows the rule, and mended places are taken off.
"""

IMPORTS: set[str] = set()
"""Imports from a layer that is not below; they end with the composition."""

PRIVATE_NAMES: set[str] = {
    "_backfill.backfill_runner: change._data",
    "_connection.transport: ws._response",
    "_payloads.postgres_change: cls(data, 'raw')._with_rows",
    "server._tables.patterns: re2._Regexp",
}
"""Private names of others that are used."""

TOWERS: set[str] = set()
"""Classes that inherit from one of ours."""

FILE_NAMES: set[str] = set()
"""Names that more than one module of the client has."""

CLASS_NAMES: set[str] = set()
"""Names that more than one class has."""

CITATIONS: set[str] = set()
"""Modules that cite pages which are not in the repository."""

FIRST_WORDS: set[str] = {
    "examples.command_bot.help",
}
"""Docstrings that begin with What, Who, Where and the like."""

LONG_SENTENCES: set[str] = {
    "_backfill.planner",
    "_payloads.models.dataclass_models",
    "_protocol.channel_options",
    "_runtime.http_session",
}
"""Docstrings with a sentence of more than 25 words."""
