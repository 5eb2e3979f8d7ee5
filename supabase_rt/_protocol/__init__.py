"""The state machines of the client: no I/O, no clock, no call of user code."""
