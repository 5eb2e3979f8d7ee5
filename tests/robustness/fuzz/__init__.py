"""Hostile input: what any bytes at all may do to whoever reads them, which is nothing."""
