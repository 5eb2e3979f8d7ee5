"""Foreign clients on a tour of the local server."""
