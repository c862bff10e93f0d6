"""Intervals over seeds against tables, and against simulated repetitions."""

import math

import numpy as np
import pytest

from vae_jax.metrics.intervals import interval_of, paired_difference


def test_interval_is_that_of_the_t_table():
    interval = interval_of([1.0, 2.0, 3.0, 4.0, 5.0])
    # The table's t for 4 degrees of freedom at 95 % is 2.776.
    reach = 2.776 * math.sqrt(2.5 / 5)
    assert interval.mean == 3 and interval.std == pytest.approx(math.sqrt(2.5))
    assert (interval.low, interval.high) == pytest.approx((3 - reach, 3 + reach), abs=1e-3)
    assert interval.resolved and not interval_of([-1.0, 1.0, 2.0]).resolved


def test_one_value_says_nothing_about_its_uncertainty():
    interval = interval_of([7.0])
    assert (interval.mean, interval.low, interval.high) == (7, -math.inf, math.inf)
    assert math.isnan(interval.std) and not interval.resolved


def test_intervals_hold_the_truth_in_95_of_100_repetitions():
    draws = np.random.default_rng(0).normal(3.0, 2.0, size=(4000, 5))
    held = [(i := interval_of(values)).low <= 3.0 <= i.high for values in draws]
    assert np.mean(held) == pytest.approx(0.95, abs=0.012)


def test_pairs_cancel_what_seeds_share():
    ours, theirs = {0: 10.1, 1: 20.2, 2: 30.15, 9: 0.0}, {0: 10.0, 1: 20.0, 2: 30.0, 8: 5.0}
    gap = paired_difference(ours, theirs)
    assert gap.count == 3 and gap.mean == pytest.approx(0.15) and gap.resolved
    assert paired_difference({0: 1.0}, {1: 1.0}) is None
