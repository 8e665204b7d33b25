"""Scores detectors as the Numenta Anomaly Benchmark does: early detections in labelled windows count, others cost.

Written after the description of the benchmark (Lavin and Ahmad, 2015). A detection in a window scores by how early it
is, only the best one counts; a window without one costs; a detection outside costs more the farther it lies behind the
last window. The first 15 % of a series (of at most 5,000 points) are for learning and do not count. A corpus has one
threshold. A detector that never fires scores 0, a perfect one 100.
"""

import csv
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.support.event_columns import nanoseconds

LEARNING_SHARE, LEARNING_POINTS_MAX = 0.15, 750


@dataclass(frozen=True)
class Profile:
    """What a false detection and a missed window cost; a window found is worth 1."""

    false_positive: float
    false_negative: float


STANDARD = Profile(0.11, 1.0)
FEW_FALSE_POSITIVES = Profile(0.22, 1.0)
FEW_FALSE_NEGATIVES = Profile(0.11, 2.0)


@dataclass(frozen=True)
class Series:
    """A labelled series. times: nanoseconds. windows: first and last point of each, both included."""

    name: str
    times: np.ndarray
    values: np.ndarray
    windows: tuple[tuple[int, int], ...]

    @property
    def learning(self) -> int:
        """Points at the beginning that do not count."""
        return min(int(LEARNING_SHARE * len(self.values)), LEARNING_POINTS_MAX)


def read_corpus(folder: Path) -> list[Series]:
    """All series of a folder of the benchmark."""
    labels = json.loads((folder / "labels/combined_windows.json").read_text())
    return [_read_series(folder / "data" / name, name, windows) for name, windows in sorted(labels.items())]


def best_score(corpus: Sequence[Series], scores: Mapping[str, np.ndarray], profile: Profile) -> tuple[float, float]:
    """The corpus' score, 100 at best, with the one threshold that is best for it; and that threshold."""
    points = [point for series in corpus for point in _points(series, scores[series.name])]
    points.sort(key=lambda point: -point.score)
    windows = sum(len(series.windows) for series in corpus)
    found: dict[tuple[str, int], float] = {}
    total, best, threshold = -windows * profile.false_negative, -windows * profile.false_negative, math.inf
    for number, point in enumerate(points):
        if point.window is None:
            total += point.worth * profile.false_positive
        else:
            before = found.get(point.window)
            total += profile.false_negative + point.worth if before is None else max(0.0, point.worth - before)
            found[point.window] = point.worth if before is None else max(before, point.worth)
        last_of_its_score = number + 1 == len(points) or points[number + 1].score != point.score
        if last_of_its_score and total > best:
            best, threshold = total, point.score
    return _normalised(best, windows, profile), threshold


def score_detections(corpus: Sequence[Series], detections: Mapping[str, np.ndarray], profile: Profile) -> float:
    """The corpus' score of what was detected: a mask by series."""
    total, windows = 0.0, 0
    for series in corpus:
        found: dict[tuple[str, int], float] = {}
        for point in _points(series, detections[series.name].astype(float)):
            if point.score == 0:
                continue
            if point.window is None:
                total += point.worth * profile.false_positive
            else:
                found[point.window] = max(point.worth, found.get(point.window, 0.0))
        total += sum(found.values()) - (len(series.windows) - len(found)) * profile.false_negative
        windows += len(series.windows)
    return _normalised(total, windows, profile)


def windowed_gaussian(values: np.ndarray) -> np.ndarray:
    """The benchmark's simplest baseline: how far in the tails of the last 6,400 values a value is."""
    scores = np.zeros(len(values))
    centred = values - values.mean()
    sums, squares = (np.concatenate(([0.0], np.cumsum(each))) for each in (centred, centred**2))
    for number in range(1, len(values)):
        stop = number if number <= 6400 else 6400 + (number - 6400) // 100 * 100
        start = max(0, stop - 6400)
        mean = (sums[stop] - sums[start]) / (stop - start)
        deviation = math.sqrt(max(0.0, (squares[stop] - squares[start]) / (stop - start) - mean**2)) or 0.000001
        scores[number] = 1 - 0.5 * math.erfc(abs(centred[number] - mean) / deviation / 1.4142)
    return scores


def scaled_sigmoid(relative: float) -> float:
    """Worth of a detection by its place: 1 well before the end of a window, 0 there, -1 far behind."""
    return -1.0 if relative > 3 else 2 / (1 + math.exp(5 * relative)) - 1


@dataclass(frozen=True)
class _Point:
    score: float
    worth: float
    window: tuple[str, int] | None


def _points(series: Series, scores: np.ndarray) -> Iterator[_Point]:
    worth = _worth(series.windows)
    for number in range(series.learning, len(scores)):
        window = next((place for place, (first, last) in enumerate(series.windows) if first <= number <= last), None)
        key = None if window is None else (series.name, window)
        yield _Point(float(scores[number]), worth(number, window), key)


def _worth(windows: Sequence[tuple[int, int]]) -> Callable[[int, int | None], float]:
    def of(number: int, window: int | None) -> float:
        if window is not None:
            first, last = windows[window]
            return scaled_sigmoid(-(last - number + 1) / (last - first + 1)) / scaled_sigmoid(-1.0)
        before = [each for each in windows if each[1] < number]
        if not before:
            return -1.0
        first, last = before[-1]
        return scaled_sigmoid((number - last) / max(1, last - first))

    return of


def _normalised(total: float, windows: int, profile: Profile) -> float:
    nothing = -windows * profile.false_negative
    return 100 * (total - nothing) / (windows - nothing)


def _read_series(path: Path, name: str, windows: Sequence[Sequence[str]]) -> Series:
    with path.open() as lines:
        rows = list(csv.DictReader(lines))
    times = np.array([nanoseconds(row["timestamp"]) for row in rows], np.int64)
    values = np.array([float(row["value"]) for row in rows])
    places = []
    for start, end in windows:
        inside = np.flatnonzero((times >= nanoseconds(start)) & (times <= nanoseconds(end)))
        places.append((int(inside[0]), int(inside[-1])))
    return Series(name, times, values, tuple(places))
