"""What supabase-js does, row by row: the checklist, its tests, and the table of both."""
