"""Directions against differences of means; planes are judged by codes that they never saw."""

import numpy as np
import pytest

from vae_jax.metrics.attribute_directions import attribute_vectors, halves, label_table, separation
from vae_jax.types import UserError


def attributes(count=4000, seed=0):
    """Codes with a known effect of two attributes that often occur together."""
    rng = np.random.default_rng(seed)
    first = rng.uniform(size=count) < 0.5
    second = np.where(first, rng.uniform(size=count) < 0.9, rng.uniform(size=count) < 0.2)
    labels = np.stack([first, second], axis=1).astype(np.uint8)
    effects = np.array([[1.0, 0.0, -2.0], [0.0, 3.0, 1.0]])
    z = labels @ effects + 5 + 0.1 * rng.normal(size=(count, 3))
    return z.astype(np.float32), labels, effects


def test_attribute_vectors_are_differences_of_means():
    z, labels, effects = attributes()
    found = attribute_vectors(z, labels)
    for a in range(2):
        expected = z[labels[:, a] == 1].mean(axis=0) - z[labels[:, a] == 0].mean(axis=0)
        np.testing.assert_allclose(found[a], expected, atol=1e-4)
    assert abs(found[0, 1]) > 1  # The second attribute leaks into the first,
    joint = attribute_vectors(z, labels, joint=True)  # and joint fitting removes it.
    np.testing.assert_allclose(joint, effects, atol=0.03)
    alone = (attribute_vectors(z, labels[:, :1], joint=joint) for joint in (False, True))
    np.testing.assert_allclose(*alone, atol=1e-5)


def test_bad_attributes_are_refused():
    z, labels, _ = attributes(50)
    with pytest.raises(UserError, match="same for all 50"):
        attribute_vectors(z, np.ones((50, 1)))
    with pytest.raises(UserError, match="0 or 1"):
        attribute_vectors(z, 2 * labels)


@pytest.mark.parametrize("joint", [False, True])
def test_random_labels_separate_nothing_however_many_dimensions(joint):
    rng = np.random.default_rng(0)
    z = rng.normal(size=(800, 200))
    labels = (rng.uniform(size=(800, 40)) < np.linspace(0.1, 0.5, 40)).astype(np.uint8)
    fit, judge = halves(800, 1)
    assert sorted([*fit, *judge]) == list(range(800))
    found = separation((z[fit], labels[fit]), (z[judge], labels[judge]), joint)
    deviations = (found.shares - 0.5) / found.errors
    assert abs(deviations.mean()) < 4 / 40**0.5 and np.abs(deviations).max() < 4
    assert deviations.std() == pytest.approx(1, abs=0.5)  # the stated error is that of chance
    itself = separation((z, labels), (z, labels), joint).shares
    assert itself.min() > 0.6  # what judging by the fitted codes would claim


def test_separation_of_split_touching_and_mixed_groups():
    z = np.stack([[-3.0, -1.0, 1.0, 3.0], np.zeros(4)], axis=1)
    labels = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    found = separation((z, labels), (z, labels))
    # First: apart. Second: means -1 and 1, the middle is 0, each group has one on each side.
    assert found.shares.tolist() == [1.0, 0.5]
    assert found.errors.tolist() == [0.0, pytest.approx(0.25)]
    # The middle is that of the fitted codes: moved by 2, one without it changes sides.
    assert separation((z, labels), (z + 2, labels)).shares.tolist() == [0.75, 0.75]
    never = np.zeros_like(labels)
    assert np.isnan(separation((z, labels), (z, never)).shares).all()


def test_label_table():
    assert label_table(None, ("a",))[0].shape == (0, 0)
    table, names = label_table(np.array([2, 0, 2]), ("a", "b", "c"))
    assert names == ("a", "c") and table.tolist() == [[0, 1], [1, 0], [0, 1]]
    attributes = np.array([[1, 0, 1], [1, 1, 1], [1, 0, 0]], np.uint8)
    table, names = label_table(attributes, ("always", "some", "most"))
    assert names == ("some", "most") and table.tolist() == [[0, 1], [1, 1], [0, 0]]
