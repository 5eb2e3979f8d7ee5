"""The tests of supabase_rt."""
