"""Notes that outlive the process."""
