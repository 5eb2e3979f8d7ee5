"""Tables in memory, and their changes."""
