"""What the real server and the official client do."""
