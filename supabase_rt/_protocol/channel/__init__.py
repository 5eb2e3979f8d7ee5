"""The state machine of one channel, and its parts."""
