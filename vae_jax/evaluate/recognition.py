"""What a trained classifier makes of images."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import numpy as np

from vae_jax.data.batches import to_unit_range
from vae_jax.models.blocks import layer_features, layer_names
from vae_jax.models.classifier import Classifier, class_logits
from vae_jax.run import Run, in_batches


def predict(run: Run[Classifier], images: np.ndarray) -> np.ndarray:
    """Probabilities of the labels of a classifier.

    Args:
        run: of `open_classifier`.
        images: `[N, H, W, C]`, uint8 or float in [0, 1].

    Returns:
        `[N, L]` float32, in the order of `run.label_names`: of exclusive classes (they add to 1),
        or of independent binary attributes.
    """
    exclusive = run.config.data.condition == "class"
    variables = {kind: trees["classifier"] for kind, trees in run.variables.items()}
    program = partial(_probabilities, run.model, exclusive, variables)
    (probabilities,) = in_batches(program, images)
    return probabilities


@partial(jax.jit, static_argnums=(0, 1))
def _probabilities(
    model: Classifier, exclusive: bool, variables: Any, images: jax.Array
) -> tuple[jax.Array]:
    logits = class_logits(model, variables, to_unit_range(images))
    return (jax.nn.softmax(logits) if exclusive else jax.nn.sigmoid(logits),)


def classifier_features(run: Run[Classifier], images: np.ndarray) -> np.ndarray:
    """Returns the last feature maps of a classifier, averaged over each map.

    Args:
        run: Of `open_classifier`.
        images: `[N, H, W, C]`, uint8 or float in [0, 1].

    Returns:
        `[N, F]`: a space in which samples of different models can be compared, since it depends
        on none of them.
    """
    variables = {kind: trees["classifier"] for kind, trees in run.variables.items()}
    stack, style = run.model.stack, run.model.style
    program = partial(_map_means, layer_features(stack, style, variables, layer_names(stack)[-1]))
    (features,) = in_batches(program, images)
    return features


@jax.jit
def _map_means(layer: Any, images: jax.Array) -> tuple[jax.Array]:
    return (layer(to_unit_range(images)).mean(axis=(1, 2)),)
