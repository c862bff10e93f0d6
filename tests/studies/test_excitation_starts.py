"""Start images: seeded, standardised, with the length scales that were asked for."""

import jax
import numpy as np
import pytest

from vae_jax.studies.excitation import fourier_images, noise_images, scale_layers, superpose
from vae_jax.types import UserError

KEY = jax.random.key(5)


def roughness(images):
    """Mean square of the difference of neighbours, 2 for white noise of variance 1."""
    return float(np.mean(np.square(np.diff(np.asarray(images), axis=1))))


def superposed(*arguments):
    return superpose(scale_layers(*arguments))


@pytest.mark.parametrize("shape", [(28, 28, 1), (30, 20, 3)])
@pytest.mark.parametrize("make", [superposed, fourier_images])
def test_starts_are_standardised_and_depend_on_key_and_index_alone(make, shape):
    many, few = (np.asarray(make(KEY, count, shape)) for count in (6, 2))
    np.testing.assert_allclose(many.mean(axis=(1, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(many.std(axis=(1, 2, 3)), 1, atol=1e-4)
    np.testing.assert_allclose(few, many[:2], atol=1e-5)  # another count, another order of sums
    assert np.abs(many - np.asarray(make(jax.random.key(6), 6, shape))).mean() > 0.3
    assert np.abs(many[0] - many[1]).mean() > 0.3
    if shape[-1] == 3:
        assert np.abs(many[..., 0] - many[..., 1]).mean() > 0.1


def test_coarser_scales_are_smoother():
    images = [noise_images(KEY, 20, (28, 28, 1), scale) for scale in (3, 7, 14, 0)]
    rough = [roughness(image) for image in images]
    assert rough == sorted(rough) and rough[0] < 0.1 and rough[3] == pytest.approx(2, rel=0.1)


def test_full_size_noise_is_uniform():
    values = np.asarray(noise_images(KEY, 4, (40, 40, 1), 0)).ravel()
    # Kurtosis of the uniform distribution is 1.8, of the normal one 3.
    assert np.mean(values**4) == pytest.approx(1.8, rel=0.03)


def test_weights_mix_the_scales():
    smooth, rough = ((100.0, 1.0), (1.0, 100.0))
    images = [superposed(KEY, 4, (28, 28, 1), (3, 0), weights) for weights in (smooth, rough)]
    assert roughness(images[0]) < 0.1 < 1.5 < roughness(images[1])
    layers = np.asarray(scale_layers(KEY, 4, (28, 28, 1), (3, 0), smooth))
    np.testing.assert_allclose(layers.std(axis=(2, 3, 4)), [[100.0] * 4, [1.0] * 4], rtol=1e-3)


def test_fourier_power_sets_the_slope_of_the_spectrum():
    images = np.asarray(fourier_images(KEY, 200, (32, 32, 1), power=1.5))[..., 0]
    amplitude = np.abs(np.fft.fft2(images)).mean(axis=0)
    # Frequencies 2/32 and 8/32 along one axis: a factor of 4 apart.
    assert amplitude[2, 0] / amplitude[8, 0] == pytest.approx(4**1.5, rel=0.2)
    white = fourier_images(KEY, 20, (32, 32, 1), power=0.0)
    assert roughness(white) == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize(
    ("scales", "weights", "message"),
    [((3, 29), None, "scale 29"), ((), None, "at least one"), ((3, 7), (1.0,), "one weight"),
     ((3,), (0.0,), "above 0")],
)  # fmt: skip
def test_scales_that_do_not_fit_are_refused(scales, weights, message):
    with pytest.raises(UserError, match=message):
        scale_layers(KEY, 1, (28, 28, 1), scales, weights)
