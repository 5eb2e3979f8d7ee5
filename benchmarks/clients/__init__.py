"""The clients, one process each. All use the protocol of ``driver`` over stdin and stdout."""
