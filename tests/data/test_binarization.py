"""Black and white images by the Bernoulli law of grey levels, anew or once and for all."""

import jax
import numpy as np
import pytest

from configs import iwae_mnist, tiny
from vae_jax.config import validate
from vae_jax.data.inputs import InputStage, evaluation_pair, make_input_stage, training_pair
from vae_jax.data.splits import fixed_binarized
from vae_jax.types import ImageSet, UserError

STAGE = InputStage(binarize=True)
GREY = np.full((400, 8, 8, 1), 51, np.uint8)  # a fifth


def test_training_draws_anew_and_input_is_target():
    inputs, targets = training_pair(STAGE, jax.random.key(0), GREY)
    again, _ = training_pair(STAGE, jax.random.key(1), GREY)
    np.testing.assert_array_equal(inputs, targets)
    assert set(np.unique(targets)) == {0.0, 1.0}
    # 25,600 draws of a fifth: standard error 0.0025.
    assert abs(float(targets.mean()) - 0.2) < 0.01
    assert np.mean(np.asarray(again) != np.asarray(targets)) == pytest.approx(0.32, abs=0.02)


def test_evaluation_sees_the_same_image_at_the_same_position():
    _, whole = evaluation_pair(STAGE, jax.random.key(0), GREY, 0)
    _, part = evaluation_pair(STAGE, jax.random.key(0), GREY[:10], 30)
    np.testing.assert_array_equal(part, whole[30:40])


def test_fixed_images_are_the_same_every_time():
    images = np.concatenate([GREY, np.full((2, 8, 8, 1), 255, np.uint8), 0 * GREY[:2]])
    every = ImageSet(images, np.arange(len(images)))
    fixed = fixed_binarized(every, (3, 0))
    assert set(np.unique(fixed.images)) == {0, 255}
    assert abs(fixed.images[:400].mean() / 255 - 0.2) < 0.01
    assert (fixed.images[400:402] == 255).all() and (fixed.images[402:] == 0).all()
    some = ImageSet(images, np.arange(7))
    np.testing.assert_array_equal(fixed_binarized(some, (3, 0)).images, fixed.images[:7])
    assert (fixed_binarized(every, (4, 0)).images != fixed.images).any()


def test_the_field():
    config = iwae_mnist.get_config()
    validate(config)
    assert make_input_stage(config.data).binarize
    config.data.binarize = "fixed"
    assert not make_input_stage(config.data).binarize
    colour = tiny.get_config()
    colour.data.binarize = "stochastic"
    with pytest.raises(UserError, match="only grey images"):
        validate(colour)
