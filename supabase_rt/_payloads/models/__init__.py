"""Rows as objects of the user's classes."""
