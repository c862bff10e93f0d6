"""Baselines against naive versions, scores against closed forms."""

import math

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from vae_jax.report.page import write_study
from vae_jax.studies import restoration
from vae_jax.studies.restoration import (
    AS_MADE,
    KEPT,
    MODEL,
    Options,
    Result,
    Score,
    best_strength,
    fill_erased,
    non_local_means,
    score,
    total_variation,
    untrained,
)


def pictures(count=5, shape=(12, 13, 3), seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(0.0, 1.0, (count, *shape)).astype(np.float32)


def test_the_median_filter_repeats_the_edge():
    image = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    (filtered,) = untrained(image, np.zeros((1, 4, 4, 1), bool), image[0])["median filter 3x3"]
    assert filtered[1, 1, 0] == 5
    assert filtered[0, 0, 0] == np.median([0, 0, 1, 0, 0, 1, 4, 4, 5])


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


def test_neighbours_are_offered_only_where_pixels_are_erased():
    images, nothing = pictures(), np.zeros((5, 12, 13, 1), bool)
    names = set(untrained(images, nothing, images[0]))
    assert names == {"corrupted input", "median filter 3x3", "median filter 5x5", "mean image"}
    everywhere = untrained(images, ~nothing, images[0])
    np.testing.assert_array_equal(everywhere["mean image"][3], images[0])
    assert "mean of kept neighbours" in everywhere


@pytest.mark.parametrize("function", [total_variation, non_local_means])
def test_filters_remove_noise_at_their_best_strength(function):
    rng = np.random.default_rng(0)
    clean = np.zeros((3, 16, 16, 1), np.float32)
    clean[:, 4:12, 4:12] = 0.8
    noisy = np.clip(clean + 0.15 * rng.normal(size=clean.shape), 0, 1).astype(np.float32)
    strengths = (1e-6, 0.1, 0.2, 50.0)
    best = best_strength(function, strengths, noisy, clean)
    assert best in strengths[1:3]
    erased = np.zeros((3, 16, 16, 1), bool)
    gained = score(function(noisy, best), clean, erased).psnr - score(noisy, clean, erased).psnr
    assert gained > 3


def result_of(**rest):
    shown = {"clean": pictures(2, (8, 8, 1)), "restored": pictures(2, (8, 8, 1))}
    scores = {
        AS_MADE: {
            MODEL: Score(16.9, 0.1, 0.7, 16.0),
            "corrupted input": Score(10.7, 0.1, 0.3, 9.7),
            "median filter 3x3": Score(9.8, 0.1, 0.2, 9.0),
        },
        KEPT: {
            MODEL: Score(17.6, 0.1, 0.8, 16.0),
            "corrupted input": Score(10.7, 0.1, 0.3, 9.7),
            "mean of kept neighbours": Score(15.6, math.nan, math.nan, 14.6),
        },
    }
    facts = {"corruption": "80% of the pixels lost to black", "test images": "1,000"}
    return Result(facts, Options(), shown, scores, {"total variation": 0.2}, **rest)


def test_the_page_compares_like_with_like(tmp_path):
    result = result_of(without="")
    page = restoration.page(result)
    assert "With kept pixels as they were on both sides its images reach 17.60" in page.lead
    assert "mean of kept neighbours, 15.60 dB" in page.lead
    first = page.sections[1]
    assert first.heading.endswith(KEPT)
    assert [row[0] for row in first.tables[0].rows] == [
        MODEL, "mean of kept neighbours", "corrupted input",
    ]  # fmt: skip
    assert "recognised" not in first.tables[0].header
    write_study(tmp_path, page, result.numbers)
    assert "NaN" not in (tmp_path / "results.json").read_text()


def test_without_scikit_image_the_page_says_so():
    sentence = "Total variation and non-local means are missing here"
    page = restoration.page(result_of(without=sentence))
    assert all(section.text == sentence for section in page.sections[1:])
