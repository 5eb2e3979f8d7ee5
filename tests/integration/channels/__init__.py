"""Tests of the public channel, against a local server."""
