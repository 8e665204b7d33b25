"""A line of a terminal that shows when things happened. Pure."""

import numpy as np
import numpy.typing as npt

_WIDTH = 60
_LEVELS = " ▁▂▃▄▅▆▇█"


def sparkline(times: npt.NDArray[np.float64], *, until: float) -> str:
    """How much happened in each of _WIDTH equal parts of [0, until], the highest bar where it was most."""
    counts, _ = np.histogram(times, bins=_WIDTH, range=(0.0, max(until, 1e-9)))
    levels = np.ceil(counts / max(counts.max(), 1) * (len(_LEVELS) - 1)).astype(int)
    return "".join(_LEVELS[level] for level in levels)
