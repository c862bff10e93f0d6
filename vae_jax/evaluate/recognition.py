"""What an independently trained classifier sees in images, against what was asked for."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import numpy as np

from vae_jax.data.batches import to_unit_range
from vae_jax.latent.sampling import in_batches
from vae_jax.models.classifier import Classifier


def classify(model: Classifier, variables: Any, images: np.ndarray) -> np.ndarray:
    """Logits of a classifier.

    Args:
        model: the module.
        variables: of its run, with the subtree `classifier`.
        images: `[N, H, W, C]`, uint8 or float in [0, 1].

    Returns:
        `[N, L]` float32.
    """
    params = {"params": variables["params"]["classifier"]}
    (logits,) = in_batches(partial(_classify, model, params), images)
    return logits


@partial(jax.jit, static_argnums=0)
def _classify(model: Classifier, params: Any, images: jax.Array) -> tuple[jax.Array]:
    return (model.apply(params, to_unit_range(images), train=False),)


def confusion_matrix(asked: np.ndarray, recognised: np.ndarray, count: int) -> np.ndarray:
    """How often each class was recognised where another was asked for.

    Args:
        asked: `[N]` class ids.
        recognised: `[N]` class ids.
        count: L classes.

    Returns:
        `[L, L]` int64; row: asked, column: recognised.
    """
    matrix = np.zeros((count, count), np.int64)
    np.add.at(matrix, (asked, recognised), 1)
    return matrix
