"""Augmentation against naive versions of each kind."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.data import inputs as module
from vae_jax.data.inputs import Augmentation

KEY = jax.random.key(3)
augment = jax.jit(module.augment, static_argnums=2)


def pictures(count=200, shape=(6, 7, 3)):
    return np.random.default_rng(0).uniform(0.1, 0.6, (count, *shape)).astype(np.float32)


def test_off_is_the_very_same_array():
    images = jnp.asarray(pictures())
    assert module.augment(KEY, images, Augmentation()) is images


def test_half_of_the_images_are_mirrored_left_to_right():
    images = pictures()
    varied = np.asarray(augment(KEY, images, Augmentation(flip=True)))
    mirrored = (varied == images[:, :, ::-1]).all((1, 2, 3))
    kept = (varied == images).all((1, 2, 3))
    assert (mirrored ^ kept).all()
    assert 70 < mirrored.sum() < 130  # 100 +- 4.2 standard deviations


def test_shifts_repeat_the_edge_and_take_every_offset():
    images = pictures()
    varied = np.asarray(augment(KEY, images, Augmentation(shift=2)))
    seen = set()
    for image, result in zip(images, varied, strict=True):
        offsets = []
        for down in range(-2, 3):
            for right in range(-2, 3):
                rows = np.clip(np.arange(6) - down, 0, 5)
                columns = np.clip(np.arange(7) - right, 0, 6)
                if np.array_equal(image[rows][:, columns], result):
                    offsets.append((down, right))
        assert len(offsets) == 1
        seen.add(offsets[0])
    assert len(seen) == 25


def test_brightness_is_one_clipped_factor_an_image():
    images = pictures()
    varied = np.asarray(augment(KEY, images, Augmentation(brightness=0.5)), np.float64)
    factors = varied[:, 0, 0, 0] / images[:, 0, 0, 0]
    expected = np.clip(images * factors[:, None, None, None], 0, 1)
    np.testing.assert_allclose(varied, expected, atol=1e-6)
    assert 0.5 <= factors.min() < 0.55 and 1.45 < factors.max() <= 1.5
    assert factors.mean() == pytest.approx(1.0, abs=0.08)
    bright = augment(KEY, np.ones((50, 2, 2, 1), np.float32), Augmentation(brightness=0.5))
    assert float(jnp.max(bright)) == 1.0


def test_all_at_once_is_seeded():
    images, everything = pictures(), Augmentation(True, 1, 0.2)
    first, again = (np.asarray(augment(KEY, images, everything)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, augment(jax.random.key(4), images, everything))
    assert str(everything) == "mirrored, shifted by up to 1 pixels, brightness changed by up to 20%"
    assert str(Augmentation()) == "none"
