"""The controller of the rate against a sequence by hand, and on a rate in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.kl_controller import (
    LARGEST_FACTOR,
    ControlState,
    next_control,
    start_control,
    weight_factor,
)


def test_a_sequence_by_hand():
    """Target 20: the rates 0, 50, 25, 20 are errors -1, 1 (clipped), 0.25, 0 in turn."""
    state, factors, sums = start_control(), [], []
    for kl in (0.0, 50.0, 25.0, 20.0):
        factors.append(float(weight_factor(state)))
        state = next_control(state, jnp.asarray(kl), 20.0)
        sums.append(float(state.log_factor))
    np.testing.assert_allclose(sums, [-0.1, 0.0, 0.025, 0.025], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(factors, np.exp([0.0, -2.1, 2.0, 0.525]), rtol=1e-6)
    assert float(weight_factor(state)) == pytest.approx(np.exp(0.025))


def test_the_factor_is_bounded():
    top = ControlState(jnp.log(LARGEST_FACTOR), jnp.ones(()))
    assert next_control(top, jnp.asarray(1e9), 1.0).log_factor == pytest.approx(np.log(1e4))
    bottom = ControlState(-jnp.log(LARGEST_FACTOR), -jnp.ones(()))
    assert next_control(bottom, jnp.asarray(0.0), 1.0).log_factor == pytest.approx(-np.log(1e4))


@pytest.mark.parametrize("first_guess", [0.05, 1.0, 20.0])
def test_it_finds_the_weight_of_a_rate_that_lags(first_guess):
    """The rate of a linear VAE, followed with a lag of 100 steps: within 0.1 % after 3,000."""
    eigenvalues = jnp.array([8.0, 4.0, 2.0, 1.0])
    target = 3.0

    def step(carry, _):
        state, kl = carry
        level = first_guess * weight_factor(state) / 2
        goal = 0.5 * jnp.sum(jnp.log(jnp.maximum(eigenvalues / level, 1.0)))
        kl = kl + (goal - kl) / 100
        return (next_control(state, kl, target), kl), kl

    start = (start_control(), jnp.zeros(()))
    (state, _), rates = jax.jit(lambda c: jax.lax.scan(step, c, length=3000))(start)
    np.testing.assert_allclose(rates[-500:], target, rtol=1e-3)
    # 1/2 sum log(lambda / t) = 3 with all four alive: t = (64 exp(-6))^(1/4)
    expected = 2 * (64 * np.exp(-6.0)) ** 0.25
    assert first_guess * float(weight_factor(state)) == pytest.approx(expected, rel=1e-3)
