"""The version, read by the build and sent to the server after a token change."""

__version__ = "0.1.0"
