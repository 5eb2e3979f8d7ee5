"""The fault laboratory: a network that misbehaves on request, and the rules that must still
hold.
"""
