"""The chi law against scipy."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from vae_jax.metrics import radius


@pytest.mark.parametrize("z_dim", [1, 2, 12, 200, 1200])
def test_chi_law_agrees_with_scipy(z_dim):
    law = stats.chi(z_dim)
    mean, std = radius.chi_moments(z_dim)
    assert mean == pytest.approx(law.mean(), rel=1e-10)
    assert std == pytest.approx(law.std(), rel=1e-7)
    radii = np.linspace(max(0.1, mean - 3), mean + 3, 40)
    np.testing.assert_allclose(radius.chi_cdf(radii, z_dim), law.cdf(radii), atol=2e-4)


def test_radius_in_200_dimensions():
    mean, std = radius.chi_moments(200)
    assert mean == pytest.approx(14.12, abs=0.01) and std == pytest.approx(0.71, abs=0.01)
    assert radius.log10_probability_within(1.0, 200) == pytest.approx(-188.29, abs=0.01)


@pytest.mark.parametrize(
    ("r", "z_dim"),
    [(0.5, 1), (1.0, 2), (1.0, 200), (14.0, 200), (30.0, 200), (3.0, 12), (60.0, 2)],
)
def test_log_probability_agrees_with_scipy(r, z_dim):
    expected = stats.chi(z_dim).logcdf(r) / np.log(10)
    assert radius.log10_probability_within(r, z_dim) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_log_probability_in_two_dimensions_has_a_closed_form():
    for r in (1e-3, 0.1, 1.0, 4.0):
        expected = np.log10(-np.expm1(-(r**2) / 2))
        assert radius.log10_probability_within(r, 2) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("z_dim", [1, 12, 256])
def test_quantiles_agree_with_scipy(z_dim):
    probabilities = np.array([0.01, 0.1, 0.5, 0.9, 0.999])
    found = radius.chi_square_quantiles(jnp.asarray(probabilities, jnp.float32), z_dim)
    np.testing.assert_allclose(found, stats.chi2(z_dim).ppf(probabilities), rtol=2e-3)


def test_distance_agrees_with_scipy():
    rng = np.random.default_rng(0)
    for scale in (1.0, 1.2):
        radii = np.linalg.norm(scale * rng.normal(size=(300, 8)), axis=1)
        expected = stats.kstest(radii, stats.chi(8).cdf).statistic
        assert radius.radius_distance(radii, 8) == pytest.approx(expected, abs=1e-5)


def test_mahalanobis_is_straight_for_any_gaussian_and_bent_for_heavy_tails():
    rng = np.random.default_rng(1)
    points = rng.normal(size=(8000, 5)) @ rng.normal(size=(5, 5)) + 40
    probabilities = np.array([0.05, 0.5, 0.95])
    result = radius.mahalanobis_quantiles(points, probabilities)
    np.testing.assert_allclose(result["observed"], result["chi_square"], rtol=0.04)
    moved = radius.mahalanobis_quantiles(points @ rng.normal(size=(5, 5)) - 3, probabilities)
    np.testing.assert_allclose(moved["observed"], result["observed"], rtol=1e-6)
    heavy = radius.mahalanobis_quantiles(rng.standard_t(3, size=(8000, 5)), probabilities)
    assert heavy["observed"][2] > 1.1 * heavy["chi_square"][2]


def test_mahalanobis_leaves_out_directions_without_variance():
    points = np.random.default_rng(2).normal(size=(6000, 3))
    flat = np.concatenate([points, points[:, :1] + points[:, 1:2], np.ones((6000, 1))], axis=1)
    probabilities = np.array([0.1, 0.5, 0.9])
    expected = radius.mahalanobis_quantiles(points, probabilities)
    found = radius.mahalanobis_quantiles(flat, probabilities)
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-6)
