"""Statistics of events: counts, rates, durations, distributions. Pure functions on columns."""
