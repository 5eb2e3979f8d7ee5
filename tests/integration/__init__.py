"""Tests of the client against the local server, sorted by actions of the user."""
