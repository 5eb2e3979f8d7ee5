"""Conversations recorded with a real server, played against the client."""
