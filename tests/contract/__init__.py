"""Tests of the behaviour of the real server and the official client."""
