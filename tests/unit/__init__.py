"""Without a socket; mirrors the package."""
