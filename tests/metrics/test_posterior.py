"""Statistics of the aggregate posterior against closed forms and scipy."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from vae_jax.metrics import posterior as post
from vae_jax.types import UserError

KEY = jax.random.key(0)


def codes(count=2100, z_dim=5, seed=0):
    rng = np.random.default_rng(seed)
    scales = np.linspace(0.02, 1.0, z_dim)[None, :]
    mean = 0.3 + scales * rng.normal(size=(count, z_dim))
    return mean.astype(np.float32), rng.uniform(-3, 0.5, size=(count, z_dim)).astype(np.float32)


def test_kl_agrees_with_numerical_integration():
    mean, log_var = np.array([[0.7, -1.0]] * 2), np.array([[-1.2, 0.4]] * 2)
    grid = np.linspace(-12, 12, 200001)
    for d, found in enumerate(post.kl_per_dimension(mean, log_var)):
        q = stats.norm(mean[0, d], np.exp(log_var[0, d] / 2))
        integrand = q.pdf(grid) * (q.logpdf(grid) - stats.norm.logpdf(grid))
        assert found == pytest.approx(np.trapezoid(integrand, grid), rel=1e-8)


def test_kl_keeps_its_digits_near_the_prior():
    tiny = np.full((3, 1), 1e-6)
    found = post.kl_per_dimension(np.zeros((3, 1)), tiny)
    assert found[0] == pytest.approx(0.25e-12, rel=1e-4)


def test_active_units():
    scales = np.array([0.05, 0.0999, 0.1001, 1.0])
    unit = np.array([1.0, -1.0] * 50)
    mean = 7 + unit[:, None] * scales[None, :] * np.sqrt(99 / 100)
    mask, count = post.active_units(mean)
    assert mask.tolist() == [False, False, True, True] and count == 2
    assert post.active_units(mean, threshold=1e-3).number == 4


def test_moments_are_those_of_many_draws():
    mean, log_var = codes(2000, 3)
    offset, mean_covariance, covariance = post.moments(mean, log_var)
    draws = np.concatenate(
        [post.sample(mean, log_var, jax.random.fold_in(KEY, i)) for i in range(20)]
    )
    np.testing.assert_allclose(offset, draws.mean(axis=0), atol=0.02)
    np.testing.assert_allclose(covariance, np.cov(draws.T), atol=0.02)
    np.testing.assert_allclose(mean_covariance, np.cov(mean.T.astype(np.float64)), rtol=1e-9)
    eigenvalues = post.spectrum(covariance)
    assert np.all(np.diff(eigenvalues) <= 0)
    assert eigenvalues.sum() == pytest.approx(np.trace(covariance))
    assert np.prod(eigenvalues) == pytest.approx(np.linalg.det(covariance))


def test_sample_rows_depend_on_key_and_index_alone():
    mean, log_var = (jnp.asarray(part) for part in codes(20))
    np.testing.assert_array_equal(
        post.sample(mean, log_var, KEY)[:6], post.sample(mean[:6], log_var[:6], KEY)
    )
    unit = (post.sample(mean, log_var, KEY) - mean) / jnp.exp(log_var / 2)
    assert stats.kstest(np.asarray(unit).reshape(-1), "norm").pvalue > 0.001


def test_skewness_and_kurtosis_agree_with_scipy():
    points = np.random.default_rng(1).gamma(2.0, size=(500, 3))
    skewness, kurtosis = post.skewness_kurtosis(points)
    np.testing.assert_allclose(skewness, stats.skew(points), rtol=1e-10)
    np.testing.assert_allclose(kurtosis, stats.kurtosis(points), rtol=1e-10)
    constant = post.skewness_kurtosis(np.ones((5, 2)))
    np.testing.assert_array_equal(constant, np.zeros((2, 2)))


def test_summary_of_the_prior():
    mean, log_var = np.zeros((2100, 5), np.float32), np.zeros((2100, 5), np.float32)
    result = post.summary(mean, log_var, KEY)
    assert result == json.loads(json.dumps(result))
    assert result["kl"] == 0 and result["active_units"] == 0 and result["offset_norm"] == 0
    assert result["radius"]["mean"] == pytest.approx(result["radius_prior"]["mean"], rel=0.02)
    assert result["radius"]["ks_distance"] < 0.03
    assert result["radius_of_means"]["ks_distance"] == pytest.approx(1)
    np.testing.assert_allclose(result["spectrum"], 1)
    np.testing.assert_allclose(result["spectrum_of_means"], 0)
    np.testing.assert_allclose(
        result["mahalanobis"]["observed"], result["mahalanobis"]["chi_square"], rtol=0.1
    )
    assert abs(result["mmd"]) < 0.01 and result["mmd_points"] == 2048
    np.testing.assert_allclose(list(result["kl_decomposition"].values()), 0, atol=1e-4)
    np.testing.assert_allclose(result["skewness"], 0, atol=0.2)
    np.testing.assert_allclose(result["excess_kurtosis"], 0, atol=0.4)


def test_summary_of_an_off_centre_ellipsoid():
    mean, log_var = codes()
    result = post.summary(mean, log_var, KEY)
    assert result == post.summary(mean, log_var, KEY)
    assert result["images"] == 2100 and result["z_dim"] == 5
    assert result["kl"] == pytest.approx(sum(result["kl_per_dimension"]))
    assert result["active_units"] == sum(result["active_mask"]) == 4
    assert result["offset_norm"] == pytest.approx(0.3 * np.sqrt(5), rel=0.1)
    total = np.sum(result["variance_of_means"]) + np.sum(result["mean_variance"])
    assert sum(result["spectrum"]) == pytest.approx(total)
    assert result["mmd"] > 0.05


def test_order_of_the_images_does_not_matter():
    mean, log_var = codes()
    order = np.random.default_rng(2).permutation(len(mean))
    for a, b in zip(
        post.moments(mean, log_var), post.moments(mean[order], log_var[order]), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-14)


def test_bad_codes_are_refused():
    mean, log_var = codes(4)
    with pytest.raises(ValueError, match="must share"):
        post.moments(mean, log_var[:, :2])
    with pytest.raises(UserError, match="NaN"):
        post.summary(np.full_like(mean, np.nan), log_var, KEY)
    with pytest.raises(UserError, match="two images"):
        post.kl_per_dimension(mean[:1], log_var[:1])
