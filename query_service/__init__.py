"""The query service: reads segments and answers questions about recorded events."""
