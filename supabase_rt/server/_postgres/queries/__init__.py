"""The queries to the database, run in a client's role."""
