"""The fault laboratory: a network that misbehaves on request, and what must hold all the same."""
