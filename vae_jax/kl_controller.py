"""A target for the rate in place of a KL weight: a controller moves the weight while it trains.

The rate K answers to the logarithm of the weight w, whatever the units of w are, so this is a
proportional-integral controller of log w. With the relative error of the rate of step t,

    e_t = clip((K_t - target) / target, -1, 1)
    s_{t+1} = s_t + INTEGRAL e_t,    w_{t+1} = kl_weight exp(s_{t+1} + PROPORTIONAL e_t),

which raises the weight while the rate is too high. In equilibrium e = 0, and exp(s) is the factor
that the configured `kl_weight`, which serves as the first guess, was off by.

References:
    Shao et al. 2020, "ControlVAE: Controllable Variational Autoencoder", for the controller, with
    other gains, since theirs moves w itself.
    Rezende, Viola 2018, "Taming VAEs", for updating the logarithm of a weight.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

# For a rate that follows the weight within some hundred steps, which is what VAEs need: enough to
# keep up while the rate still grows at a fixed weight, too little to swing.
PROPORTIONAL = 2.0
INTEGRAL = 0.1
# The weight stays within this factor of the configured one, up and down.
LARGEST_FACTOR = 1e4


class ControlState(NamedTuple):
    """What the controller remembers; part of the state of a run.

    Attributes:
        log_factor: Scalar, the sum s.
        error: Scalar, the last relative error e, in [-1, 1].
    """

    log_factor: jax.Array
    error: jax.Array


def start_control() -> ControlState:
    """Returns the state at step 0, which keeps the configured weight."""
    return ControlState(jnp.zeros(()), jnp.zeros(()))


def weight_factor(state: ControlState) -> jax.Array:
    """Returns the factor of the configured KL weight in the coming step."""
    return jnp.exp(state.log_factor + PROPORTIONAL * state.error)


def next_control(state: ControlState, kl: jax.Array, target: jax.Array | float) -> ControlState:
    """Returns the state after a step.

    Args:
        state: Before the step.
        kl: Scalar, K of the step's batch in nats per image.
        target: The rate to hold, in nats per image, positive.
    """
    error = jnp.clip((kl - target) / target, -1.0, 1.0)
    bound = jnp.log(LARGEST_FACTOR)
    return ControlState(jnp.clip(state.log_factor + INTEGRAL * error, -bound, bound), error)
