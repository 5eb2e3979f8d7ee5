"""Tests of the public objects, without a server."""
