"""Paths to the scalars of payloads, and how DuckDB's JSON functions are asked for them.

A path is the keys from the payload's root down: ("user", "address", "city"). A key may hold any
character. Array elements have no path here.

Invariant: the expression that `duckdb_path` gives finds exactly the value that lies under these keys,
whatever else the payload holds. Where DuckDB has no such expression it gives None.
"""

from shared.errors import EventConfigException

JsonPath = tuple[str, ...]

PATH_SEGMENTS_MAX = 16


def duckdb_path(path: JsonPath) -> str | None:
    """Return the expression for json_extract, to be bound as a parameter; None if DuckDB has none.

    Quoted keys say best what is meant, but have no escape for a quotation mark, trip over a backslash at
    the end, and take "*" for a wildcard. A JSON pointer has no such problems, but takes a number for an
    array index.
    """
    if not path or len(path) > PATH_SEGMENTS_MAX:
        return None
    if all(key and key != "*" and '"' not in key and "\\" not in key for key in path):
        return "$" + "".join(f'."{key}"' for key in path)
    if all(key and not key[0].isdigit() and key not in {"#", "-"} for key in path):
        return "".join("/" + key.replace("~", "~0").replace("/", "~1") for key in path)
    return None


def parse_declared_path(text: str) -> JsonPath:
    """Parse a path of the configuration: keys separated by dots, a key with dots in quotation marks.

    `payload.` in front is optional: "duration_ms", "payload.user.id" and '"http.status"' are paths.
    Raises EventConfigException if it is no path.
    """
    keys: list[str] = []
    rest = text.removeprefix("payload.")
    while rest:
        if rest.startswith('"'):
            key, quote, rest = rest[1:].partition('"')
            well_formed = bool(quote) and (not rest or rest.startswith("."))
        else:
            key, dot, tail = rest.partition(".")
            rest = dot + tail
            well_formed = bool(key)
        if not well_formed or rest == ".":
            keys.clear()
            break
        keys.append(key)
        rest = rest.removeprefix(".")
    if not keys or duckdb_path(tuple(keys)) is None:
        raise EventConfigException(
            f"path {text!r} cannot be promoted: write up to {PATH_SEGMENTS_MAX} keys separated by dots, "
            "none empty, a key that holds dots in quotation marks"
        )
    return tuple(keys)
