"""The filter language: one syntax tree, and evaluators that agree on every event.

Read and write
    parser          parse_filter(expression) -> Tree; every error is EventFilterException, as `problems` describes it
    structured      filters_to_tree(EventFilters) -> Tree; build_filter(...) -> EventFilters
    printer         print_filter(tree) -> expression; equal trees print alike, and read as the same tree
    tree            the nodes; leaves, uses_now, all_of, any_of
    event_filter    the specification's EventFilter: build_filter, parse_expression, match
    limits          the maxima

    The EventFilters of a request become a tree by `shared.rpc.filters.tree_of`.

Evaluate
    resolution      resolve_now(tree, now_ns) -> Tree, before the next two
    bounds_extraction   extract_bounds(tree, log_id) -> Bounds: which files can have a match (`bounds`)
    sql             to_sql(tree, promoted=, log_id=) -> Sql: a condition and its parameters for DuckDB, on whose
                    connection `sql_functions.register_filter_functions` was called
    batch_filter    BatchFilter(tree).mask(EventBatch(events, log_id=), now_ns=) -> a mask of live events in columns;
                    all filters that look at one `event_batch.EventBatch` share what they read of it
    predicate       compile_predicate(tree, now_ns)(LiveEvent) -> bool, for one event at a time

How they are made
    language        grammar -> semantics -> tree, with fields, checks, durations, patterns, regular_expressions
    live events     value_tests of one value, value_masks of many; payload_document reads payloads exactly
    SQL             sql_text, sql_numbers and sql_promoted compare columns; sql_json, sql_json_numbers and
                    sql_whole_payload compare payloads; id_positions turns ids, which are not stored, into positions

What all evaluators keep: a comparison with a missing value, or with a value of another type, is false, also when it is
negated; numbers are compared exactly, texts by code point; of duplicate keys of a payload the first counts.
"""
