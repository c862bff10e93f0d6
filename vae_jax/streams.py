"""Named random streams: every draw of a run is a pure function of (seed, stream, step)."""

from __future__ import annotations

import jax

from vae_jax.types import UserError

# The generator behind every draw: counter-based, so that number i of an array depends on the key
# and on i alone. JAX_DEFAULT_PRNG_IMPL and JAX_THREEFRY_PARTITIONABLE would choose another one.
GENERATOR = "threefry2x32"
jax.config.update("jax_threefry_partitionable", True)

MAX_SEED = 2**32 - 1

# The numbers are part of every saved run: never change or reuse one.
STREAMS = {
    "init": 0,
    "latent": 1,
    "dropout": 2,
    "corruption": 3,
    "augmentation": 4,
    "evaluation": 5,
    "order": 6,
    "binarization": 7,
    "step": 8,
    "micro_batch": 9,
    "told": 10,
}


def make_key(seed: int) -> jax.Array:
    """Returns the key of a seed: the only place where keys are made.

    Draws from it name their type (float32 or int32), so that they are the same under every setting
    of JAX, `JAX_ENABLE_X64` included.

    Args:
        seed: A whole number from 0 to `MAX_SEED`.

    Raises:
        UserError: The seed lies outside this range; JAX would take its last 32 bits.
    """
    if not 0 <= seed <= MAX_SEED:
        raise UserError(f"seed {seed} is not a whole number from 0 to {MAX_SEED}")
    return jax.random.key(seed, impl=GENERATOR)


def step_key(run_key: jax.Array, step: jax.Array | int) -> jax.Array:
    """Returns the key of a training step; its streams share no key with those of the whole run."""
    return jax.random.fold_in(stream_key(run_key, "step"), step)


def numbered_keys(key: jax.Array, numbers: jax.Array) -> jax.Array:
    """Returns `[N]` keys: that of number i is `fold_in(key, i)`, whatever the other numbers are."""
    return jax.vmap(lambda number: jax.random.fold_in(key, number))(numbers)


def stream_key(key: jax.Array, stream: str) -> jax.Array:
    """Returns the key of a named stream below `key`."""
    return jax.random.fold_in(key, STREAMS[stream])
