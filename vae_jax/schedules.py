"""Factors in [0, 1] that multiply the KL weight or the learning rate, over steps."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import optax

Schedule = Callable[[Any], Any]  # step -> factor

KL_SCHEDULES = ("constant", "linear", "cyclical")
LEARNING_RATE_SCHEDULES = ("constant", "cosine")


@lru_cache(maxsize=32)  # One object for equal numbers, so that programs are shared.
def kl_schedule(name: str, steps: int, cycles: int, ramp: float) -> Schedule:
    """Makes the schedule of the KL weight.

    `constant`: 1. `linear`: 0 to 1 over the first `steps` steps (Bowman et al. 2016; Sonderby et
    al. 2016, "Ladder Variational Autoencoders"). `cyclical`: `cycles` equal cycles within the
    first `steps` steps, each rising linearly from 0 to 1 during its first `ramp` share and then
    staying at 1 (Fu et al. 2019, "Cyclical Annealing Schedule"); 1 afterwards.

    Args:
        name: One of `KL_SCHEDULES`.
        steps: The length of the warm-up, or of all cycles together; `steps * cycles` below 2^31.
        cycles: The number of cycles.
        ramp: The share of a cycle that rises, in (0, 1].

    Returns:
        A function from the step to the factor.

    Raises:
        ValueError: `name` is unknown.

    >>> factor = kl_schedule("linear", steps=1000, cycles=1, ramp=0.5)
    >>> [float(factor(step)) for step in (0, 250, 5000)]
    [0.0, 0.25, 1.0]
    """
    if name == "constant":
        return lambda step: jnp.ones_like(step, dtype=jnp.float32)
    if name == "linear":
        return lambda step: jnp.minimum(step / steps, 1.0).astype(jnp.float32)
    if name == "cyclical":

        def cyclical(step: jax.Array) -> jax.Array:
            # Integers: a quotient that is rounded up would begin a cycle at its end.
            inside = jnp.mod(step * cycles, steps)  # 0 to steps - 1 within every cycle
            factor = jnp.minimum(inside / (ramp * steps), 1.0)
            return jnp.where(step < steps, factor, 1.0).astype(jnp.float32)

        return cyclical
    raise ValueError(f"KL schedule is {name!r}; valid are {', '.join(KL_SCHEDULES)}")


@lru_cache(maxsize=32)
def learning_rate_schedule(name: str, warmup_steps: int, total_steps: int) -> Schedule:
    """Makes the schedule of the learning rate: a linear warm-up, then constant or a cosine to 0.

    Args:
        name: One of `LEARNING_RATE_SCHEDULES`.
        warmup_steps: The steps of the warm-up from 0; 0 for none.
        total_steps: The step at which the cosine reaches 0.

    Returns:
        A function from the step to the factor.

    Raises:
        ValueError: `name` is unknown.
    """
    if name == "constant":
        after: Schedule = optax.constant_schedule(1.0)
    elif name == "cosine":
        after = optax.cosine_decay_schedule(1.0, max(1, total_steps - warmup_steps))
    else:
        raise ValueError(
            f"learning-rate schedule is {name!r}; valid are {', '.join(LEARNING_RATE_SCHEDULES)}"
        )
    if warmup_steps == 0:
        return after
    warmup = optax.linear_schedule(0.0, 1.0, warmup_steps)
    return optax.join_schedules([warmup, after], [warmup_steps])
