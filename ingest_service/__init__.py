"""The ingest service: the only writer of the log."""
