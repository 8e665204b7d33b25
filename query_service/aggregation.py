"""Sums of events by group: what a request may ask for, and its statement. Pure.

A row has the group's fields, then `time` and `value` where they are grouped by, and `count`; with times also `first`
and `last`, the smallest and the largest timestamp; with a value field that is not grouped by `value_count`,
`value_mean`, `value_squares` (the sum of the squared deviations from the mean), `value_min` and `value_max`.

Invariant: rows of the same group add up, whatever events they are of; those of means and squares by the formulas of
Chan et al.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from query_service.asked_columns import AskedColumn, asked_column, column_sql, type_of
from query_service.database import Statement
from query_service.question import Question, paths_of_keys
from query_service.statements import Builder, Window, together
from shared.columns.schema import EVENT_SCHEMA
from shared.errors import invalid_field
from shared.log.json_path import JsonPath
from shared.log.segment_columns import Columns

FIELDS_MAX = 8
VALUE_ERROR_MIN, VALUE_ERROR_MAX = 1e-4, 0.1
# Buckets of values: closer to zero is zero, farther is as far as this.
VALUE_MIN, VALUE_MAX = 1e-9, 1e19
# Of what is farther from zero, squares would overflow.
_MOMENTS_MAX = 1e140
_NS_MAX = 2**63 - 1
# Fields that no event shares with another, or that are not one value.
_NO_GROUPS = {"id", "metadata.tags"}
_TAME = f"CASE WHEN v > {_MOMENTS_MAX} THEN {_MOMENTS_MAX} WHEN v < -{_MOMENTS_MAX} THEN -{_MOMENTS_MAX} ELSE v END"
_SUMS = (
    "count(v) AS value_count",
    f"avg({_TAME}) AS value_mean",
    f"count(v) * var_pop({_TAME}) AS value_squares",
    "min(v) AS value_min",
    "max(v) AS value_max",
)
# DuckDB means infinity by the ends of the range; what epoch_ns makes of it depends on the statistics of a file.
_NANOSECONDS = (
    f"CASE WHEN timestamp = 'infinity' THEN {_NS_MAX} WHEN timestamp = '-infinity' THEN -{_NS_MAX} "
    "ELSE epoch_ns(timestamp) END"
)
_TIME = EVENT_SCHEMA.field("timestamp").type


@dataclass(frozen=True, slots=True)
class Aggregation:
    """What to sum. time_bucket_ns: 0 not to group by time. value: the numbers that are summed, or grouped by.

    value_error: with by_value, the relative error of a row's value; 0 for the exact ones.
    """

    fields: tuple[AskedColumn, ...]
    time_bucket_ns: int = 0
    value: AskedColumn | None = None
    by_value: bool = False
    value_error: float = 0.0

    @property
    def payload_paths(self) -> tuple[JsonPath, ...]:
        """The paths of the payload that it reads, those into arrays aside."""
        return paths_of_keys(column.field for column in (*self.fields, *([self.value] if self.value else ())))

    @property
    def schema(self) -> pa.Schema:
        """Names and types of the columns of a result."""
        columns = [pa.field(field.name, type_of(field)) for field in self.fields]
        columns += [pa.field("time", _TIME)] if self.time_bucket_ns else []
        columns += [pa.field("value", pa.float64())] if self.by_value else []
        columns.append(pa.field("count", pa.uint64()))
        if self.time_bucket_ns:
            columns += [pa.field("first", _TIME), pa.field("last", _TIME)]
        if self.value is not None and not self.by_value:
            columns.append(pa.field("value_count", pa.uint64()))
            names = ("value_mean", "value_squares", "value_min", "value_max")
            columns += [pa.field(name, pa.float64()) for name in names]
        return pa.schema(columns)

    def finish(self, found: pa.RecordBatch) -> pa.RecordBatch:
        """Turn the result of the statement into one with `schema`."""
        arrays: list[Any] = [
            column.cast(pa.int64()).cast(field.type) if field.type == _TIME else column.cast(field.type)
            for column, field in zip(found.columns, self.schema, strict=True)
        ]
        if self.time_bucket_ns:
            at = self.schema.get_field_index("time")
            arrays[at] = _starts(found.column(at), self.time_bucket_ns)
        if self.by_value and self.value_error:
            at = self.schema.get_field_index("value")
            arrays[at] = pa.array(_middles(found.column(at).to_numpy(zero_copy_only=False), self.value_error))
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)


def check_aggregation(
    group_by: Sequence[str], *, time_bucket_ns: int, value_field: str, by_value: bool, value_error: float
) -> Aggregation:
    """What a request asks for. Raises EventValidationException (INVALID_FIELD)."""
    if len(group_by) > FIELDS_MAX:
        raise invalid_field("group_by", f"has {len(group_by)} names; at most {FIELDS_MAX} are allowed")
    if len(set(group_by)) < len(group_by):
        raise invalid_field("group_by", "names a field twice")
    fields = [asked_column(name, f"group_by[{at}]") for at, name in enumerate(group_by)]
    for at, column in enumerate(fields):
        if column.field.name in _NO_GROUPS:
            raise invalid_field(f"group_by[{at}]", f"is {column.name!r}, by which nothing can be grouped")
    if by_value and not value_field:
        raise invalid_field("by_value", "needs a value_field")
    if value_error and not (by_value and VALUE_ERROR_MIN <= value_error <= VALUE_ERROR_MAX):
        problem = f"must be 0, or from {VALUE_ERROR_MIN:g} to {VALUE_ERROR_MAX:g}, and needs by_value"
        raise invalid_field("value_error", problem)
    value = None
    if value_field:
        value = asked_column(f"{value_field}:double", "value_field")
    return Aggregation(tuple(fields), time_bucket_ns, value, by_value, value_error)


def aggregate(relations: Sequence[tuple[Columns, Window]], question: Question, aggregation: Aggregation) -> Statement:
    """The rows of the groups of several relations, see the module; `Aggregation.finish` gives them their types."""
    builder = Builder()
    parts = []
    for numbers, window in together(relations):
        columns = [relations[number][0] for number in numbers]
        what = _what(aggregation, columns[0], builder)
        where = builder.where(columns[0], question, window)
        parts.append(f"SELECT {what} FROM {builder.relation(columns)} WHERE {where}")  # noqa: S608
    keys = [f"k{at}" for at, _ in enumerate(aggregation.fields)]
    if aggregation.time_bucket_ns:
        width = builder.integer(aggregation.time_bucket_ns)
        # Of what is before 1970, the quotient is rounded up.
        keys.append(f"t // {width} - (t % {width} < 0)::BIGINT AS time")
    if aggregation.by_value:
        keys.append(_bucket(aggregation.value_error, builder) if aggregation.value_error else "v AS value")
    sums = ["count(*) AS count"]
    if aggregation.time_bucket_ns:
        sums += ["min(t) AS first", "max(t) AS last"]
    if aggregation.value is not None and not aggregation.by_value:
        sums += _SUMS
    return builder.statement(
        f"SELECT {', '.join([*keys, *sums])} FROM ({' UNION ALL '.join(parts)})"  # noqa: S608
        f"{' WHERE v IS NOT NULL' if aggregation.by_value else ''} GROUP BY ALL HAVING count(*) > 0"
    )


def _what(aggregation: Aggregation, columns: Columns, builder: Builder) -> str:
    """What stands after SELECT of one relation: the group's fields, the timestamp, the value."""
    values = [f"{column_sql(each, columns.promoted, builder)} AS k{at}" for at, each in enumerate(aggregation.fields)]
    if aggregation.value is not None:
        values.append(f"{column_sql(aggregation.value, columns.promoted, builder)} AS v")
    if aggregation.time_bucket_ns:
        values.append(f"{_NANOSECONDS} AS t")
    return ", ".join(values) or "1"


