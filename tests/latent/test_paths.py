"""Paths in latent space: exact ends, geometry, attribute directions, grids."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from vae_jax.latent import path_study, paths
from vae_jax.types import UserError


def ends(z_dim=7, seed=0):
    rng = np.random.default_rng(seed)
    return tuple(jnp.asarray(3 * rng.normal(size=z_dim), jnp.float32) for _ in range(2))


@pytest.mark.parametrize("kind", [paths.linear, paths.spherical])
def test_ends_are_exact_and_the_way_back_is_the_same(kind):
    start, end = ends()
    path = kind(start, end, 9)
    assert path.shape == (9, 7)
    np.testing.assert_array_equal(path[0], start)
    np.testing.assert_array_equal(path[-1], end)
    np.testing.assert_allclose(kind(end, start, 9)[::-1], path, atol=1e-5)
    np.testing.assert_array_equal(kind(start, end, 2)[1], end)
    batch = jax.vmap(lambda a, b: kind(a, b, 9))(jnp.stack([start, end]), jnp.stack([end, start]))
    np.testing.assert_allclose(batch[0], kind(start, end, 9), atol=1e-6)


def test_linear_steps_are_equal():
    start, end = ends()
    steps = np.diff(paths.linear(start, end, 9), axis=0)
    np.testing.assert_allclose(steps, np.tile((end - start) / 8, (8, 1)), atol=1e-5)


def test_spherical_agrees_with_slerp_for_equal_norms():
    start, end = ends()
    end = end * jnp.linalg.norm(start) / jnp.linalg.norm(end)
    a, b = np.asarray(start, np.float64), np.asarray(end, np.float64)
    angle = np.arccos(a @ b / (a @ a))
    t = np.linspace(0, 1, 9)[:, None]
    expected = (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)
    np.testing.assert_allclose(paths.spherical(start, end, 9), expected, atol=1e-5)


def test_spherical_radius_and_angle_change_evenly():
    start, end = ends()
    path = np.asarray(paths.spherical(start, end, 9), np.float64)
    radii = np.linalg.norm(path, axis=1)
    np.testing.assert_allclose(np.diff(radii, n=2), 0, atol=1e-5)
    unit = path / radii[:, None]
    cosines = np.sum(unit[1:] * unit[:-1], axis=1)
    np.testing.assert_allclose(cosines, cosines[0], atol=1e-6)


@pytest.mark.parametrize("tilt", [0.0, 1e-7, 1e-3])
def test_spherical_between_opposite_ends_keeps_the_radius(tilt):
    start, _ = ends()
    end = (-start).at[2].add(tilt)
    path = np.asarray(paths.spherical(start, end, 9), np.float64)
    radius = float(jnp.linalg.norm(start))
    np.testing.assert_allclose(np.linalg.norm(path, axis=1), radius, rtol=1e-3)
    steps = np.linalg.norm(np.diff(path, axis=0), axis=1)
    np.testing.assert_allclose(steps, 2 * radius * np.sin(np.pi / 16), rtol=0.01)


def test_spherical_degenerate_ends_stay_finite():
    start, _ = ends()
    np.testing.assert_allclose(paths.spherical(start, start, 9), np.tile(start, (9, 1)), rtol=1e-5)
    doubled = paths.spherical(start, 2 * start, 9)
    np.testing.assert_allclose(doubled[4], 1.5 * start, rtol=1e-4)
    zero = jnp.zeros(7)
    np.testing.assert_allclose(paths.spherical(zero, start, 9)[4], start / 2, rtol=1e-6)
    np.testing.assert_array_equal(paths.spherical(zero, zero, 9), np.zeros((9, 7)))
    line = paths.spherical(jnp.array([1.0]), jnp.array([-1.0]), 3)
    assert np.all(np.isfinite(line))


def test_traversals_move_one_component_each():
    z, values = ends()[0], jnp.array([-2.0, 0.0, 5.0])
    found = np.asarray(paths.traversals(z, values))
    assert found.shape == (7, 3, 7)
    for d in range(7):
        for t in range(3):
            expected = np.array(z)
            expected[d] = values[t]
            np.testing.assert_array_equal(found[d, t], expected)
    np.testing.assert_array_equal(paths.traversals(z, values, relative=True)[:, 1], [z] * 7)


@pytest.mark.parametrize("relative", [False, True])
def test_blocks_cover_every_component_once(relative):
    z, values = ends()[0], jnp.array([1.0, 20.0])
    found = np.asarray(paths.block_traversals(z, values, 3, relative))
    z, values = np.asarray(z), np.asarray(values)
    assert found.shape == (3, 2, 7)
    np.testing.assert_array_equal(np.sum(found[:, 1] != z[None, :], axis=0), np.ones(7))
    expected = values[1] + z[6] if relative else values[1]
    np.testing.assert_array_equal(found[2, 1], [*z[:6], expected])


def attributes(count=4000, seed=0):
    """Codes with a known effect of two attributes that often occur together."""
    rng = np.random.default_rng(seed)
    first = rng.uniform(size=count) < 0.5
    second = np.where(first, rng.uniform(size=count) < 0.9, rng.uniform(size=count) < 0.2)
    labels = np.stack([first, second], axis=1).astype(np.uint8)
    effects = np.array([[1.0, 0.0, -2.0], [0.0, 3.0, 1.0]])
    z = labels @ effects + 5 + 0.1 * rng.normal(size=(count, 3))
    return z.astype(np.float32), labels, effects


def test_attribute_vectors_are_differences_of_means():
    z, labels, effects = attributes()
    found = paths.attribute_vectors(z, labels)
    for a in range(2):
        expected = z[labels[:, a] == 1].mean(axis=0) - z[labels[:, a] == 0].mean(axis=0)
        np.testing.assert_allclose(found[a], expected, atol=1e-4)
    assert abs(found[0, 1]) > 1  # The second attribute leaks into the first,
    joint = paths.attribute_vectors(z, labels, joint=True)  # and joint fitting removes it.
    np.testing.assert_allclose(joint, effects, atol=0.03)
    assert found.dtype == np.float32


def test_one_attribute_alone():
    z, labels, _ = attributes(200)
    alone = paths.attribute_vectors(z, labels[:, 0])
    assert alone.shape == (3,)
    np.testing.assert_allclose(alone, paths.attribute_vectors(z, labels)[0], rtol=1e-6)
    joint = paths.attribute_vectors(z, labels[:, 0], joint=True)
    np.testing.assert_allclose(alone, joint, rtol=1e-4, atol=1e-5)


def test_bad_attributes_are_refused():
    z, labels, _ = attributes(50)
    with pytest.raises(UserError, match="same for all 50"):
        paths.attribute_vectors(z, np.ones(50))
    with pytest.raises(UserError, match="0 or 1"):
        paths.attribute_vectors(z, 2 * labels)
    with pytest.raises(ValueError, match="Expected"):
        paths.attribute_vectors(z, labels[:10])


def test_shift_adds_and_takes_back():
    z = jnp.asarray(attributes(10)[0])
    vector = jnp.array([1.0, -2.0, 0.5])
    np.testing.assert_allclose(paths.shift(z, vector, 2.0), z + jnp.tile(2 * vector, (10, 1)))
    np.testing.assert_allclose(paths.shift(paths.shift(z[0], vector, 1.5), vector, -1.5), z[0])
    with pytest.raises(ValueError, match=r"\[Z\]"):
        paths.shift(z, vector[:2], 1.0)


def test_smoothness_of_a_cross_fade_and_of_a_jump():
    t = jnp.linspace(0, 1, 6)[:, None, None, None]
    image = jnp.asarray(np.random.default_rng(0).uniform(size=(1, 4, 4, 3)), jnp.float32)
    fade = path_study.smoothness((1 - t) * image + t * (1 - image))
    total = np.sqrt(np.mean((1 - 2 * image) ** 2))
    np.testing.assert_allclose(fade, [total / 5, total / 5, 1.0, 0.0], atol=1e-5)
    jump = path_study.smoothness(jnp.where(t < 0.5, image, 1 - image))
    np.testing.assert_allclose(jump[:3], [total / 5, total, 1.0], rtol=1e-5)
    # One step d in five: second differences d, -d in four, so the ratio is sqrt((2/4) / (1/5)).
    assert jump.second_difference == pytest.approx(np.sqrt(2.5), rel=1e-5)


def test_smoothness_of_flicker_and_of_unrelated_images():
    flicker = jnp.tile(jnp.array([0.0, 1.0]), 20)[:, None, None, None] * jnp.ones((1, 3, 3, 1))
    assert path_study.smoothness(flicker).second_difference == pytest.approx(2)
    noise = np.random.default_rng(1).normal(size=(60, 12, 12, 3)).astype(np.float32)
    found = path_study.smoothness(jnp.asarray(noise))
    assert found.second_difference == pytest.approx(np.sqrt(3), rel=0.02)
    steps = [np.sqrt(np.mean((a - b) ** 2)) for a, b in zip(noise, noise[1:], strict=False)]
    expected = sum(steps) / np.sqrt(np.mean((noise[0] - noise[-1]) ** 2))
    assert found.path_length == pytest.approx(expected, rel=1e-5)
    with pytest.raises(UserError, match="at least 3"):
        path_study.smoothness(flicker[:2])


def test_even_grid():
    grid = paths.manifold_grid(3, 2.0)
    expected = [(x, y) for y in (2, 0, -2) for x in (-2, 0, 2)]
    np.testing.assert_allclose(grid, expected)


def test_quantile_grid_has_cells_of_equal_probability():
    grid = np.asarray(paths.quantile_grid(5)).reshape(5, 5, 2)
    expected = stats.norm.ppf([0.1, 0.3, 0.5, 0.7, 0.9])
    np.testing.assert_allclose(grid[0, :, 0], expected, atol=1e-5)
    np.testing.assert_allclose(grid[:, 0, 1], expected[::-1], atol=1e-5)


def test_short_paths_and_uneven_ends_are_refused():
    start, end = ends()
    with pytest.raises(UserError, match="at least 2"):
        paths.linear(start, end, 1)
    with pytest.raises(ValueError, match="share a shape"):
        paths.spherical(start, end[:3], 4)
    with pytest.raises(UserError, match="at least 1 component"):
        paths.block_traversals(start, end, 0)
