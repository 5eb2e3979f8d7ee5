"""Tests of connecting and reconnecting, against the local server."""
