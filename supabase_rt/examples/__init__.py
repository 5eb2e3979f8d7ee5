"""Programs to run, to read and to copy: ``python -m supabase_rt.examples.demo``."""
