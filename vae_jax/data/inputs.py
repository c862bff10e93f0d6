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
    make_corruption,
)
from vae_jax.streams import stream_key


class InputStage(NamedTuple):
    """What happens to images between the data set and the model; static.

    Attributes:
        augmentation: of training images, input and target alike.
        corruption: of inputs, in training and evaluation.
    """

    augmentation: Augmentation = NO_AUGMENTATION
    corruption: Corruption = NO_CORRUPTION


CLEAN = InputStage()


def make_input_stage(data: Mapping[str, Any]) -> InputStage:
    """The stage of `config.data`."""
    return InputStage(make_augmentation(data), make_corruption(data))


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
    return corrupt(evaluation_key(key), targets, stage.corruption, first), targets
