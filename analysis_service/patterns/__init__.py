"""Recurring patterns of events, each found by an algorithm of its own. Pure functions on columns."""
