"""The local server's Postgres: a change feed, policies and messages from a real database.

Nothing here is imported before a database is asked for, because it needs psycopg.
"""
