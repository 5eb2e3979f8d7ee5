"""The guides, README, examples and site."""
