"""Changes as PostgreSQL's logical replication sends them."""
