"""Random variants of training images, drawn on the device, the same for input and target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from vae_jax.data.corruption import image_keys


@dataclass(frozen=True)
class Augmentation:
    """What is done to training images, in this order.

    Attributes:
        flip: mirror left and right, half of the images.
        shift: largest shift in pixels along each axis, uniform; edge pixels are repeated.
        brightness: b of a factor that is uniform in [1 - b, 1 + b]; clipped to [0, 1].
    """

    flip: bool = False
    shift: int = 0
    brightness: float = 0.0

    @property
    def is_off(self) -> bool:
        """Whether training images stay as they are."""
        return not (self.flip or self.shift or self.brightness)

    def __str__(self) -> str:
        parts = ["mirrored"] if self.flip else []
        if self.shift:
            parts.append(f"shifted by up to {self.shift} pixels")
        if self.brightness:
            parts.append(f"brightness changed by up to {self.brightness:.0%}")
        return ", ".join(parts) or "none"


NO_AUGMENTATION = Augmentation()


def make_augmentation(data: Mapping[str, Any]) -> Augmentation:
    """The augmentation of `config.data`; none in runs from before the fields existed."""
    return Augmentation(**data.get("augmentation", {}))


def augment(key: jax.Array, images: jax.Array, augmentation: Augmentation) -> jax.Array:
    """Vary images; without augmentation they pass through and nothing is computed.

    Args:
        key: of the step, stream `augmentation`; image i draws from `fold_in(key, i)`.
        images: `[B, H, W, C]` float in [0, 1].
        augmentation: what to do.

    Returns:
        `[B, H, W, C]` in [0, 1].
    """
    if augmentation.is_off:
        return images
    keys = image_keys(key, len(images))
    return jax.vmap(lambda k, image: _augment_one(k, image, augmentation))(keys, images)


def _augment_one(key: jax.Array, image: jax.Array, augmentation: Augmentation) -> jax.Array:
    """`[H, W, C]` to the same; every kind has its own number below `key`."""
    if augmentation.flip:
        mirrored = jax.random.bernoulli(jax.random.fold_in(key, 0), jnp.float32(0.5))
        image = jnp.where(mirrored, image[:, ::-1], image)
    if reach := augmentation.shift:
        padded = jnp.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
        top, left = jax.random.randint(
            jax.random.fold_in(key, 1), (2,), 0, 2 * reach + 1, jnp.int32
        )
        image = jax.lax.dynamic_slice(padded, (top, left, jnp.int32(0)), image.shape)
    if reach := augmentation.brightness:
        draw = jax.random.uniform(jax.random.fold_in(key, 2), (), image.dtype, -reach, reach)
        image = jnp.clip(image * (1.0 + draw), 0.0, 1.0)
    return image
