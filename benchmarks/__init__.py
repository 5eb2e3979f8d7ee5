"""How fast the SDK is beside its peers and beside the socket's own limit: ``make bench``."""
