"""Temporary stand-in for Query."""

import datetime as dt
import duckdb
import pyarrow as pa
from eventlog.v1 import query_service_pb2
from shared.events.model import EventFilters
from shared.filters.structured import filters_to_tree
from shared.filters.sql import to_sql
from shared.filters.resolution import resolve_now
from shared.filters.sql_functions import register_filter_functions
from shared.events.timestamps import to_datetime
from shared.columns.schema import EVENT_SCHEMA
from shared.filters.tree import Everything


def model(f):
    tr = None
    if f.HasField("time_range"):
        r = f.time_range
        tr = (
            to_datetime(r.start.ToNanoseconds()) if r.HasField("start") else None,
            to_datetime(r.end.ToNanoseconds()) if r.HasField("end") else None,
        )
    return EventFilters(
        type_patterns=list(f.type_patterns),
        time_range=tr,
        sources=list(f.sources),
        correlation_ids=list(f.correlation_ids),
        content_patterns=list(f.content_patterns),
        expression=f.expression,
    )


def batches(log, request, committed):
    sel = request.selection
    tree = filters_to_tree(model(sel.filters))
    sql = None if tree == Everything() else to_sql(resolve_now(tree, 0), promoted=(), log_id=committed.log_id)
    until = min(sel.until_position or committed.position + 1, committed.position + 1)
    first = sel.from_position or log.first_position()
    left = request.limit or 1 << 60
    con = duckdb.connect(config={"threads": 1})
    register_filter_functions(con)
    for batch in log.read(first, until):
        if sql is not None:
            con.register("b", pa.Table.from_batches([batch]))
            t = con.execute(f"SELECT * FROM b WHERE {sql.text} ORDER BY position", sql.parameters).to_arrow_table()
            t = t.cast(EVENT_SCHEMA).combine_chunks()
            if not t.num_rows:
                continue
            batch = t.to_batches()[0]
        batch = batch.slice(0, left)
        left -= batch.num_rows
        for at in range(0, batch.num_rows, 8192):
            yield batch.slice(at, 8192)
        if left <= 0:
            break
