"""Helpers of several test files: waiting, recording, and misbehaving peers."""
