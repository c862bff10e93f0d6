"""Images are judged as validation shows them, and those that are shown are a seeded choice."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import tiny
from vae_jax.data.splits import piece_of
from vae_jax.models.vae import make_vae
from vae_jax.run import Run
from vae_jax.subject import chosen_images, encode_subject, make_subject
from vae_jax.types import ImageSet

REFERENCE_33 = [1460, 4686, 6268, 2663, 4776]


@pytest.fixture(scope="module")
def grey_run():
    """An untrained tiny model of grey images that are binarised anew in every step."""
    config = tiny.get_config()
    config.data.image_shape, config.data.binarize = (16, 16, 1), "stochastic"
    model = make_vae(config.model, config.data.image_shape)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 16, 16, 1)), False, False)
    return Run(Path(), config, 0, model, variables, ())


def test_the_reference_choice_is_reproduced():
    wanted = np.random.RandomState(np.random.MT19937(np.random.SeedSequence(33))).randint(0, 99, 8)
    np.testing.assert_array_equal(chosen_images(8, 99, 33, reference=True), wanted)
    # Recorded once: neither NumPy's nor our choice may drift.
    assert chosen_images(5, 10_000, 33, reference=True).tolist() == REFERENCE_33


def test_our_choice_has_no_repetitions_and_extends():
    many = chosen_images(50, 50, 1)
    assert sorted(many) == list(range(50))
    np.testing.assert_array_equal(chosen_images(7, 50, 1), many[:7])
    assert len(chosen_images(9, 4, 0)) == 4


def test_a_piece_of_a_split_is_shown_as_it_is_within_the_whole(grey_run):
    images = np.random.default_rng(0).integers(0, 256, (70, 16, 16, 1)).astype(np.uint8)
    split = ImageSet(images, np.arange(70), np.arange(70))
    whole = encode_subject(make_subject(grey_run, split))
    assert set(np.unique(whole.inputs)) == {0.0, 1.0}
    assert np.array_equal(whole.inputs, whole.targets)
    # The law of each pixel: deviations from its grey level are a fair draw's.
    assert abs(float(whole.targets.mean()) - images.mean() / 255) < 0.01
    part = piece_of(split, 64, 9)
    assert part.labels.tolist() == list(range(64, 70))
    seen = encode_subject(make_subject(grey_run, part), first=64)
    np.testing.assert_array_equal(seen.inputs, whole.inputs[64:])
    np.testing.assert_array_equal(seen.mean, whole.mean[64:])
