"""Makes inputs and targets of images: augments and binarises both, corrupts the inputs.

All of it happens on the device, within the step. Image i of a batch draws from its own key, so
neither the batch size nor the other images matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vae_jax.data.batches import to_unit_range
from vae_jax.streams import numbered_keys, stream_key

# none: grey levels; stochastic: anew in every step; fixed: once and for all, seeded per image.
BINARIZE = ("none", "stochastic", "fixed")
MASKS = ("none", "rectangle", "left", "right", "top", "bottom")
DROP_VALUES = ("black", "noise")
# ITU-R BT.601 luma of R, G and B, as Pillow's mode "L".
LUMA = (0.299, 0.587, 0.114)
# A batch index that no epoch reaches keeps these draws apart from the latent ones of validation.
ALL_BATCHES = 2**32 - 1


@dataclass(frozen=True)
class Augmentation:
    """How training images are varied, in this order.

    Attributes:
        flip: Whether to mirror half of the images left to right.
        shift: The largest shift in pixels along each axis, uniform; edge pixels are repeated.
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


@dataclass(frozen=True)
class Corruption:
    """How inputs are corrupted, in this order; targets stay clean.

    Attributes:
        grey: Luminance in place of colour; the image keeps its C channels, all equal.
        gaussian_sigma: The standard deviation of the noise added to every channel, in [0, 1] pixel
            units; the result is clipped to [0, 1].
        drop_fraction: The probability that a pixel, with all its channels, is lost.
        drop_value: What a lost pixel becomes: 'black', or 'noise', uniform in every channel.
        mask: The region that is erased to black: 'left' is the left half, and so on; 'rectangle'
            a square at a uniformly random place within the image.
        mask_size: The side of that square in pixels.
    """

    grey: bool = False
    gaussian_sigma: float = 0.0
    drop_fraction: float = 0.0
    drop_value: str = "black"
    mask: str = "none"
    mask_size: int = 0

    @property
    def is_off(self) -> bool:
        """Whether inputs equal their targets."""
        return not (self.grey or self.gaussian_sigma) and not self.erases

    @property
    def erases(self) -> bool:
        """Whether pixels lose all that they held."""
        return bool(self.drop_fraction) or self.mask != "none"

    def __str__(self) -> str:
        parts = []
        if self.grey:
            parts.append("grey")
        if self.gaussian_sigma:
            parts.append(f"Gaussian noise of sigma {self.gaussian_sigma:g}")
        if self.drop_fraction:
            parts.append(f"{self.drop_fraction:.0%} of the pixels lost to {self.drop_value}")
        if self.mask == "rectangle":
            parts.append(f"a square of {self.mask_size} pixels erased")
        elif self.mask != "none":
            parts.append(f"the {self.mask} half erased")
        return ", ".join(parts) or "as the targets"


class InputStage(NamedTuple):
    """What happens to images between the data set and the model; static in programs.

    Attributes:
        augmentation: How training images are varied, input and target alike.
        corruption: How inputs are corrupted, in training and evaluation.
        binarize: Whether to draw each pixel from the Bernoulli law of its grey level, for input and
            target alike, anew in every training step (Salakhutdinov & Murray 2008).
    """

    augmentation: Augmentation = Augmentation()
    corruption: Corruption = Corruption()
    binarize: bool = False


CLEAN = InputStage()


def make_input_stage(data: Mapping[str, Any]) -> InputStage:
    """Returns the stage of `config.data`."""
    return InputStage(
        Augmentation(**data["augmentation"]),
        Corruption(**data["corruption"]),
        data["binarize"] == "stochastic",
    )


