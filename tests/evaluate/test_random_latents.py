"""The rows of random points, and what is measured of them."""

import jax
import numpy as np

from vae_jax.evaluate.random_latents import CUBE, ORTHANT, SPHERE, fitted_rows, reference_rows


def test_rows_are_what_their_names_say():
    z_dim, count = 200, 100
    rows = reference_rows(jax.random.key(0), count, z_dim)
    kinds = [row.kind for row in rows]
    assert kinds.count("orthant") == 9 and kinds.count("normal") == 1
    assert ORTHANT == (0.5, 2.5, 5, 8, 10, 15, 20, 30, 50)
    by_kind = {kind: [row.z for row in rows if row.kind == kind] for kind in set(kinds)}
    for b, z in zip(ORTHANT, by_kind["orthant"], strict=True):
        assert z.shape == (count, z_dim) and z.min() >= 0 and z.max() <= b
        np.testing.assert_allclose(z.mean(), b / 2, rtol=0.02)
        # The radius of the reference test: b sqrt(Z / 3).
        np.testing.assert_allclose(
            np.linalg.norm(z, axis=1).mean(), b * (200 / 3) ** 0.5, rtol=0.02
        )
    for b, z in zip(CUBE, by_kind["cube"], strict=True):
        assert z.min() < -0.99 * b and 0.99 * b < z.max() <= b
        assert abs(z.mean()) < 0.02 * b
    for factor, z in zip(SPHERE, by_kind["sphere"], strict=True):
        np.testing.assert_allclose(np.linalg.norm(z, axis=1), factor * 200**0.5, rtol=1e-5)
    radii = np.linalg.norm(by_kind["normal"][0], axis=1)
    assert abs(radii.mean() - 14.1) < 0.3 and abs(radii.std() - 0.7) < 0.2


def test_more_points_keep_the_first_ones():
    few, many = (reference_rows(jax.random.key(1), n, 6) for n in (5, 9))
    for a, b in zip(few, many, strict=True):
        np.testing.assert_array_equal(a.z, b.z[:5])


def test_fitted_densities_have_the_aggregate_posteriors_moments():
    rng = np.random.default_rng(0)
    mixing = np.array([[2.0, 0, 0], [1, 0.5, 0], [0, 0, 1]])
    mean = (rng.normal(size=(600, 3)) @ mixing.T + [5, 0, -1]).astype(np.float32)
    log_var = np.full((600, 3), np.log(0.25), np.float32)
    rows, held_out = fitted_rows(jax.random.key(2), 4000, mean, log_var)
    wanted = np.cov(mean, rowvar=False) + 0.25 * np.eye(3)
    for row in rows:
        np.testing.assert_allclose(row.z.mean(axis=0), mean.mean(axis=0), atol=0.15)
        np.testing.assert_allclose(np.cov(row.z, rowvar=False), wanted, atol=0.4)
    assert set(held_out) == {1, 2, 5, 10} and "mixture, k = " in rows[1].name
