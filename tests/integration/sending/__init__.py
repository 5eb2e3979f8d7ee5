"""Tests of sending, over the socket and over HTTP."""
