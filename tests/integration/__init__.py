"""The client against the local server, by what the user does."""
