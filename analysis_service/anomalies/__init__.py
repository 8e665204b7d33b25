"""What differs from the usual: incidents in rates, values, types, heartbeats and sequences. Pure functions on columns.

All detectors go through the events in the order of time and judge each against what came before, so the batch form
and the live form say the same.
"""
