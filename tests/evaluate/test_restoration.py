"""Baselines against naive versions, scores against closed forms."""

import math

import numpy as np
import pytest
from scipy import ndimage
from skimage.metrics import peak_signal_noise_ratio

from vae_jax.evaluate.restoration import score
from vae_jax.evaluate.restoration_baselines import baselines, fill_erased, median_filter


def pictures(count=5, shape=(12, 13, 3), seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(0.0, 1.0, (count, *shape)).astype(np.float32)


@pytest.mark.parametrize("size", [3, 5])
def test_median_filter_is_scipys(size):
    images = pictures(70, (9, 8, 2))  # More than a chunk.
    expected = ndimage.median_filter(images, (1, size, size, 1), mode="nearest")
    np.testing.assert_array_equal(median_filter(images, size), expected)


def test_erased_pixels_are_weighted_means_of_kept_ones():
    images, mean_image = pictures(), pictures(1, seed=1)[0]
    erased = np.random.default_rng(2).random((5, 12, 13, 1)) < 0.7
    erased[0] = True  # Nothing is kept: the mean image.
    filled = fill_erased(np.where(erased, 0, images), erased, mean_image)
    np.testing.assert_allclose(filled[0], mean_image, atol=1e-6)
    for n, y, x in [(1, 0, 0), (2, 5, 6), (3, 11, 12), (4, 2, 9)]:
        if not erased[n, y, x, 0]:
            np.testing.assert_array_equal(filled[n, y, x], images[n, y, x])
            continue
        total, weight = np.zeros(3), 0.0
        for v in range(max(0, y - 3), min(12, y + 4)):
            for u in range(max(0, x - 3), min(13, x + 4)):
                if not erased[n, v, u, 0]:
                    w = math.exp(-0.5 * ((v - y) ** 2 + (u - x) ** 2))
                    total, weight = total + w * images[n, v, u], weight + w
        np.testing.assert_allclose(filled[n, y, x], total / weight, rtol=1e-5)
    assert erased[[1, 2, 3, 4], [0, 5, 11, 2], [0, 6, 12, 9], 0].any()


def test_psnr_of_images_and_of_their_erased_pixels():
    clean, noise = pictures(), 0.1 * (pictures(seed=3) - 0.5)
    erased = np.zeros((5, 12, 13, 1), bool)
    erased[:3, 2:5, 4:9] = True
    images = np.clip(clean + noise, 0, 1)
    got = score(images, clean, erased)
    each = [peak_signal_noise_ratio(c, i, data_range=1) for c, i in zip(clean, images, strict=True)]
    assert got.psnr == pytest.approx(np.mean(each), abs=1e-3)
    holes = [
        peak_signal_noise_ratio(c[2:5, 4:9], i[2:5, 4:9], data_range=1)
        for c, i in zip(clean[:3], images[:3], strict=True)
    ]
    assert got.psnr_erased == pytest.approx(np.mean(holes), abs=1e-3)
    assert 0.5 < got.ssim < 1


def test_equal_images_have_a_finite_psnr_and_small_ones_no_ssim():
    clean = pictures(2, (6, 6, 1))
    got = score(clean, clean, np.zeros((2, 6, 6, 1), bool))
    assert got.psnr == pytest.approx(20 * math.log10(510), abs=1e-3)
    assert math.isnan(got.ssim) and math.isnan(got.psnr_erased)


def test_baselines_offer_neighbours_only_where_pixels_are_erased():
    images, nothing = pictures(), np.zeros((5, 12, 13, 1), bool)
    names = set(baselines(images, nothing, images[0]))
    assert names == {"corrupted input", "median filter 3x3", "median filter 5x5", "mean image"}
    everywhere = baselines(images, ~nothing, images[0])
    np.testing.assert_array_equal(everywhere["mean image"][3], images[0])
    assert "mean of kept neighbours" in everywhere
