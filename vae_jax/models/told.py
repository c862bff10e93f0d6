"""Tells a model, with every image, the KL weight and the latent size that it is to answer for.

A told model is trained with another pair of them for every image, and afterwards stands for every
model of the plane that the two span. Gates on its pre-activations say what a pair changes (Bae et
al. 2023, "Multi-Rate VAE: Train Once, Get the Full Rate-Distortion Curve"); a smaller latent size
leaves out the last dimensions (Rippel et al. 2014, "Learning Ordered Representations with Nested
Dropout").
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.losses import term_scales

# 1 / x for the real root of x^3 = x + 1, which makes the most even lattice in two dimensions.
LATTICE = 0.7548776662466927


class Pair(NamedTuple):
    """A point of the plane, or `[B]` points, one for each image.

    Attributes:
        kl_weight: w in the convention of the loss; None for that of the config.
        z_dim: Z, how many of the latent dimensions are used, from the first; None for that of the
            config.
    """

    kl_weight: Any = None
    z_dim: Any = None


CONFIGS_OWN = Pair()


@dataclass(frozen=True)
class Told:
    """What a model is told, and the range that it is trained for.

    Attributes:
        kl_weight: The smallest and the largest KL weight; empty if the model is not told it.
        z_dim: The latent sizes, in order; empty if the model is not told it.
        reduction: The reduction of the loss, which says how the KL weight is meant.
        image_shape: `(H, W, C)`.
    """

    kl_weight: tuple[float, ...]
    z_dim: tuple[int, ...]
    reduction: str
    image_shape: tuple[int, int, int]

    @property
    def width(self) -> int:
        """Returns T, the number of entries of a code."""
        of_size = 1 + len(self.z_dim) if self.z_dim else 0
        return of_size if not self.kl_weight else 2 + 2 * of_size

    def draw(self, key: jax.Array, count: int, fixed: Pair) -> Pair:
        """Draws a pair for each image: log w uniform in its range, Z uniform among the sizes.

        The pairs of a batch are a lattice with a random origin (Roberts 2018, "R2"; Cranley &
        Patterson 1976): each is distributed as said, and together they fill the plane evenly, so
        that the gradient says more.

        Args:
            key: The stream `told` of the step; the pair of image i depends on (key, i) alone.
            count: B.
            fixed: The numbers of what is not drawn.

        Returns:
            A pair of `[B]` float32.
        """
        origin = jax.random.uniform(key, (2, 1), jnp.float32)
        step = jnp.asarray([[LATTICE], [LATTICE**2]], jnp.float32)
        uniform = jnp.mod(origin + step * jnp.arange(count, dtype=jnp.float32)[None, :], 1.0)
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
        """Returns the code of a pair, which the gates of the networks see.

        With b = log beta and s = log Z, each scaled to [-1, 1] in its range, a code consists of b
        and its square; of s, and for each size of a hat function of log Z, which is 1 there, 0 at
        its neighbours and linear in between; and of the products of b with s and with every hat.

        Args:
            pair: A pair of `[B]`.

        Returns:
            `[B, T]` float32.
        """
        numbers = []
        if self.kl_weight:
            # A size that is not told is the same for all, and falls out.
            sizes, z_dim = (self.z_dim, pair.z_dim) if self.z_dim else ((1,), 1)
            ends = [self._log_beta(weight, size) for weight in self.kl_weight for size in sizes]
            b = _scaled(self._log_beta(pair.kl_weight, z_dim), min(ends), max(ends))
            numbers = [b, jnp.square(b)]
        if self.z_dim:
            knots = np.log(np.asarray(self.z_dim, np.float32))
            log_size = jnp.log(pair.z_dim)
            s = _scaled(log_size, float(knots[0]), float(knots[-1]))
            hats = [jnp.interp(log_size, knots, hat) for hat in np.eye(len(knots))]
            of_size = [s, *hats]
            numbers += of_size + [numbers[0] * values for values in of_size if self.kl_weight]
        return jnp.stack(numbers, axis=-1).astype(jnp.float32)

    def _log_beta(self, kl_weight: Any, z_dim: Any) -> Any:
        recon_scale, kl_scale = term_scales(self.reduction, kl_weight, self.image_shape, z_dim)
        log = jnp.log if isinstance(kl_scale, jax.Array) else math.log
        return log(kl_scale / recon_scale)


def _scaled(value: jax.Array, low: float, high: float) -> jax.Array:
    return (2 * value - (low + high)) / (high - low)
