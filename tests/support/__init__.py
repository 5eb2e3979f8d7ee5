"""What several test files need: waiting, recording, and peers that misbehave."""
