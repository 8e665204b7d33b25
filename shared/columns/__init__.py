"""Events as Arrow columns, and the way between protobuf bytes and columns."""
