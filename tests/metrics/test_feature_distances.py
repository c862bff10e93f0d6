"""Manifold metrics against naive loops, Frechet distance against closed forms."""

import jax
import numpy as np
import pytest
from scipy.linalg import sqrtm

from vae_jax.metrics import feature_distances as mm
from vae_jax.types import UserError


@pytest.fixture
def sets():
    rng = np.random.default_rng(0)
    return rng.normal(size=(40, 3)), rng.normal(0.4, 0.7, size=(31, 3))


def naive_radii(points, k):
    return [sorted(np.linalg.norm(p - q) for q in points)[k] for p in points]


@pytest.mark.parametrize("chunk", [7, 1024])
def test_all_four_agree_with_naive_loops(sets, chunk, monkeypatch):
    monkeypatch.setattr(mm, "CHUNK", chunk)
    real, fake = sets
    near = np.linalg.norm(real[:, None] - fake[None, :], axis=2)
    real_radii, fake_radii = naive_radii(real, 3), naive_radii(fake, 3)
    precision = np.mean([any(near[i, j] <= real_radii[i] for i in range(40)) for j in range(31)])
    recall = np.mean([any(near[i, j] <= fake_radii[j] for j in range(31)) for i in range(40)])
    assert mm.precision_recall(real, fake) == {"precision": precision, "recall": recall}
    radii = naive_radii(real, 5)
    inside = np.array([[near[i, j] <= radii[i] for j in range(31)] for i in range(40)])
    expected = {"density": inside.sum() / (5 * 31), "coverage": inside.any(axis=1).mean()}
    assert mm.density_coverage(real, fake) == pytest.approx(expected)


def test_radius_is_the_distance_to_the_kth_other_point():
    line = np.array([[0.0], [1.0], [3.0], [7.0]])
    np.testing.assert_allclose(mm.neighbour_radii(line, 1), [1, 1, 4, 16])
    np.testing.assert_allclose(mm.neighbour_radii(line, 2), [9, 4, 9, 36])
    twins = np.array([[5.0], [5.0], [9.0]])
    np.testing.assert_allclose(mm.neighbour_radii(twins, 1), [0, 0, 16])


def test_extremes(sets):
    real, fake = sets
    far = fake + 100
    assert mm.precision_recall(real, far) == {"precision": 0, "recall": 0}
    assert mm.density_coverage(real, far) == {"density": 0, "coverage": 0}
    assert mm.precision_recall(real, real) == {"precision": 1, "recall": 1}
    collapsed = np.repeat(real[:1], 40, axis=0)
    result = mm.precision_recall(real, collapsed)
    assert result["precision"] == 1 and result["recall"] <= 0.1


def test_equal_distributions_give_the_expected_values():
    rng = np.random.default_rng(1)
    result = mm.density_coverage(rng.normal(size=(1500, 4)), rng.normal(size=(1500, 4)))
    assert result["density"] == pytest.approx(1, abs=0.05)
    assert result["coverage"] == pytest.approx(1 - 2**-5, abs=0.015)


def test_metrics_ignore_common_shifts_rotations_and_scales(sets):
    real, fake = sets
    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0]
    moved = [10 * points @ turn + 1000 for points in sets]
    assert mm.precision_recall(*moved) == mm.precision_recall(real, fake)
    assert mm.density_coverage(*moved) == mm.density_coverage(real, fake)
    assert mm.frechet_distance(*moved) == pytest.approx(100 * mm.frechet_distance(real, fake))


def with_variances(*variances):
    """Points on the axes with mean 0 and exactly this diagonal covariance, `[2 F, F]`."""
    half = np.diag(np.sqrt(np.array(variances) * (2 * len(variances) - 1) / 2))
    return np.concatenate([half, -half])


def test_frechet_closed_forms():
    unit = with_variances(1, 1, 1)
    np.testing.assert_allclose(np.cov(unit, rowvar=False), np.eye(3), atol=1e-12)
    assert mm.frechet_distance(unit, unit + 2) == pytest.approx(12)
    assert mm.frechet_distance(with_variances(1, 4, 9), unit) == pytest.approx(0 + 1 + 4)
    # Singular covariances on perpendicular lines share nothing.
    one, two = with_variances(1, 0, 0), with_variances(0, 1, 0)
    assert mm.frechet_distance(one, two) == pytest.approx(2, abs=1e-12)
    assert mm.frechet_distance(one, one) == pytest.approx(0, abs=1e-12)


def test_frechet_agrees_with_a_general_matrix_root(sets):
    real, fake = sets
    a, b = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
    offset = np.sum((real.mean(axis=0) - fake.mean(axis=0)) ** 2)
    expected = offset + np.trace(a + b - 2 * np.real(sqrtm(a @ b)))
    assert mm.frechet_distance(real, fake) == pytest.approx(expected, rel=1e-9)
    assert mm.frechet_distance(real, real) == pytest.approx(0, abs=1e-12)
    assert mm.frechet_distance(fake, real) == pytest.approx(expected, rel=1e-9)


def test_one_feature_and_fewer_images_than_features():
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(50, 1)), 2 * rng.normal(size=(50, 1)) + 1
    expected = (a.mean() - b.mean()) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2
    assert mm.frechet_distance(a, b) == pytest.approx(expected)
    wide = rng.normal(size=(4, 20))
    assert mm.frechet_distance(wide, wide) == pytest.approx(0, abs=1e-10)


def test_bad_features_are_refused(sets):
    real, fake = sets
    with pytest.raises(ValueError, match=r"\[N, F\]"):
        mm.precision_recall(real, fake[:, :2])
    with pytest.raises(UserError, match="more than 3 images"):
        mm.precision_recall(real, fake[:3])
    with pytest.raises(UserError, match="NaN"):
        mm.frechet_distance(real, np.full_like(fake, np.nan))
    with pytest.raises(UserError, match="two images"):
        mm.frechet_distance(real, fake[:1])


def test_small_pixels_are_averages():
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    small = mm.small_pixels(images).reshape(3, 8, 8, 3)
    assert small.min() >= 0 and small.max() <= 1
    np.testing.assert_allclose(small.mean((1, 2)), images.mean((1, 2)) / 255, atol=0.02)
    resized = jax.image.resize(images / np.float32(255), (3, 8, 8, 3), "linear", antialias=True)
    np.testing.assert_allclose(small, resized, atol=1e-6)
    flat = np.full((2, 16, 20, 1), 51, np.uint8)
    np.testing.assert_allclose(mm.small_pixels(flat), 0.2, rtol=1e-5)


def test_pixels_in_bytes_and_floats_are_alike():
    images = np.random.default_rng(1).integers(0, 256, (2, 3, 4, 1)).astype(np.uint8)
    found = mm.pixels(images)
    assert found.shape == (2, 12) and found[1, 4] == np.float32(images[1, 1, 0, 0] / 255)
    np.testing.assert_array_equal(found, mm.pixels((images / 255).astype(np.float32)))
