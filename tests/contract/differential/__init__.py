"""Our client and @supabase/realtime-js play the same scenarios against the same server."""
