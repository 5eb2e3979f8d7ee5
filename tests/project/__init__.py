"""The rules of this repository."""
