"""Typed rows from a schema: read it from PostgREST or a database, then write Python."""

from .database import read_database
from .model import Column, Enum, Schema, SchemaError, Table
from .openapi import read_openapi
from .render import render

__all__ = [
    "Column",
    "Enum",
    "Schema",
    "SchemaError",
    "Table",
    "read_database",
    "read_openapi",
    "render",
]
