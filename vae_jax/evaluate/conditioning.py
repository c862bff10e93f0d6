"""How often a decoded image shows the class or the attributes that it was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vae_jax.evaluate.recognition import predict
from vae_jax.latent.conditions import class_grid, with_attribute
from vae_jax.models.classifier import Classifier
from vae_jax.models.vae import VAE
from vae_jax.run import Run, decode
from vae_jax.types import UserError


class AttributeRates(NamedTuple):
    """Shares of images in which a classifier sees an attribute.

    Attributes:
        asked: of decoded images, the attribute asked for.
        refused: of the same z and other attributes, this one not asked for.
        real_with: of test images that have it: what the classifier finds at best.
        real_without: of test images that do not.
    """

    asked: float
    refused: float
    real_with: float
    real_without: float


def class_confusion(run: Run[VAE], judge: Run[Classifier], z: np.ndarray) -> np.ndarray:
    """Decode every point as every class.

    Args:
        run: conditional model.
        judge: classifier of the same classes.
        z: `[K, Z]`.

    Returns:
        `[L, L]` counts; row: asked, column: recognised; rows sum to K.

    Raises:
        UserError: the classifier was trained on other classes.
    """
    if judge.label_names != run.label_names:
        raise UserError(
            f"the classifier knows {', '.join(judge.label_names)}, but the model was told "
            f"{', '.join(run.label_names)}: train one on the same classes"
        )
    points, labels = class_grid(z, len(run.label_names))
    images = decode(run.model, run.variables, points, labels)
    recognised = predict(judge, images).argmax(1)
    return confusion_matrix(labels.argmax(1), recognised, len(run.label_names))


def attribute_rates(
    run: Run[VAE],
    judge: Run[Classifier],
    z: np.ndarray,
    base: np.ndarray,
    real: tuple[np.ndarray, np.ndarray],
) -> dict[str, AttributeRates]:
    """Decode points with each attribute set and unset, all other attributes as in `base`.

    Args:
        run: conditional model.
        judge: classifier of attributes.
        z: `[N, Z]`.
        base: `[N, A]` conditions.
        real: test images `[M, H, W, C]` and their conditions `[M, A]`.

    Returns:
        By attribute that both know.

    Raises:
        UserError: there is none.
    """
    common = [name for name in run.label_names if name in judge.label_names]
    if not common:
        raise UserError(
            f"the classifier knows {', '.join(judge.label_names)}, of which the model was told "
            f"none ({', '.join(run.label_names)}): train one on the same attributes"
        )
    real_images, real_labels = real
    real_found = _found(judge, real_images)
    rates = {}
    for name in common:
        column, wanted = judge.label_names.index(name), run.label_names.index(name)
        shares = []
        for value in (1.0, 0.0):
            labels = with_attribute(base, wanted, value)
            images = decode(run.model, run.variables, z, labels)
            shares.append(float(_found(judge, images)[:, column].mean()))
        for value in (1.0, 0.0):
            group = real_found[real_labels[:, wanted] == value, column]
            shares.append(float(group.mean()) if len(group) else float("nan"))
        rates[name] = AttributeRates(*shares)
    return rates


def _found(judge: Run[Classifier], images: np.ndarray) -> np.ndarray:
    """`[N, L]` bool: attributes that are more likely than not."""
    return predict(judge, images) > 0.5


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


def confusion_table(matrix: np.ndarray, names: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """The matrix as text, in percent of what was asked; the last column is the share of hits."""
    shares = matrix / matrix.sum(1, keepdims=True)
    rows = [
        [name, *(f"{share:.1%}" if share else "" for share in row), f"{row[i]:.1%}"]
        for i, (name, row) in enumerate(zip(names, shares, strict=True))
    ]
    return ["asked \\ recognised", *names, "right"], rows
