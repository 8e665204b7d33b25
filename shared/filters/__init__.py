"""The filter language: one syntax tree, two evaluators that agree on every event.

parser, structured, printer   expressions and EventFilters to and from trees
predicate                     trees as functions on live events
sql, sql_functions            trees as SQL for DuckDB
bounds                        what a tree says before any segment is opened
event_filter                  the specification's EventFilter
"""
