"""Grids of conditions: what changes from row to row, and what does not."""

import numpy as np

from vae_jax.latent.conditions import attribute_grid, class_grid, with_attribute


def test_a_row_for_each_class_with_the_same_points():
    z = np.arange(6, dtype=np.float32).reshape(3, 2)
    points, labels = class_grid(z, 4)
    np.testing.assert_array_equal(points.reshape(4, 3, 2), np.stack([z] * 4))
    np.testing.assert_array_equal(labels.argmax(1), np.repeat(np.arange(4), 3))
    np.testing.assert_array_equal(labels.sum(1), 1)


def test_one_attribute_changes_at_a_time():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(5, 2)).astype(np.float32)
    base = rng.integers(0, 2, (5, 3)).astype(np.float32)
    before = base.copy()
    points, labels = attribute_grid(z, base)
    rows = labels.reshape(7, 5, 3)
    np.testing.assert_array_equal(points.reshape(7, 5, 2), np.stack([z] * 7))
    np.testing.assert_array_equal(rows[0], base)
    for attribute in range(3):
        others = np.arange(3) != attribute
        for value in (0, 1):
            row = rows[1 + 2 * attribute + value]
            np.testing.assert_array_equal(row[:, attribute], value)
            np.testing.assert_array_equal(row[:, others], base[:, others])
    with_attribute(base, 0, 1.0)
    np.testing.assert_array_equal(base, before)
