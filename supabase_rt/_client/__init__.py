"""The public objects of the client, and how they are built and run."""
