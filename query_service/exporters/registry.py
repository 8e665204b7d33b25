"""The formats there are: the built-in ones, and those that other packages add as entry points.

Invariants: a built-in format cannot be replaced; the code of an added one runs when it is first asked for, not
before; one that is broken fails those who ask for it, nobody else.
"""

from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points

from query_service.exporters.csv_exporter import CSV
from query_service.exporters.exporter import ExportContext, Exporter, ExportFormat
from query_service.exporters.json_exporter import JSON_LINES
from query_service.exporters.parquet_exporter import PARQUET
from query_service.exporters.zstd_exporter import ZstdExporter
from shared.errors import EventException, EventValidationException, FieldViolation
from shared.suggestion import did_you_mean

GROUP = "eventlog.exporters"


class ExportFormats:
    """Finds formats by name. Several threads may use it."""

    def __init__(self, added: Iterable[EntryPoint] | None = None) -> None:
        """Take the entry points of the installed packages, or others."""
        self._formats = {each.name: each for each in (JSON_LINES, CSV, PARQUET)}
        found = entry_points(group=GROUP) if added is None else added
        self._added = {each.name: each for each in found if each.name not in self._formats}

    @property
    def names(self) -> list[str]:
        """Names of all formats, sorted."""
        return sorted({*self._formats, *self._added})

    def find(self, name: str) -> ExportFormat:
        """Return the format of a name.

        Raises EventValidationException (INVALID_FIELD) if there is none, EventException (INTERNAL) if the
        package that adds it is broken.
        """
        if name not in self._formats and name in self._added:
            self._formats[name] = _load(self._added[name])
        if name not in self._formats:
            raise _unknown(name, self.names)
        return self._formats[name]

    def exporter(self, name: str, context: ExportContext, *, zstd: bool = False) -> Exporter:
        """Make an exporter for one file, compressed as a whole if zstd. Raises as find does."""
        exporter = self.find(name).open(context)
        return ZstdExporter(exporter) if zstd else exporter


def _load(entry: EntryPoint) -> ExportFormat:
    try:
        loaded = entry.load()
    except Exception as error:
        raise _broken(entry, f"{type(error).__name__}: {error}") from error
    if not isinstance(loaded, ExportFormat):
        raise _broken(entry, f"it is a {type(loaded).__name__}")
    return loaded


def _broken(entry: EntryPoint, problem: str) -> EventException:
    package = entry.dist.name if entry.dist is not None else "the package that adds it"
    return EventException(
        f"the export format {entry.name!r} cannot be loaded from {entry.value} ({problem}): repair or remove "
        f"{package}; an entry point of {GROUP} names an ExportFormat"
    )


def _unknown(name: str, names: list[str]) -> EventValidationException:
    problem = f"is {name[:60]!r}, which is no format{did_you_mean(name, names)}; there are {', '.join(names)}"
    return EventValidationException(
        f"format {problem}", violations=[FieldViolation("format", problem)], reason="INVALID_FIELD"
    )
