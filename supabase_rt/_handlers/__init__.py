"""Calling the user's functions."""
