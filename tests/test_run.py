"""Samples depend on (checkpoint, seed, i) alone."""

import jax
import numpy as np
import pytest

from configs import tiny
from vae_jax.models.vae import make_vae
from vae_jax.run import BATCH, decode, encode, prior_latents
from vae_jax.train.state import init_variables


@pytest.fixture(scope="module")
def model_and_variables():
    config = tiny.get_config()
    model = make_vae(config.model, config.data.image_shape)
    return model, init_variables(model, jax.random.key(0))


def test_latents_do_not_depend_on_the_count():
    many = prior_latents(33, 500, 8)
    np.testing.assert_array_equal(prior_latents(33, 3, 8), many[:3])
    assert not np.array_equal(prior_latents(34, 3, 8), many[:3])
    assert abs(many.mean()) < 0.05 and abs(many.std() - 1) < 0.05


def test_the_first_components_of_latents_do_not_depend_on_z_dim():
    """So that one seed shows comparable images for every latent size of a told model."""
    np.testing.assert_array_equal(prior_latents(33, 5, 3), prior_latents(33, 5, 128)[:, :3])


@pytest.mark.parametrize("count", [1, BATCH - 1, BATCH, BATCH + 1])
def test_images_do_not_depend_on_the_count(model_and_variables, count):
    model, variables = model_and_variables
    z = prior_latents(1, BATCH + 9, model.z_dim)
    whole = decode(model, variables, z)
    assert whole.shape == (BATCH + 9, 16, 16, 3) and whole.dtype == np.float32
    np.testing.assert_array_equal(decode(model, variables, z[:count]), whole[:count])


def test_encode_agrees_with_the_model_and_takes_uint8(model_and_variables):
    model, variables = model_and_variables
    pixels = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3)).astype(np.uint8)
    mean, log_var = encode(model, variables, pixels)
    output = model.apply(variables, pixels.astype(np.float32) / 255, train=False, sample=False)
    np.testing.assert_allclose(mean, output.mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(log_var, output.log_var, rtol=1e-4, atol=1e-5)
