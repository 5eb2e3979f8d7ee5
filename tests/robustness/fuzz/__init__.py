"""Hostile input: any bytes at all must have no effect beyond the documented errors."""
