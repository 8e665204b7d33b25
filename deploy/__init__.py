"""How eventlog is run: the default configuration, a cluster on one machine, the demo."""
