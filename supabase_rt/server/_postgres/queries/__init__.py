"""Questions to the database, asked as a role."""
