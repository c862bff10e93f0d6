"""Means over seeds with their uncertainty, and differences of paired measurements."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean over seeds and Student's 95 % confidence interval of it.

    Attributes:
        mean: Mean of the values.
        std: Standard deviation, with n - 1; NaN for a single value.
        low: Lower end of the interval; -inf for a single value.
        high: Upper end of the interval; inf for a single value.
        count: How many values there are.
    """

    mean: float
    std: float
    low: float
    high: float
    count: int

    @property
    def resolved(self) -> bool:
        """Whether the interval leaves out zero, so that the sign of the mean is known."""
        return self.low > 0 or self.high < 0


def interval_of(values: Sequence[float] | np.ndarray) -> Interval:
    """Returns the mean of independent values and the 95 % interval of Student's t.

    Args:
        values: At least one, finite.

    >>> found = interval_of([1.0, 2.0, 3.0])
    >>> found.mean, round(found.low, 2), round(found.high, 2)
    (2.0, -0.48, 4.48)
    """
    values = np.asarray(values, np.float64)
    count, mean = len(values), float(values.mean())
    if count < 2:
        return Interval(mean, math.nan, -math.inf, math.inf, count)
    std = float(values.std(ddof=1))
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1)) * std / math.sqrt(count)
    return Interval(mean, std, mean - reach, mean + reach, count)


def paired_difference(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Interval | None:
    """Returns the mean of `ours - theirs` over the seeds that both have, with its interval.

    Args:
        ours: Values by seed.
        theirs: Values by seed.

    Returns:
        None if they have no seed in common.
    """
    seeds = sorted(ours.keys() & theirs.keys())
    return interval_of([ours[seed] - theirs[seed] for seed in seeds]) if seeds else None
