"""Filters of live events, from the protos' EventFilters to a mask of a block."""
import numpy as np, numpy.typing as npt
import pyarrow as pa
from eventlog.v1 import event_pb2
from shared.clock import Clock
from shared.events.model import EventFilters
from shared.events.timestamps import to_datetime
from shared.filters.live_event import LiveEvent
from shared.filters.predicate import compile_predicate
from shared.filters.structured import filters_to_tree
from shared.filters.tree import Everything, uses_now
from stream_service.matcher import Compile, Mask


def filter_compiler(clock: Clock) -> Compile:
    """What compiles encoded EventFilters."""
    def compile_filter(encoded: bytes) -> Mask | None:
        tree = filters_to_tree(model(event_pb2.EventFilters.FromString(encoded)))
        if tree == Everything():
            return None
        predicate = compile_predicate(tree, clock.now_ns())
        def mask(events: pa.RecordBatch) -> npt.NDArray[np.bool_]:
            holds = compile_predicate(tree, clock.now_ns()) if uses_now(tree) else predicate
            cols = events.to_pydict()
            ts = events.column("timestamp").cast(pa.int64()).to_pylist(); rec = events.column("recorded_at").cast(pa.int64()).to_pylist()
            return np.array([holds(LiveEvent(position=cols["position"][i], timestamp=ts[i], recorded_at=rec[i], type=cols["type"][i], source=cols["source"][i], correlation_id=cols["correlation_id"][i], host=cols["host"][i], version=cols["version"][i], user=cols["user"][i], session_id=cols["session_id"][i], tags=cols["tags"][i], payload=cols["payload"][i])) for i in range(events.num_rows)], np.bool_)
        return mask
    return compile_filter


def model(f):
    tr = None
    if f.HasField("time_range"):
        r = f.time_range
        tr = (to_datetime(r.start.ToNanoseconds()) if r.HasField("start") else None, to_datetime(r.end.ToNanoseconds()) if r.HasField("end") else None)
    return EventFilters(type_patterns=list(f.type_patterns), time_range=tr, sources=list(f.sources), correlation_ids=list(f.correlation_ids), content_patterns=list(f.content_patterns), expression=f.expression)
