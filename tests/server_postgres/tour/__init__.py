"""Other Realtime clients that use the local server."""
