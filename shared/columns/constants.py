"""Python values as Arrow scalars, converted once.

Arrow looks for optional packages each time it converts a Python value; on the hot path that costs more
than the computation.
"""

from functools import lru_cache
from typing import Any

import pyarrow as pa


# Typed: False and 0 are equal and not the same scalar.
@lru_cache(maxsize=1000, typed=True)
def constant(value: Any) -> "pa.Scalar[Any]":
    """The value as a scalar. Meant for values of which there are few."""
    scalar: pa.Scalar[Any] = pa.scalar(value)
    return scalar
