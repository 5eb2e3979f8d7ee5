"""One process for each client; all speak the protocol of ``driver`` over stdin and stdout."""
