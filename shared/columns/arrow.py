"""Names for Arrow's arrays in annotations, and its compute functions without their stubs.

The stubs of pyarrow reject much that the library does (casts, masks, arithmetic on chunked arrays).
Where a module computes with columns, these names say what is meant and the tests check it.
"""

from typing import Any, TypeAlias

import pyarrow.compute

Array: TypeAlias = Any
StringArray: TypeAlias = Any
BinaryArray: TypeAlias = Any
BooleanArray: TypeAlias = Any
IntegerArray: TypeAlias = Any
DoubleArray: TypeAlias = Any
ListArray: TypeAlias = Any
StructArray: TypeAlias = Any

compute: Any = pyarrow.compute
