"""Supabase Realtime for Python."""
