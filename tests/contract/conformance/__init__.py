"""The behaviour of supabase-js, row by row: the checklist, its tests, and the table of both."""
