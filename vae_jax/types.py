"""Plain containers that every other module shares. Imports nothing of this package."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:  # Worker processes that only decode images stay free of JAX.
    import jax


class UserError(ValueError):
    """Something a user can put right: what is wrong, where, and what to do, in one sentence."""


class Batch(NamedTuple):
    """One batch on the device.

    Attributes:
        images: `[B, H, W, C]`, uint8 or float in [0, 1].
        weights: `[B]` float, 1 for an image and 0 for padding of the last, smaller batch.
        labels: `[B]` int class ids, `[B, A]` binary attributes, or None.
    """

    images: jax.Array
    weights: jax.Array
    labels: jax.Array | None = None


class VAEOutput(NamedTuple):
    """What a forward pass returns.

    Attributes:
        logits: `[B, H, W, C]`, decoder output before any link function.
        mean: `[B, Z]`, posterior mean.
        log_var: `[B, Z]`, logarithm of the posterior variance.
        z: `[B, Z]`, the point that was decoded.
    """

    logits: jax.Array
    mean: jax.Array
    log_var: jax.Array
    z: jax.Array


@dataclass(frozen=True)
class ImageSet:
    """A split of a data set, or a part of one.

    Attributes:
        images: `[M, H, W, C]` uint8, an array or a read-only memory map of the whole store.
        rows: `[N]` int64, the rows of `images` that belong to this split, in order.
        labels: `[N]` int32 class ids, `[N, A]` uint8 binary attributes, or None.
        label_names: Names of the classes or of the attributes.
        file_names: `[N]` source file names, or empty.
    """

    images: np.ndarray
    rows: np.ndarray
    labels: np.ndarray | None = None
    label_names: tuple[str, ...] = ()
    file_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(H, W, C)`."""
        height, width, channels = self.images.shape[1:]
        return height, width, channels

    def take(self, indices: np.ndarray) -> np.ndarray:
        """Returns images `[B, H, W, C]` uint8 at positions `indices` `[B]` of this split."""
        return self.images[self.rows[indices]]
