"""Samplers against their laws, the fitted Gaussian against scipy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from vae_jax.metrics import densities as den
from vae_jax.types import UserError

KEY = jax.random.key(5)
SAMPLERS = {
    "orthant": lambda key, n: den.uniform_orthant(key, n, 6, 2.5),
    "cube": lambda key, n: den.uniform_cube(key, n, 6, 2.5),
    "normal": lambda key, n: den.normal(key, n, 6),
    "sphere": lambda key, n: den.sphere(key, n, 6, 2.5),
    "gaussian": lambda key, n: den.gaussian_sample(correlated(), key, n),
}


def correlated(z_dim: int = 6) -> den.Gaussian:
    rng = np.random.default_rng(1)
    cholesky = np.tril(rng.normal(size=(z_dim, z_dim))) + 2 * np.eye(z_dim)
    return den.Gaussian(*(jnp.asarray(a, jnp.float32) for a in (np.arange(z_dim), cholesky)))


@pytest.mark.parametrize("name", SAMPLERS)
def test_row_depends_on_key_and_index_alone(name):
    sampler = SAMPLERS[name]
    many, few = sampler(KEY, 50), sampler(KEY, 7)
    assert many.shape == (50, 6)
    np.testing.assert_array_equal(many[:7], few)
    np.testing.assert_array_equal(many, sampler(KEY, 50))
    assert not np.any(np.all(np.diff(many, axis=0) == 0, axis=1))
    assert np.all(many[0] != sampler(jax.random.key(6), 50)[0])


@pytest.mark.parametrize(
    ("name", "law"),
    [
        ("orthant", stats.uniform(0, 2.5)),
        ("cube", stats.uniform(-2.5, 5)),
        ("normal", stats.norm()),
    ],
)
def test_components_follow_the_law(name, law):
    points = np.asarray(SAMPLERS[name](KEY, 4000), np.float64)
    assert stats.kstest(points.reshape(-1), law.cdf).pvalue > 0.001
    np.testing.assert_allclose(np.corrcoef(points.T), np.eye(6), atol=0.06)


def test_sphere_has_one_radius_and_no_preferred_direction():
    points = np.asarray(SAMPLERS["sphere"](KEY, 4000), np.float64)
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 2.5, rtol=1e-5)
    np.testing.assert_allclose(points.mean(axis=0), 0, atol=0.06)
    np.testing.assert_allclose(points.T @ points / 4000, np.eye(6) * 2.5**2 / 6, atol=0.08)


def test_radius_may_be_traced():
    batch = jax.vmap(lambda r: den.sphere(KEY, 3, 4, r))(jnp.array([1.0, 2.0]))
    np.testing.assert_allclose(batch[1], 2 * batch[0], rtol=1e-6)


def test_log_density_agrees_with_scipy():
    gaussian = correlated()
    points = np.random.default_rng(2).normal(size=(20, 6)).astype(np.float32) * 3
    mean, cholesky = (np.asarray(a, np.float64) for a in gaussian)
    expected = stats.multivariate_normal(mean, cholesky @ cholesky.T).logpdf(points)
    np.testing.assert_allclose(
        den.gaussian_log_prob(gaussian, jnp.asarray(points)), expected, rtol=1e-5
    )


def test_fit_is_the_maximum_likelihood_gaussian():
    points = np.asarray(den.gaussian_sample(correlated(), KEY, 3000))
    fitted = den.fit_gaussian(points, regularisation=0)
    np.testing.assert_allclose(fitted.mean, points.mean(axis=0), rtol=1e-4, atol=1e-5)
    covariance = np.cov(points, rowvar=False, ddof=0)
    np.testing.assert_allclose(fitted.cholesky @ fitted.cholesky.T, covariance, atol=1e-4)
    assert np.all(np.triu(fitted.cholesky, 1) == 0)
    best = jnp.mean(den.gaussian_log_prob(fitted, points))
    assert best > jnp.mean(den.gaussian_log_prob(correlated(), points))


def test_samples_have_the_moments_of_the_density():
    gaussian = correlated()
    points = np.asarray(den.gaussian_sample(gaussian, KEY, 20000), np.float64)
    covariance = np.asarray(gaussian.cholesky @ gaussian.cholesky.T)
    np.testing.assert_allclose(points.mean(axis=0), gaussian.mean, atol=0.1)
    np.testing.assert_allclose(np.cov(points, rowvar=False), covariance, atol=0.5)


def test_fit_moves_with_the_points():
    points = np.random.default_rng(3).normal(size=(200, 4))
    with jax.enable_x64(True):
        plain = den.fit_gaussian(points)
        moved = den.fit_gaussian(5 * points - 3)
        assert plain.mean.dtype == jnp.float64
        np.testing.assert_allclose(moved.mean, 5 * plain.mean - 3, rtol=1e-12)
        np.testing.assert_allclose(moved.cholesky, 5 * plain.cholesky, rtol=1e-9, atol=1e-12)


def test_dead_and_surplus_dimensions_stay_invertible():
    points = np.random.default_rng(4).normal(size=(5, 8)).astype(np.float32)
    points[:, 3] = 0.25
    fitted = den.fit_gaussian(points)
    assert np.all(np.isfinite(den.gaussian_log_prob(fitted, points)))
    drawn = den.gaussian_sample(fitted, KEY, 30)
    np.testing.assert_allclose(drawn[:, 3], 0.25, atol=0.02)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.zeros((1, 3)), "at least two points"),
        (np.zeros(3), "at least two points"),
        (np.full((4, 3), np.inf), "NaN or infinite"),
        (np.ones((4, 3)), "collapsed"),
    ],
)
def test_bad_points_are_refused(points, message):
    with pytest.raises(UserError, match=message):
        den.fit_gaussian(points)
