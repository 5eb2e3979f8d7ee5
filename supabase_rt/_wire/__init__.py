"""Conversion between bytes and messages; no I/O."""
