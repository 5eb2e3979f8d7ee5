"""The tools around the client."""
