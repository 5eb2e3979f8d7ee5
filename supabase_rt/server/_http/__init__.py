"""The server's endpoints over HTTP and WebSocket."""
