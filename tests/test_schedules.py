"""KL-weight and learning-rate factors at the steps where their formulas are known."""

import jax
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


def test_a_cycle_begins_at_zero_compiled_and_eager_alike():
    """4,690 steps in 2 cycles: 2345 * 2 / 4690 in float32 is 1 or just below, as it is rounded."""
    for steps, cycles in ((4690, 2), (1000, 3), (997, 7)):
        factor = kl_schedule("cyclical", steps, cycles, 0.5)
        at = np.arange(steps)
        expected = np.minimum((at * cycles % steps) / (0.5 * steps), 1.0)
        for schedule in (factor, jax.jit(factor)):
            np.testing.assert_allclose(schedule(jnp.asarray(at, jnp.int32)), expected, rtol=1e-6)
    eager = [float(kl_schedule("cyclical", 4690, 2, 0.5)(jnp.int32(s))) for s in (2344, 2345)]
    assert eager == [1.0, 0.0]


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
