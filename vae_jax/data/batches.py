"""The order of the images, and the batches that follow from it.

The batch at step n is a pure function of (seed, n): no iterator has a state that would have to be
saved, and resuming needs the step alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.streams import make_key, stream_key
from vae_jax.types import ImageSet


def to_unit_range(images: jax.Array) -> jax.Array:
    """Returns uint8 images `[B, H, W, C]` as float32 in [0, 1], and floats as they are."""
    if images.dtype != jnp.uint8:
        return images
    return images.astype(jnp.float32) / 255.0


def epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """Returns the permutation `[count]` int32 in which epoch `epoch` visits the images."""
    key = stream_key(make_key(seed), "order")
    return np.asarray(jax.random.permutation(jax.random.fold_in(key, epoch), count), np.int32)


def batch_rows(order: np.ndarray, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Cuts an order `[N]` into batches; the last one is padded with its first image.

    Args:
        order: `[N]` positions within a split.
        batch_size: B.

    Returns:
        rows `[S, B]` int32 and weights `[S, B]` float32, 0 for padding; S = ceil(N / B).
    """
    steps = -(-len(order) // batch_size)
    rows = np.zeros((steps, batch_size), np.int32)
    weights = np.zeros((steps, batch_size), np.float32)
    rows.reshape(-1)[: len(order)] = order
    weights.reshape(-1)[: len(order)] = 1.0
    rows[weights == 0.0] = rows[-1, 0]
    return rows, weights


@dataclass(frozen=True)
class Batches:
    """A split in batches, wherever its images lie.

    Attributes:
        split: The images.
        labels: `[N, L]` float32 condition, or None.
        size: B.
        seed: The seed of the order; None keeps the order of the split.
    """

    split: ImageSet
    labels: np.ndarray | None
    size: int
    seed: int | None

    @property
    def per_epoch(self) -> int:
        """Returns the number of batches S of an epoch; the last one may be padded."""
        return -(-len(self.split) // self.size)

    def plan(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns rows and weights `[S, B]` of all batches of an epoch; see `batch_rows`."""
        if self.seed is None:
            order = np.arange(len(self.split), dtype=np.int32)
        else:
            order = epoch_order(self.seed, epoch, len(self.split))
        return batch_rows(order, self.size)
