"""Reading tables over HTTP, in the syntax of PostgREST: what a backfill and small tools need."""
