"""Asked against recognised: counts, and what is refused."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from configs import tiny
from vae_jax.evaluate import conditioning
from vae_jax.evaluate.conditioning import (
    attribute_rates,
    class_confusion,
    confusion_matrix,
    confusion_table,
)
from vae_jax.run import Run
from vae_jax.types import UserError


def run_of(names):
    return Run(Path(), tiny.get_config(), 1, None, {}, names)


def test_confusion_counts_asked_by_row():
    asked, recognised = np.array([0, 0, 1, 2, 2, 2]), np.array([0, 1, 1, 2, 2, 0])
    matrix = confusion_matrix(asked, recognised, 3)
    np.testing.assert_array_equal(matrix, [[1, 1, 0], [0, 1, 0], [1, 0, 2]])
    header, rows = confusion_table(matrix, ("a", "b", "c"))
    assert header == ["asked \\ recognised", "a", "b", "c", "right"]
    assert rows[0] == ["a", "50.0%", "50.0%", "", "50.0%"]
    assert rows[2] == ["c", "33.3%", "", "66.7%", "66.7%"]


@pytest.fixture
def transparent(monkeypatch):
    """A decoder that draws its labels, and a classifier that reads them in its own order."""
    monkeypatch.setattr(
        conditioning, "decode", lambda model, variables, z, labels: labels[:, None, None, :]
    )
    monkeypatch.setattr(conditioning, "predict", lambda judge, images: images[:, 0, 0, ::-1])


def test_classes_are_judged_for_every_point(transparent, monkeypatch):
    monkeypatch.setattr(conditioning, "predict", lambda judge, images: images[:, 0, 0])
    z = np.zeros((7, 2), np.float32)
    run = run_of(("a", "b", "c"))
    np.testing.assert_array_equal(class_confusion(run, run, z), 7 * np.eye(3))
    with pytest.raises(UserError, match="the classifier knows b, but the model was told a, b, c"):
        class_confusion(run, run_of(("b",)), z)


def test_attributes_are_found_by_name_not_by_position(transparent):
    z = np.zeros((6, 2), np.float32)
    base = np.random.default_rng(0).integers(0, 2, (6, 3)).astype(np.float32)
    real = np.array([[1, 0, 1], [1, 0, 0], [1, 1, 0], [1, 0, 0]], np.float32)
    wrong = real.copy()
    wrong[0, 1] = 1  # One image shows what its label denies.
    images = wrong[:, None, None, :]
    run, judge = run_of(("x", "y", "z")), run_of(("z", "y", "x"))
    rates = attribute_rates(run, judge, z, base, (images, real))
    assert list(rates) == ["x", "y", "z"]
    assert rates["z"] == (1.0, 0.0, 1.0, 0.0)
    assert rates["y"] == (1.0, 0.0, 1.0, pytest.approx(1 / 3))
    assert rates["x"][:3] == (1.0, 0.0, 1.0) and np.isnan(rates["x"].real_without)
    with pytest.raises(UserError, match="knows q, of which the model was told none"):
        attribute_rates(
            run, dataclasses.replace(judge, label_names=("q",)), z, base, (images, real)
        )
