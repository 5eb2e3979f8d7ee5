"""Typed rows from a schema: read it from PostgREST or a database, then write Python."""

from .from_database import read_database
from .from_openapi import read_openapi
from .render import render
from .schema import Column, Enum, Schema, SchemaError, SchemaTable

__all__ = [
    "Column",
    "Enum",
    "Schema",
    "SchemaError",
    "SchemaTable",
    "read_database",
    "read_openapi",
    "render",
]
