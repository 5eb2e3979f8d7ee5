"""The server's state machine: no I/O, no clock."""