def _starts(numbers: Any, width_ns: int) -> Any:
    """The starts of pieces of time by their numbers; the first one begins with the first time that there is."""
    whole = np.maximum(numbers.to_numpy(zero_copy_only=False), -(_NS_MAX // width_ns))
    starts = np.where(whole == numbers.to_numpy(zero_copy_only=False), whole * width_ns, -_NS_MAX - 1)
    return pa.array(starts).cast(_TIME)


def _bucket(error: float, builder: Builder) -> str:
    """The number of a value's bucket, from 1 for what is just not zero, negative below zero."""
    log_gamma, lowest = builder.add(_log_gamma(error)), builder.integer(_lowest(error))

    def number(magnitude: str) -> str:
        return f"ceil(ln(least({magnitude}, {VALUE_MAX}::DOUBLE)) / {log_gamma}::DOUBLE)::BIGINT - {lowest}"

    return (
        f"CASE WHEN v >= {VALUE_MIN}::DOUBLE THEN {number('v')} "
        f"WHEN v <= -{VALUE_MIN}::DOUBLE THEN -({number('-v')}) ELSE 0 END AS value"
    )


def _middles(numbers: Any, error: float) -> Any:
    """The value that is relatively as far from the one border of each bucket as from the other."""
    log_gamma = _log_gamma(error)
    magnitude = 2 * np.exp((np.abs(numbers) + _lowest(error)) * log_gamma) / (math.exp(log_gamma) + 1)
    return np.where(numbers == 0, 0.0, np.sign(numbers) * magnitude)


def _log_gamma(error: float) -> float:
    """Logarithm of the factor between the borders of a bucket."""
    return math.log((1 + error) / (1 - error))


def _lowest(error: float) -> int:
    """The number before that of the first bucket above zero."""
    return math.ceil(math.log(VALUE_MIN) / _log_gamma(error)) - 1
