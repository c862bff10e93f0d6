"""KL-weight and learning-rate factors at the steps where their formulas are known."""

import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.schedules import kl_schedule, learning_rate_schedule


def values(schedule, steps):
    return [float(schedule(jnp.int32(step))) for step in steps]


def test_constant_and_linear():
    assert values(kl_schedule("constant", 10, 1, 1.0), [0, 5, 100]) == [1.0, 1.0, 1.0]
    linear = kl_schedule("linear", 10, 1, 1.0)
    np.testing.assert_allclose(values(linear, [0, 5, 10, 11]), [0.0, 0.5, 1.0, 1.0])


def test_cyclical_rises_during_the_ramp_of_each_cycle():
    cyclical = kl_schedule("cyclical", 40, 2, 0.5)  # cycles of 20 steps, 10 of them rising
    np.testing.assert_allclose(
        values(cyclical, [0, 5, 10, 19, 20, 25, 35, 40, 99]), [0, 0.5, 1, 1, 0, 0.5, 1, 1, 1]
    )


def test_learning_rate_warmup_and_cosine():
    schedule = learning_rate_schedule("cosine", 10, 110)
    np.testing.assert_allclose(
        values(schedule, [0, 5, 10, 60, 110]), [0, 0.5, 1, 0.5, 0], atol=1e-6
    )
    assert values(learning_rate_schedule("constant", 0, 10), [0, 99]) == [1.0, 1.0]


def test_unknown_names_list_the_valid_ones():
    with pytest.raises(ValueError, match="constant, linear, cyclical"):
        kl_schedule("sawtooth", 1, 1, 1.0)
    with pytest.raises(ValueError, match="constant, cosine"):
        learning_rate_schedule("step", 0, 1)
