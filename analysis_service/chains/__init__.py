"""Chains of related events: trees, durations, critical paths, comparison, causes. Pure functions on columns."""
