"""Tests of the parts of a connection."""