def training_pair(
    stage: InputStage, key: jax.Array, images: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns inputs and targets of a training step.

    Args:
        stage: What happens to the images.
        key: The key of the step.
        images: `[B, H, W, C]`, uint8 or float in [0, 1].

    Returns:
        inputs and targets, `[B, H, W, C]` float in [0, 1] each; one array if nothing is corrupted.
    """
    targets = augment(stream_key(key, "augmentation"), to_unit_range(images), stage.augmentation)
    if stage.binarize:
        targets = binarized(stream_key(key, "binarization"), targets)
    return corrupt(stream_key(key, "corruption"), targets, stage.corruption), targets


def evaluation_pair(
    stage: InputStage, key: jax.Array, images: jax.Array, first: jax.Array | int
) -> tuple[jax.Array, jax.Array]:
    """Returns inputs and targets of evaluated images, never augmented.

    Args:
        stage: What happens to the images.
        key: The key of the evaluation, the stream `evaluation` of the run key.
        images: `[B, H, W, C]`, uint8 or float in [0, 1].
        first: The position of the first image in its split. The corruption of an image depends on
            its position and the key, so every evaluation of a run sees the same inputs.

    Returns:
        inputs and targets, `[B, H, W, C]` float in [0, 1] each; one array if nothing is corrupted.
    """
    targets = to_unit_range(images)
    if stage.binarize:
        targets = binarized(stream_key(evaluation_key(key), "binarization"), targets, first)
    return corrupt(evaluation_key(key), targets, stage.corruption, first), targets


def evaluation_key(key: jax.Array) -> jax.Array:
    """Returns the key that the corruption of evaluated images is drawn from."""
    return jax.random.fold_in(key, ALL_BATCHES)


def augment(key: jax.Array, images: jax.Array, augmentation: Augmentation) -> jax.Array:
    """Varies images; without augmentation they are returned as they are.

    Args:
        key: The stream `augmentation` of the step; image i draws from `fold_in(key, i)`.
        images: `[B, H, W, C]` float in [0, 1].
        augmentation: How to vary them.

    Returns:
        `[B, H, W, C]` in [0, 1].
    """
    if augmentation.is_off:
        return images
    keys = numbered_keys(key, jnp.arange(len(images)))
    return jax.vmap(lambda k, image: _augment_one(k, image, augmentation))(keys, images)


def _augment_one(key: jax.Array, image: jax.Array, augmentation: Augmentation) -> jax.Array:
    """Varies one image `[H, W, C]`; every kind has its own number below `key`."""
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


def binarized(key: jax.Array, images: jax.Array, first: jax.Array | int = 0) -> jax.Array:
    """Makes images black and white: each pixel is 1 with the probability of its grey level.

    Args:
        key: The stream `binarization` of the step or the evaluation.
        images: `[B, H, W, C]` float in [0, 1].
        first: Image i draws from `fold_in(key, first + i)`.

    Returns:
        `[B, H, W, C]`, 0 and 1.
    """
    keys = numbered_keys(key, first + jnp.arange(len(images)))
    return jax.vmap(jax.random.bernoulli)(keys, images).astype(images.dtype)


def corrupt(
    key: jax.Array, images: jax.Array, corruption: Corruption, first: jax.Array | int = 0
) -> jax.Array:
    """Corrupts images; without corruption they are returned as they are.

    Args:
        key: The stream `corruption` of the step, or `evaluation_key`.
        images: `[B, H, W, C]` float in [0, 1].
        corruption: How to corrupt them.
        first: Image i draws from `fold_in(key, first + i)`.

    Returns:
        `[B, H, W, C]` in [0, 1].
    """
    if corruption.is_off:
        return images
    keys = numbered_keys(key, first + jnp.arange(len(images)))
    return jax.vmap(lambda k, image: _corrupt_one(k, image, corruption))(keys, images)


def erased_pixels(
    key: jax.Array, images: jax.Array, corruption: Corruption, first: jax.Array | int = 0
) -> jax.Array:
    """Returns the pixels that `corrupt` erases, given the same arguments: `[B, H, W, 1]` bool."""
    keys, shape = numbered_keys(key, first + jnp.arange(len(images))), images.shape[1:]

    def erased(k: jax.Array) -> jax.Array:
        return _lost(k, shape, corruption) | _masked(k, shape, corruption)

    return jax.vmap(erased)(keys)


def _corrupt_one(key: jax.Array, image: jax.Array, corruption: Corruption) -> jax.Array:
    """Corrupts one image `[H, W, C]`; every kind has its own number below `key`."""
    if corruption.grey:
        image = jnp.broadcast_to(luminance(image), image.shape)
    if corruption.gaussian_sigma:
        noise = jax.random.normal(jax.random.fold_in(key, 0), image.shape, image.dtype)
        image = jnp.clip(image + corruption.gaussian_sigma * noise, 0.0, 1.0)
    if corruption.drop_fraction:
        value = jnp.zeros_like(image)
        if corruption.drop_value == "noise":
            value = jax.random.uniform(jax.random.fold_in(key, 3), image.shape, image.dtype)
        image = jnp.where(_lost(key, image.shape, corruption), value, image)
    if corruption.mask != "none":
        image = jnp.where(_masked(key, image.shape, corruption), 0.0, image)
    return image


def luminance(images: jax.Array) -> jax.Array:
    """Returns the luminance `[..., H, W, 1]` of `[..., H, W, 3]`, by `LUMA`."""
    weights = jnp.asarray(LUMA, images.dtype)
    return jnp.einsum("...c,c->...", images, weights, precision="highest")[..., None]


def _lost(key: jax.Array, shape: tuple[int, ...], corruption: Corruption) -> jax.Array:
    """Draws which pixels are lost: `[H, W, 1]` bool."""
    key = jax.random.fold_in(key, 1)
    return jax.random.bernoulli(key, jnp.float32(corruption.drop_fraction), (*shape[:2], 1))


def _masked(key: jax.Array, shape: tuple[int, ...], corruption: Corruption) -> jax.Array:
    """Returns the masked region, `[H, W, 1]` bool; half of an odd side is the smaller part."""
    height, width = shape[:2]
    rows, columns = jnp.arange(height)[:, None, None], jnp.arange(width)[None, :, None]
    bottom, right = height, width
    top = left = 0
    if corruption.mask == "rectangle":
        side = corruption.mask_size
        room = jnp.array([height - side + 1, width - side + 1])
        top, left = jax.random.randint(jax.random.fold_in(key, 2), (2,), 0, room, jnp.int32)
        bottom, right = top + side, left + side
    elif corruption.mask == "none":
        bottom = 0
    elif corruption.mask in ("top", "bottom"):
        half = height // 2
        top, bottom = (0, half) if corruption.mask == "top" else (height - half, height)
    else:
        half = width // 2
        left, right = (0, half) if corruption.mask == "left" else (width - half, width)
    in_rows, in_columns = (rows >= top) & (rows < bottom), (columns >= left) & (columns < right)
    return jnp.broadcast_to(in_rows, (height, width, 1)) & in_columns
