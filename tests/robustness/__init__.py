"""Faults and hostile input."""
