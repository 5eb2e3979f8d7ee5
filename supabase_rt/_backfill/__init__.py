"""Reading the rows whose changes were missed."""
