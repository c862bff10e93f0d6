"""Corruption against naive versions and statistics, and what its keys promise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from vae_jax.data import inputs as module
from vae_jax.data.inputs import Corruption, luminance

KEY = jax.random.key(7)
LOST = Corruption(drop_fraction=0.8)
SQUARE = Corruption(mask="rectangle", mask_size=6)
EVERYTHING = Corruption(True, 0.1, 0.8, "black", "rectangle", 6)
corrupt = jax.jit(module.corrupt, static_argnums=2)
erased_pixels = jax.jit(module.erased_pixels, static_argnums=2)


def pictures(count=64, shape=(16, 20, 3), seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(0.05, 1.0, (count, *shape)).astype(np.float32)


def test_off_is_the_very_same_array():
    images = jnp.asarray(pictures())
    assert module.corrupt(KEY, images, Corruption()) is images
    assert Corruption(mask="left").erases and not Corruption(grey=True).erases


def test_noise_has_its_sigma_and_is_clipped():
    middle = np.full((64, 16, 20, 3), 0.5, np.float32)
    noise = np.asarray(corrupt(KEY, middle, Corruption(gaussian_sigma=0.1))) - 0.5
    count = noise.size  # 61,440: the standard errors are 0.4 % of sigma
    assert abs(noise.mean()) < 4 * 0.1 / count**0.5
    assert noise.std() == pytest.approx(0.1, rel=4 / (2 * count) ** 0.5)
    assert abs((np.abs(noise) < 0.1).mean() - 0.6827) < 0.01  # Normal, not merely of that width.
    channels = np.corrcoef(noise.reshape(-1, 3).T)
    assert np.abs(channels - np.eye(3)).max() < 0.03
    clipped = np.asarray(corrupt(KEY, np.ones_like(middle), Corruption(gaussian_sigma=0.1)))
    assert clipped.max() == 1.0
    assert (clipped == 1.0).mean() == pytest.approx(0.5, abs=0.01)


def test_the_asked_fraction_of_pixels_is_lost_with_all_channels():
    images = pictures()
    lost = np.asarray(corrupt(KEY, images, LOST))
    gone = (lost == 0.0).all(-1)
    np.testing.assert_array_equal(gone, (lost == 0.0).any(-1))
    np.testing.assert_array_equal(lost[~gone], images[~gone])
    assert gone.mean() == pytest.approx(0.8, abs=4 * (0.16 / gone.size) ** 0.5)
    # Independent draws: the count an image scatters as a binomial one.
    assert gone.sum((1, 2)).std() == pytest.approx((320 * 0.16) ** 0.5, rel=0.35)


def test_pixels_can_be_lost_to_noise():
    images = pictures()
    noisy = np.asarray(corrupt(KEY, images, Corruption(drop_fraction=0.8, drop_value="noise")))
    black = np.asarray(corrupt(KEY, images, LOST))
    gone = (black == 0.0).all(-1)
    np.testing.assert_array_equal(noisy[~gone], images[~gone])
    assert noisy[gone].mean() == pytest.approx(0.5, abs=0.01)
    assert noisy[gone].std() == pytest.approx(12**-0.5, abs=0.01)


@pytest.mark.parametrize("mask", ["left", "right", "top", "bottom"])
def test_halves(mask):
    images = pictures(3, (15, 21, 1))
    expected = images.copy()
    region = {
        "left": np.s_[:, :, :10], "right": np.s_[:, :, 11:],
        "top": np.s_[:, :7], "bottom": np.s_[:, 8:],
    }[mask]  # fmt: skip
    expected[region] = 0.0
    np.testing.assert_array_equal(corrupt(KEY, images, Corruption(mask=mask)), expected)


def test_the_square_lies_whole_within_the_image_and_reaches_every_corner():
    images = pictures()
    counts = np.zeros((11, 15))
    for seed in range(30):
        erased = np.asarray(corrupt(jax.random.key(seed), images, SQUARE)) == 0.0
        np.testing.assert_array_equal(erased.all(-1), erased.any(-1))
        for hole in erased[..., 0]:
            rows, columns = hole.any(1).nonzero()[0], hole.any(0).nonzero()[0]
            assert hole.sum() == 36 and len(rows) == len(columns) == 6
            counts[rows[0], columns[0]] += 1
    expected = 30 * 64 / counts.size
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square < 208.8  # 99 % quantile with 164 degrees of freedom


def test_grey_is_the_luminance_of_pillow_in_three_equal_channels():
    pixels = np.round(pictures(5) * 255).astype(np.uint8)
    grey = np.asarray(corrupt(KEY, pixels / np.float32(255), Corruption(grey=True)))
    assert grey.shape == pixels.shape
    np.testing.assert_array_equal(grey[..., 0], grey[..., 1])
    np.testing.assert_array_equal(grey[..., 0], grey[..., 2])
    expected = np.stack([np.asarray(Image.fromarray(p).convert("L")) for p in pixels])
    assert np.abs(grey[..., 0] * 255 - expected).max() <= 1.0


def test_several_at_once_are_applied_in_the_documented_order():
    images = pictures()

    @jax.jit
    @jax.vmap
    def draw(i):
        key = jax.random.fold_in(jax.random.fold_in(KEY, i), 0)
        return jax.random.normal(key, images.shape[1:])

    noise = np.asarray(draw(jnp.arange(len(images))))
    grey = np.asarray(luminance(jnp.asarray(images)), np.float64)
    expected = np.clip(grey + 0.1 * noise, 0, 1)
    for alone in (LOST, SQUARE):
        expected[np.asarray(corrupt(KEY, images, alone)) == 0.0] = 0.0
    np.testing.assert_allclose(corrupt(KEY, images, EVERYTHING), expected, atol=1e-6)
    hidden = np.asarray(erased_pixels(KEY, images, EVERYTHING))
    assert hidden.shape == (64, 16, 20, 1)
    assert 0.8 < hidden.mean() < 0.85
    assert not np.asarray(erased_pixels(KEY, images, Corruption(grey=True))).any()
    assert (expected[hidden[..., 0]] == 0.0).all()


def test_an_image_depends_on_its_position_and_key_alone():
    images = pictures()
    whole = np.asarray(corrupt(KEY, images, EVERYTHING))
    pieces = [corrupt(KEY, images[i : i + 32], EVERYTHING, first=i) for i in (0, 32)]
    np.testing.assert_array_equal(whole, np.concatenate(pieces))
    assert not np.allclose(whole, corrupt(jax.random.key(8), images, EVERYTHING))
    same = np.asarray(corrupt(KEY, np.repeat(images[:1], 64, axis=0), EVERYTHING))
    assert not np.allclose(same[0], same[1])


def test_members_of_a_sweep_see_what_they_would_see_alone():
    images = pictures()
    keys = jax.vmap(jax.random.key)(jnp.arange(3))
    together = jax.jit(jax.vmap(lambda k: module.corrupt(k, images, EVERYTHING)))(keys)
    for seed in range(3):
        alone = corrupt(jax.random.key(seed), images, EVERYTHING)
        np.testing.assert_allclose(together[seed], alone, atol=1e-6)


def test_a_corruption_says_what_it_does():
    text = str(Corruption(True, 0.25, 0.8, "black", "rectangle", 6))
    for part in ("grey", "sigma 0.25", "80% of the pixels lost to black", "square of 6 pixels"):
        assert part in text
    assert str(Corruption(mask="top")) == "the top half erased"
    assert str(Corruption()) == "as the targets"
