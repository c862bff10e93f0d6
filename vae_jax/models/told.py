"""What a model may be told with every image: the KL weight and the latent size to answer for.

A told model sees another pair of them with every image, and afterwards stands for every model of
the plane that the two span. Gates on its pre-activations say what a pair changes (Bae et al. 2023,
"Multi-Rate VAE: Train Once, Get the Full Rate-Distortion Curve"); a smaller latent size leaves out
the last dimensions (Rippel et al. 2014, "Learning Ordered Representations with Nested Dropout").
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vae_jax.losses import term_scales


class Pair(NamedTuple):
    """A point of the plane, or `[B]` points, one for each image.

    Attributes:
        kl_weight: w in the convention of the loss; None where the config's own is meant.
        z_dim: Z, the latent dimensions that are used: the first ones; None for the config's own.
    """

    kl_weight: Any = None
    z_dim: Any = None


CONFIGS_OWN = Pair()


@dataclass(frozen=True)
class Told:
    """What a model is told, and the range that it is trained for.

    Attributes:
        kl_weight: smallest and largest KL weight; empty if the model is not told it.
        z_dim: the latent sizes, in order; empty if the model is not told it.
        reduction: of the loss, which says how the KL weight is meant.
        image_shape: `(H, W, C)`.
    """

    kl_weight: tuple[float, ...]
    z_dim: tuple[int, ...]
    reduction: str
    image_shape: tuple[int, int, int]

    @property
    def width(self) -> int:
        """T, the numbers of a code."""
        return bool(self.kl_weight) + bool(self.z_dim)

    def draw(self, key: jax.Array, count: int, fixed: Pair) -> Pair:
        """Draws a pair for each image: log w uniform in its range, Z uniform among the sizes.

        Args:
            key: of the stream `told`; image i's pair depends on (key, i) alone.
            count: B.
            fixed: numbers for what is not drawn.

        Returns:
            `[B]` float32 each.
        """
        uniform = jax.random.uniform(key, (2, count), jnp.float32)
        kl_weight, z_dim = (jnp.full((count,), value, jnp.float32) for value in fixed)
        if self.kl_weight:
            low, high = (math.log(weight) for weight in self.kl_weight)
            kl_weight = jnp.exp(low + (high - low) * uniform[0])
        if self.z_dim:
            chosen = jnp.floor(uniform[1] * len(self.z_dim)).astype(jnp.int32)
            z_dim = jnp.asarray(self.z_dim, jnp.float32)[chosen]
        return Pair(kl_weight, z_dim)

    def z_mask(self, pair: Pair) -> jax.Array:
        """Returns `[B, Z]`, 0 for the latent dimensions that a pair `[B]` leaves out."""
        return (jnp.arange(self.z_dim[-1])[None, :] < pair.z_dim[:, None]).astype(jnp.float32)

    def code(self, pair: Pair) -> jax.Array:
        """Returns what the networks are given: log beta and log Z, each from -1 to 1 in its range.

        Args:
            pair: `[B]` each.

        Returns:
            `[B, T]` float32.
        """
        told = []
        if self.kl_weight:
            # A size that is not told is the same for all, and falls out.
            sizes, z_dim = (self.z_dim, pair.z_dim) if self.z_dim else ((1,), 1)
            ends = [self._log_beta(weight, size) for weight in self.kl_weight for size in sizes]
            told.append(_scaled(self._log_beta(pair.kl_weight, z_dim), min(ends), max(ends)))
        if self.z_dim:
            ends = [math.log(self.z_dim[0]), math.log(self.z_dim[-1])]
            told.append(_scaled(jnp.log(pair.z_dim), *ends))
        return jnp.stack(told, axis=-1)

    def _log_beta(self, kl_weight: Any, z_dim: Any) -> Any:
        recon_scale, kl_scale = term_scales(self.reduction, kl_weight, self.image_shape, z_dim)
        log = jnp.log if isinstance(kl_scale, jax.Array) else math.log
        return log(kl_scale / recon_scale)


def _scaled(value: jax.Array, low: float, high: float) -> jax.Array:
    return (2 * value - (low + high)) / (high - low)
