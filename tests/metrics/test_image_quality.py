"""Image quality against closed forms and scikit-image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.metrics import structural_similarity

from vae_jax.metrics.image_quality import mse, psnr, ssim


def pair(shape, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.uniform(size=shape)
    return x, np.clip(x + 0.2 * rng.normal(size=shape), 0, 1)


def test_mse_and_psnr_of_a_constant_difference():
    x = jnp.full((2, 4, 5, 3), 0.25)
    y = x.at[0].add(0.1).at[1].add(0.5)
    np.testing.assert_allclose(mse(x, y), [0.01, 0.25], rtol=1e-5)
    np.testing.assert_allclose(psnr(x, y), [20.0, 6.0206], rtol=1e-5)
    assert np.all(np.isinf(psnr(x, x)))


@pytest.mark.parametrize("shape", [(3, 28, 28, 1), (2, 17, 40, 3), (1, 11, 11, 2)])
def test_ssim_agrees_with_scikit_image(shape):
    x, y = pair(shape)
    expected = [
        structural_similarity(
            a,
            b,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1,
            channel_axis=-1,
        )
        for a, b in zip(x, y, strict=True)
    ]
    with jax.enable_x64(True):
        np.testing.assert_allclose(ssim(jnp.asarray(x), jnp.asarray(y)), expected, atol=1e-12)
    single = ssim(jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32))
    np.testing.assert_allclose(single, expected, atol=1e-5)


def test_ssim_is_one_for_equal_images_symmetric_and_falls_with_noise():
    x, y = (jnp.asarray(a, jnp.float32) for a in pair((2, 20, 20, 3)))
    np.testing.assert_allclose(ssim(x, x), 1.0, atol=1e-6)
    np.testing.assert_allclose(ssim(x, y), ssim(y, x), atol=1e-6)
    assert np.all(ssim(x, y) < ssim(x, 0.9 * x + 0.1 * y))


def test_images_of_a_batch_do_not_mix():
    x, y = (jnp.asarray(a, jnp.float32) for a in pair((4, 16, 16, 1)))
    for measure in (mse, psnr, ssim):
        alone = jnp.concatenate([measure(x[i : i + 1], y[i : i + 1]) for i in range(4)])
        np.testing.assert_allclose(measure(x, y), alone, rtol=1e-6)


@pytest.mark.parametrize("measure", [mse, psnr, ssim])
def test_unequal_shapes_and_integers_are_refused(measure):
    x = jnp.zeros((2, 16, 16, 1))
    with pytest.raises(ValueError, match="share one shape"):
        measure(x, x[:1])
    with pytest.raises(ValueError, match="divide by 255"):
        measure(x, x.astype(jnp.uint8))


def test_ssim_refuses_images_smaller_than_its_window():
    with pytest.raises(ValueError, match="11 pixels"):
        ssim(jnp.zeros((1, 10, 20, 1)), jnp.zeros((1, 10, 20, 1)))
