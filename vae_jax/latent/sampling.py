"""Seeded points of the prior, and images to codes and back in batches of one compiled shape."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.data.batches import to_unit_range
from vae_jax.models.vae import VAE, logits_of, posterior_of
from vae_jax.types import UserError

# Fixed, since a matrix product may round differently for another number of rows: image i is
# always computed in row i mod BATCH of the same program.
BATCH = 64


def prior_latents(seed: int, count: int, z_dim: int) -> np.ndarray:
    """Points of N(0, I); point i depends on (seed, i) alone.

    Args:
        seed: of the draw.
        count: N.
        z_dim: Z.

    Returns:
        `[N, Z]` float32.
    """
    key = jax.random.key(seed)
    draw = jax.vmap(lambda i: jax.random.normal(jax.random.fold_in(key, i), (z_dim,)))
    return np.asarray(draw(jnp.arange(count)))


def read_latents(path: str | Path, z_dim: int) -> np.ndarray:
    """Latent points that a user brings.

    Args:
        path: .npy with floats `[N, Z]`.
        z_dim: Z.

    Returns:
        `[N, Z]` float32.

    Raises:
        UserError: not such a file.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # of headers that Python 2 wrote
            # Compares the header with the size of the file before anything is allocated.
            z = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # NumPy raises many kinds for broken headers.
        raise UserError(f"{path} is not a readable .npy file ({error})") from None
    if z.ndim != 2 or z.shape[1] != z_dim or not np.issubdtype(z.dtype, np.floating):
        raise UserError(
            f"{path} holds {z.dtype} of shape {z.shape}, but this model decodes "
            f"floats of shape [N, {z_dim}]"
        )
    with np.errstate(over="ignore"):
        points = np.array(z, np.float32)
    if not np.isfinite(points).all():
        raise UserError(f"{path} holds points that are not finite")
    return points


def decode(
    model: VAE, variables: Any, z: np.ndarray, labels: np.ndarray | None = None
) -> np.ndarray:
    """Images of latent points; image i depends on z[i] and i mod BATCH alone.

    Args:
        model: the module.
        variables: with the decoder's parameters and statistics.
        z: `[N, Z]`.
        labels: `[N, L]` condition, or None.

    Returns:
        `[N, H, W, C]` float32 in [0, 1].
    """
    (images,) = in_batches(partial(_decode, model, variables), z, labels)
    return images


def encode(
    model: VAE, variables: Any, images: np.ndarray, labels: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Posterior mean and log-variance of images.

    Args:
        model: the module.
        variables: with the encoder's parameters and statistics.
        images: `[N, H, W, C]`, uint8 or float in [0, 1].
        labels: `[N, L]` condition, or None.

    Returns:
        mean and log_var, `[N, Z]` float32 each.
    """
    mean, log_var = in_batches(partial(_encode, model, variables), images, labels)
    return mean, log_var


def in_batches(
    function: Callable[..., tuple[jax.Array | np.ndarray, ...]], *arrays: np.ndarray | None
) -> tuple[np.ndarray, ...]:
    """Apply a function of `[BATCH, ...]` arrays to `[N, ...]` arrays, the last batch padded.

    Args:
        function: returns a tuple of `[BATCH, ...]` arrays.
        arrays: `[N, ...]` each, or None, which is handed on.

    Returns:
        A tuple of `[N, ...]` arrays.
    """
    count = next(len(array) for array in arrays if array is not None)
    pieces = []
    for start in range(0, max(count, 1), BATCH):
        batch = [None if a is None else _padded(a[start : start + BATCH]) for a in arrays]
        pieces.append([np.asarray(result) for result in function(*batch)])
    return tuple(np.concatenate(parts)[:count] for parts in zip(*pieces, strict=True))


def _padded(array: np.ndarray) -> np.ndarray:
    padding = [(0, BATCH - len(array))] + [(0, 0)] * (array.ndim - 1)
    return np.pad(array, padding)


@partial(jax.jit, static_argnums=0)
def _decode(model: VAE, variables: Any, z: jax.Array, labels: jax.Array | None) -> tuple[jax.Array]:
    return (jax.nn.sigmoid(logits_of(model, variables, z, labels)),)


@partial(jax.jit, static_argnums=0)
def _encode(
    model: VAE, variables: Any, images: jax.Array, labels: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    return posterior_of(model, variables, to_unit_range(images), labels)
