"""What the model sees and what it is compared with: augmentation of both, corruption of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from vae_jax.data.augmentation import (
    NO_AUGMENTATION,
    Augmentation,
    augment,
    make_augmentation,
)
from vae_jax.data.batches import to_unit_range
from vae_jax.data.corruption import (
    NO_CORRUPTION,
    Corruption,
    corrupt,
    evaluation_key,
    image_keys,
    make_corruption,
)
from vae_jax.streams import stream_key

# none: grey levels; stochastic: anew in every step; fixed: once and for all, seeded per image.
BINARIZE = ("none", "stochastic", "fixed")


class InputStage(NamedTuple):
    """What happens to images between the data set and the model; static.

    Attributes:
        augmentation: of training images, input and target alike.
        corruption: of inputs, in training and evaluation.
        binarize: draw each pixel from the Bernoulli law of its grey level, for input and target
            alike, anew in every training step (Salakhutdinov & Murray 2008).
    """

    augmentation: Augmentation = NO_AUGMENTATION
    corruption: Corruption = NO_CORRUPTION
    binarize: bool = False


CLEAN = InputStage()


def make_input_stage(data: Mapping[str, Any]) -> InputStage:
    """The stage of `config.data`."""
    # Runs from before the field existed were not binarised.
    stochastic = data.get("binarize", "none") == "stochastic"
    return InputStage(make_augmentation(data), make_corruption(data), stochastic)


def binarized(key: jax.Array, images: jax.Array, first: jax.Array | int = 0) -> jax.Array:
    """Black and white images: each pixel is 1 with the probability of its grey level.

    Args:
        key: of the step's or the evaluation's stream `binarization`.
        images: `[B, H, W, C]` float in [0, 1].
        first: image i draws from `fold_in(key, first + i)`.

    Returns:
        `[B, H, W, C]`, 0 and 1.
    """
    keys = image_keys(key, len(images), first)
    return jax.vmap(jax.random.bernoulli)(keys, images).astype(images.dtype)


def training_pair(
    stage: InputStage, key: jax.Array, images: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Inputs and targets of a training step.

    Args:
        stage: what is done.
        key: of the step.
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
    """Inputs and targets of evaluated images, never augmented.

    Args:
        stage: what is done.
        key: of the evaluation: the run key's stream `evaluation`.
        images: `[B, H, W, C]`, uint8 or float in [0, 1].
        first: position of the first image in its split. The corruption of an image depends on
            its position and the key, so every evaluation of a run sees the same inputs.

    Returns:
        inputs and targets, `[B, H, W, C]` float in [0, 1] each; one array if nothing is corrupted.
    """
    targets = to_unit_range(images)
    if stage.binarize:
        targets = binarized(stream_key(evaluation_key(key), "binarization"), targets, first)
    return corrupt(evaluation_key(key), targets, stage.corruption, first), targets
