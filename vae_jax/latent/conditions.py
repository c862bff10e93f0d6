"""Points with conditions: the same z under every class, one attribute changed at a time."""

from __future__ import annotations

import numpy as np


def class_grid(z: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """One row for each class, the same z in every column.

    Args:
        z: `[K, Z]`.
        classes: L.

    Returns:
        z `[L K, Z]` and one-hot labels `[L K, L]`, row by row.
    """
    labels = np.repeat(np.eye(classes, dtype=np.float32), len(z), axis=0)
    return np.tile(z, (classes, 1)), labels


def attribute_grid(z: np.ndarray, base: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A row as it is, then for each attribute a row without and one with it, all else unchanged.

    Args:
        z: `[K, Z]`.
        base: `[K, A]` conditions of the columns.

    Returns:
        z `[(1 + 2 A) K, Z]` and labels `[(1 + 2 A) K, A]`, row by row.
    """
    rows = [base]
    for attribute in range(base.shape[1]):
        for value in (0.0, 1.0):
            rows.append(with_attribute(base, attribute, value))
    return np.tile(z, (len(rows), 1)), np.concatenate(rows)


def with_attribute(labels: np.ndarray, attribute: int, value: float) -> np.ndarray:
    """Conditions `[N, A]` with one attribute set to `value`."""
    changed = labels.copy()
    changed[:, attribute] = value
    return changed
