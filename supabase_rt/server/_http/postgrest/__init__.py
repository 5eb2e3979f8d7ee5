"""Reading tables over HTTP in PostgREST's syntax, as far as backfills and small tools need it."""
