"""Stores, in which the progress of a backfill outlives the program."""
