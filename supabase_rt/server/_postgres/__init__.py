"""The local server's Postgres: a change feed, policies and messages from a real database.

It is imported only for a server with a database, because it needs psycopg.
"""
