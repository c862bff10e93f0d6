"""Exact ends, geometry and smoothness against closed forms."""

import numpy as np
import pytest

from vae_jax.metrics.latent_paths import linear, moved_blocks, smoothness, spherical
from vae_jax.types import UserError


def ends(z_dim=7, seed=0):
    return 3 * np.random.default_rng(seed).normal(size=(2, z_dim))


@pytest.mark.parametrize("kind", [linear, spherical])
def test_ends_are_exact_and_the_way_back_is_the_same(kind):
    start, end = ends()
    path = kind(start, end, 9)
    assert path.shape == (9, 7)
    np.testing.assert_array_equal(path[[0, -1]], [start, end])
    np.testing.assert_allclose(kind(end, start, 9)[::-1], path, atol=1e-12)
    batch = kind(np.stack([start, end]), np.stack([end, start]), 9)
    np.testing.assert_allclose(batch[0], path, atol=1e-12)
    with pytest.raises(UserError, match="at least 2"):
        kind(start, end, 1)
    with pytest.raises(ValueError, match="share a shape"):
        kind(start, end[:3], 4)


def test_linear_steps_are_equal():
    start, end = ends()
    steps = np.diff(linear(start, end, 9), axis=0)
    np.testing.assert_allclose(steps, np.tile((end - start) / 8, (8, 1)))


def test_spherical_agrees_with_slerp_for_equal_norms():
    start, end = ends()
    end = end * np.linalg.norm(start) / np.linalg.norm(end)
    angle = np.arccos(start @ end / (start @ start))
    t = np.linspace(0, 1, 9)[:, None]
    expected = (np.sin((1 - t) * angle) * start + np.sin(t * angle) * end) / np.sin(angle)
    np.testing.assert_allclose(spherical(start, end, 9), expected, atol=1e-12)


def test_spherical_radius_and_angle_change_evenly():
    path = spherical(*ends(), 9)
    radii = np.linalg.norm(path, axis=1)
    np.testing.assert_allclose(np.diff(radii, n=2), 0, atol=1e-12)
    unit = path / radii[:, None]
    cosines = np.sum(unit[1:] * unit[:-1], axis=1)
    np.testing.assert_allclose(cosines, cosines[0], atol=1e-12)


@pytest.mark.parametrize("tilt", [0.0, *np.logspace(-8, -2, 13)])
@pytest.mark.parametrize("z_dim", [2, 7, 200])
def test_spherical_between_nearly_opposite_ends_keeps_the_radius(tilt, z_dim):
    rng = np.random.default_rng(3)
    start, across = rng.normal(size=(2, z_dim)).astype(np.float32)
    end = (-start + np.float32(tilt) * across).astype(np.float32)  # as codes are: float32
    path = spherical(start, end, 9)
    radii = np.linalg.norm(np.float64([start, end]), axis=1)
    np.testing.assert_allclose(np.linalg.norm(path, axis=1), np.linspace(*radii, 9), rtol=1e-6)
    # Half a great circle in equal steps, but for the tilt.
    steps = np.linalg.norm(np.diff(path, axis=0), axis=1)
    np.testing.assert_allclose(steps, 2 * radii[0] * np.sin(np.pi / 16), rtol=5 * tilt + 1e-5)


def test_spherical_degenerate_ends_stay_finite():
    start, _ = ends()
    np.testing.assert_allclose(spherical(start, start, 9), np.tile(start, (9, 1)))
    np.testing.assert_allclose(spherical(start, 2 * start, 9)[4], 1.5 * start)
    zero = np.zeros(7)
    np.testing.assert_allclose(spherical(zero, start, 9)[4], start / 2)
    np.testing.assert_array_equal(spherical(zero, zero, 9), np.zeros((9, 7)))
    assert np.all(np.isfinite(spherical(np.array([1.0]), np.array([-1.0]), 3)))


def test_blocks_cover_every_component_once():
    z, values = ends()[0], np.array([1.0, 20.0])
    found = moved_blocks(z, values, 3)
    assert found.shape == (3, 2, 7)
    np.testing.assert_array_equal(np.sum(found[:, 1] != z[None, :], axis=0), np.ones(7))
    np.testing.assert_allclose(found[2, 1], [*z[:6], z[6] + 20])
    np.testing.assert_allclose(moved_blocks(z, values, 1)[:, 0], z + np.eye(7))


def test_smoothness_of_a_cross_fade_and_of_a_jump():
    t = np.linspace(0, 1, 6)[:, None, None, None]
    image = np.random.default_rng(0).uniform(size=(1, 4, 4, 3))
    both = np.stack([(1 - t) * image + t * (1 - image), np.where(t < 0.5, image, 1 - image)])
    found = smoothness(both)
    total = np.sqrt(np.mean((1 - 2 * image) ** 2))
    np.testing.assert_allclose(found["mean_step"], total / 5)
    np.testing.assert_allclose(found["jump"], [1, 5])
    np.testing.assert_allclose(found["path_length"], 1)
    # One step d in five: second differences d, -d in four, so the ratio is sqrt((2/4) / (1/5)).
    np.testing.assert_allclose(found["second_difference"], [0, np.sqrt(2.5)], atol=1e-12)


def test_smoothness_of_flicker_and_of_unrelated_images():
    flicker = np.tile([0.0, 1.0], 20)[None, :, None, None, None] * np.ones((1, 1, 3, 3, 1))
    assert smoothness(flicker)["second_difference"] == pytest.approx(2)
    noise = np.random.default_rng(1).normal(size=(1, 60, 12, 12, 3))
    found = smoothness(noise)
    assert found["second_difference"] == pytest.approx(np.sqrt(3), rel=0.02)
    steps = [np.sqrt(np.mean((a - b) ** 2)) for a, b in zip(noise[0], noise[0, 1:], strict=False)]
    expected = sum(steps) / np.sqrt(np.mean((noise[0, 0] - noise[0, -1]) ** 2))
    assert found["path_length"] == pytest.approx(expected)
    assert np.isnan(smoothness(np.ones((1, 4, 2, 2, 1)))["jump"]).all()
    with pytest.raises(UserError, match="at least 3"):
        smoothness(flicker[:, :2])
