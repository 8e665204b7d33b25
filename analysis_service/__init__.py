"""The analysis service: statistics, patterns, anomalies and chains."""
