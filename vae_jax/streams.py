"""Named random streams: every draw of a run is a pure function of (seed, stream, step)."""

from __future__ import annotations

import jax

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
}


def step_key(run_key: jax.Array, step: jax.Array | int) -> jax.Array:
    """The key of a training step; its streams share no key with those of the whole run."""
    return jax.random.fold_in(stream_key(run_key, "step"), step)


def stream_key(key: jax.Array, stream: str) -> jax.Array:
    """The key of a named stream below `key`."""
    return jax.random.fold_in(key, STREAMS[stream])
