"""Statistics of the aggregate posterior against closed forms and scipy."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from vae_jax.metrics import feature_distances
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
    assert post.active_units(mean).tolist() == [False, False, True, True]


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
    assert result["mmd"] != result["mmd_floor"] and abs(result["mmd_floor"]) < 0.01
    parts = result["kl_decomposition"]
    assert parts.pop("mutual_information_bound") == pytest.approx(np.log(2100))
    np.testing.assert_allclose(list(parts.values()), 0, atol=1e-4)
    np.testing.assert_allclose(result["skewness"], 0, atol=0.2)
    np.testing.assert_allclose(result["excess_kurtosis"], 0, atol=0.4)


def test_summary_of_an_off_centre_ellipsoid():
    mean, log_var = codes()
    result = post.summary(mean, log_var, KEY)
    assert result == post.summary(mean, log_var, KEY)
    assert result["images"] == 2100 and result["z_dim"] == 5
    assert result["kl"] == pytest.approx(sum(result["kl_per_dimension"]))
    each = 0.5 * np.sum(mean**2 + np.exp(log_var) - 1 - log_var, axis=1)
    assert result["kl_standard_error"] == pytest.approx(each.std(ddof=1) / 2100**0.5, rel=1e-4)
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


@pytest.mark.parametrize(
    ("r", "z_dim"),
    [(0.5, 1), (1.0, 2), (1.0, 200), (14.0, 200), (30.0, 200), (3.0, 12), (60.0, 2)],
)
def test_log_probability_agrees_with_scipy(r, z_dim):
    expected = stats.chi(z_dim).logcdf(r) / np.log(10)
    assert post.log10_probability_within(r, z_dim) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_log_probability_in_two_dimensions_has_a_closed_form():
    for r in (1e-3, 0.1, 1.0, 4.0):
        expected = np.log10(-np.expm1(-(r**2) / 2))
        assert post.log10_probability_within(r, 2) == pytest.approx(expected, rel=1e-10)


def test_log_probability_where_the_probability_underflows():
    # The first terms of the series: the next one is 1e-12 of them.
    a, x = 600.0, 0.5
    terms = 1 + x / (a + 1) + x**2 / ((a + 1) * (a + 2)) + x**3 / ((a + 1) * (a + 2) * (a + 3))
    expected = (a * np.log(x) - x - special.gammaln(a + 1) + np.log(terms)) / np.log(10)
    assert post.log10_probability_within(1.0, 1200) == pytest.approx(expected, rel=1e-12)
    assert expected < -1500


def test_distance_agrees_with_scipy():
    rng = np.random.default_rng(0)
    for scale in (1.0, 1.2):
        points = scale * rng.normal(size=(300, 8))
        expected = stats.kstest(np.linalg.norm(points, axis=1), stats.chi(8).cdf).statistic
        assert post.radius_summary(points)["ks_distance"] == pytest.approx(expected, abs=1e-5)


def test_mahalanobis_is_straight_for_any_gaussian_and_bent_for_heavy_tails():
    rng = np.random.default_rng(1)
    points = rng.normal(size=(8000, 5)) @ rng.normal(size=(5, 5)) + 40
    probabilities = np.array([0.05, 0.5, 0.95])
    result = post.mahalanobis_quantiles(points, probabilities)
    np.testing.assert_allclose(result["observed"], result["chi_square"], rtol=0.04)
    moved = post.mahalanobis_quantiles(points @ rng.normal(size=(5, 5)) - 3, probabilities)
    np.testing.assert_allclose(moved["observed"], result["observed"], rtol=1e-6)
    heavy = post.mahalanobis_quantiles(rng.standard_t(3, size=(8000, 5)), probabilities)
    assert heavy["observed"][2] > 1.1 * heavy["chi_square"][2]


def test_mahalanobis_leaves_out_directions_without_variance():
    points = np.random.default_rng(2).normal(size=(6000, 3))
    flat = np.concatenate([points, points[:, :1] + points[:, 1:2], np.ones((6000, 1))], axis=1)
    probabilities = np.array([0.1, 0.5, 0.9])
    expected = post.mahalanobis_quantiles(points, probabilities)
    found = post.mahalanobis_quantiles(flat, probabilities)
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-6)


PARTS = ("mutual_information", "total_correlation", "dimension_kl")


def spread_codes(count, z_dim, spread, log_var, seed=0):
    rng = np.random.default_rng(seed)
    mean = spread * rng.normal(size=(count, z_dim))
    return mean.astype(np.float32), np.full((count, z_dim), log_var, np.float32)


@pytest.mark.parametrize("rows", [12, 30])
def test_aggregate_agrees_with_a_loop(rows):
    mean, log_var = spread_codes(30, 3, 1.0, -0.7)
    mean, log_var = mean[:rows], log_var[:rows]
    z = mean + 0.3
    own, other = -np.log(30), np.log(29 / (30 * (rows - 1)))
    joint, marginals = jax.jit(post._log_aggregate)(z, mean, log_var, own, other)
    for i in range(rows):
        weights = np.where(np.arange(rows) == i, own, other)
        each = stats.norm(mean, np.exp(log_var / 2)).logpdf(z[i][None, :])
        assert joint[i] == pytest.approx(special.logsumexp(weights + each.sum(axis=1)), rel=1e-4)
        by_dimension = [special.logsumexp(weights + each[:, d]) for d in range(3)]
        assert marginals[i] == pytest.approx(sum(by_dimension), rel=1e-4)


def test_terms_add_up_to_the_kl():
    mean, log_var = spread_codes(1000, 2, 0.8, -1.0)
    result = post.kl_decomposition(mean, log_var, KEY, batch=1000)
    kl = 0.5 * np.sum(mean**2 + np.exp(log_var) - 1 - log_var, axis=1).mean()
    error = np.linalg.norm([result[f"{name}_standard_error"] for name in PARTS])
    assert sum(result[name] for name in PARTS) == pytest.approx(kl, abs=4 * error)
    assert error < 0.1
    assert result == post.kl_decomposition(mean, log_var, KEY, batch=1000)


def test_a_collapsed_posterior_has_no_terms():
    mean, log_var = spread_codes(40, 3, 0.0, 0.0)
    for rows in (10, 40):
        result = post.kl_decomposition(mean, log_var, KEY, batch=rows)
        np.testing.assert_allclose([result[name] for name in PARTS], 0, atol=2e-5)


def test_total_correlation_of_correlated_means_has_a_closed_form():
    rng = np.random.default_rng(1)
    shared = rng.normal(size=(1000, 1))
    mean = np.concatenate([shared, shared], axis=1).astype(np.float32)
    log_var = np.full_like(mean, np.log(0.5))
    # q(z) is close to a Gaussian with variances 1.5 and covariance 1.
    expected = -0.5 * np.log(1 - (1 / 1.5) ** 2)
    for rows in (1000, 400):
        found = post.kl_decomposition(mean, log_var, KEY, batch=rows)
        error = found["total_correlation_standard_error"]
        assert found["total_correlation"] == pytest.approx(expected, abs=4 * error)
        assert 0.4 < error * rows**0.5 < 1.2


def test_separate_posteriors_carry_log_n_nats():
    mean, log_var = spread_codes(40, 3, 1000.0, 0.0)
    result = post.kl_decomposition(mean, log_var, KEY)
    assert result["mutual_information"] == pytest.approx(np.log(40), abs=0.02)
    assert result["mutual_information_bound"] == np.log(40)


@pytest.mark.parametrize("chunk", [5, 1024])
def test_mmd_agrees_with_a_loop(chunk, monkeypatch):
    monkeypatch.setattr(feature_distances, "CHUNK", chunk)
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(12, 3)), rng.normal(0.5, 1, size=(9, 3))

    def kernel(a, b):
        return sum(6 * s / (6 * s + np.sum((a - b) ** 2)) for s in post.IMQ_SCALES)

    within_x = np.mean([kernel(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j])
    within_y = np.mean([kernel(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j])
    across = np.mean([kernel(a, b) for a in x for b in y])
    assert post.mmd_imq(x, y) == pytest.approx(within_x + within_y - 2 * across, rel=1e-10)
    assert post.mmd_imq(y, x) == pytest.approx(post.mmd_imq(x, y), rel=1e-10)


def test_mmd_is_unbiased_and_grows_with_the_offset():
    rng = np.random.default_rng(4)
    same = [post.mmd_imq(rng.normal(size=(40, 4)), rng.normal(size=(40, 4))) for _ in range(100)]
    error = np.std(same) / 10
    assert abs(np.mean(same)) < 4 * error and min(same) < 0
    offsets = [
        post.mmd_imq(rng.normal(o, 1, (200, 4)), rng.normal(size=(200, 4))) for o in (0.5, 2)
    ]
    assert offsets[1] > offsets[0] > 10 * error
    far = post.mmd_imq(np.zeros((5, 4)), np.full((5, 4), 1e8))
    assert far == pytest.approx(14)


def test_bad_sets_are_refused():
    mean, log_var = spread_codes(4, 2, 1.0, 0.0)
    with pytest.raises(UserError, match="two images"):
        post.kl_decomposition(mean[:1], log_var[:1], KEY)
    with pytest.raises(ValueError, match=r"\[N, Z\]"):
        post.mmd_imq(mean, mean[:, :1])
    with pytest.raises(UserError, match="two points"):
        post.mmd_imq(mean, jnp.zeros((1, 2)))
