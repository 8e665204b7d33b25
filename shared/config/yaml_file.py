"""Reads the YAML file. Refuses what YAML would pass over in silence: a key that stands there twice."""

from pathlib import Path
from typing import Any

import yaml

from shared.errors import EventConfigException

# A configuration of a megabyte is some other file.
FILE_BYTES_MAX = 1_000_000


def read_yaml(path: Path) -> Any:
    """The one document in the file, None for an empty file.

    Raises EventConfigException naming the file where it is missing, unreadable or no YAML.
    """
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError as error:
        message = f"the configuration file {path} does not exist; give the path of one, or none for the defaults"
        raise EventConfigException(message) from error
    except OSError as error:
        raise EventConfigException(f"the configuration file {path} cannot be read: {error.strerror}") from error
    if len(content) > FILE_BYTES_MAX:
        raise EventConfigException(f"{path} is larger than {FILE_BYTES_MAX} bytes; is it a configuration file?")
    try:
        return yaml.load(content, _StrictLoader)  # noqa: S506 — it is a SafeLoader
    except yaml.YAMLError as error:
        raise EventConfigException(f"the configuration file {path} is not valid YAML: {error}") from error


class _StrictLoader(yaml.SafeLoader):
    """Safe, and without duplicate keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002
        """Build a mapping whose keys differ."""
        lines: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode) and lines.setdefault(key.value, line) != line:
                problem = f"{key.value} is given twice, in lines {lines[key.value]} and {line}; remove one"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
        return super().construct_mapping(node, deep=deep)
