"""Tests of the life of a client: connect, run, close."""
