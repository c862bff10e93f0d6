"""States of models with different z_dim in arrays of one shape, and back."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np


def pad_latent(tree: Any, shapes: Any, z_dim: int) -> Any:
    """Insert zeros for the latent dimensions that a model lacks.

    They follow the dimensions it has: columns of the kernels and biases of mean and log_var, rows
    of the decoder's first kernel (before the rows of a condition). A member padded so and masked
    by `z_mask` computes what it computes alone, and no gradient reaches the zeros.

    Args:
        tree: arrays of a model with `z_dim` latent dimensions, such as a `TrainState`.
        shapes: the same tree for the larger model.
        z_dim: Z of the smaller model.

    Returns:
        The tree with the shapes of `shapes`; leaves of equal shape are handed on.
    """

    def pad(leaf: Any, wanted: Any) -> Any:
        if leaf.shape == wanted.shape:
            return leaf
        (axis,) = _different(leaf, wanted)
        missing = wanted.shape[axis] - leaf.shape[axis]
        zeros = np.zeros((*leaf.shape[:axis], missing, *leaf.shape[axis + 1 :]), leaf.dtype)
        head, tail = np.split(np.asarray(leaf), [z_dim], axis)
        return np.concatenate([head, zeros, tail], axis)

    return jax.tree.map(pad, tree, shapes)


def unpad_latent(tree: Any, shapes: Any, z_dim: int) -> Any:
    """The inverse of `pad_latent`: `shapes` and `z_dim` are those of the smaller model."""

    def unpad(leaf: Any, wanted: Any) -> Any:
        if leaf.shape == wanted.shape:
            return leaf
        (axis,) = _different(leaf, wanted)
        extra = leaf.shape[axis] - wanted.shape[axis]
        return np.delete(np.asarray(leaf), np.s_[z_dim : z_dim + extra], axis)

    return jax.tree.map(unpad, tree, shapes)


def _different(leaf: Any, wanted: Any) -> list[int]:
    pairs = zip(leaf.shape, wanted.shape, strict=True)
    return [axis for axis, (old, new) in enumerate(pairs) if old != new]
