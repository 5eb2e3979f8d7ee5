"""The socket: open, read, write, reconnect, close."""
