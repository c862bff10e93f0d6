"""Samplers against their laws, fitted densities against scipy and plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from vae_jax.metrics import densities as den
from vae_jax.types import UserError

KEY = jax.random.key(5)
SAMPLERS = {
    "orthant": lambda key, n: den.uniform(key, n, 6, 2.5, 0.0),
    "cube": lambda key, n: den.uniform(key, n, 6, 2.5, -1.0),
    "normal": lambda key, n: den.normal(key, n, 6),
    "sphere": lambda key, n: den.sphere(key, n, 6, 2.5),
    "gaussian": lambda key, n: den.sample(correlated(), key, n),
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
    points = np.asarray(den.sample(correlated(), KEY, 3000))
    fitted = den.fit_gaussian(points, regularisation=0)
    np.testing.assert_allclose(fitted.mean, points.mean(axis=0), rtol=1e-4, atol=1e-5)
    covariance = np.cov(points, rowvar=False, ddof=0)
    np.testing.assert_allclose(fitted.cholesky @ fitted.cholesky.T, covariance, atol=1e-4)
    assert np.all(np.triu(fitted.cholesky, 1) == 0)
    best = jnp.mean(den.gaussian_log_prob(fitted, points))
    assert best > jnp.mean(den.gaussian_log_prob(correlated(), points))


def test_samples_have_the_moments_of_the_density():
    gaussian = correlated()
    points = np.asarray(den.sample(gaussian, KEY, 20000), np.float64)
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
    drawn = den.sample(fitted, KEY, 30)
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


MIXTURE_KEY = jax.random.key(11)
WEIGHTS = np.array([0.5, 0.3, 0.2])
MEANS = np.array([[0.0, 0.0], [10.0, 2.0], [-4.0, 9.0]])
FACTORS = np.array([[[1.0, 0], [0.5, 1]], [[2.0, 0], [-1.0, 0.5]], [[0.5, 0], [0, 0.5]]])


def truth() -> den.Mixture:
    parts = (np.log(WEIGHTS), MEANS, FACTORS)
    return den.Mixture(*(jnp.asarray(part, jnp.float32) for part in parts))


def draw(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    groups = rng.choice(3, size=count, p=WEIGHTS)
    noise = rng.normal(size=(count, 2))
    return (MEANS[groups] + np.einsum("nij,nj->ni", FACTORS[groups], noise)).astype(np.float32)


def test_log_density_of_a_mixture_agrees_with_scipy():
    points = draw(50)
    parts = [
        np.log(w) + stats.multivariate_normal(m, f @ f.T).logpdf(points)
        for w, m, f in zip(WEIGHTS, MEANS, FACTORS, strict=True)
    ]
    expected = special.logsumexp(parts, axis=0)
    np.testing.assert_allclose(den.mixture_log_prob(truth(), points), expected, rtol=1e-4)


def test_parameters_are_recovered():
    points = draw(1600)
    fitted = den.fit_mixture(points, 3, MIXTURE_KEY)
    order = np.argsort(-np.exp(fitted.log_weights))
    np.testing.assert_allclose(np.exp(fitted.log_weights)[order], WEIGHTS, atol=0.03)
    np.testing.assert_allclose(fitted.means[order], MEANS, atol=0.2)
    covariances = np.asarray(fitted.choleskys @ fitted.choleskys.transpose(0, 2, 1))[order]
    np.testing.assert_allclose(covariances, FACTORS @ FACTORS.transpose(0, 2, 1), atol=0.4)
    assert np.mean(den.mixture_log_prob(fitted, points)) > np.mean(
        den.mixture_log_prob(truth(), points)
    )


def test_an_update_agrees_with_a_plain_loop():
    points = draw(200).astype(np.float64)
    shares = np.random.default_rng(1).dirichlet(np.ones(3), size=200).T
    with jax.enable_x64(True):
        updated = den._update(jnp.asarray(points), jnp.asarray(shares), 0.01)
        factors = np.asarray(updated.choleskys)
    for k in range(3):
        share = shares[k] / shares[k].sum()
        mean = share @ points
        covariance = sum(
            s * np.outer(p - mean, p - mean) for s, p in zip(share, points, strict=True)
        )
        np.testing.assert_allclose(updated.means[k], mean, rtol=1e-9)
        np.testing.assert_allclose(
            factors[k] @ factors[k].T, covariance + 0.01 * np.eye(2), rtol=1e-9
        )
        assert np.exp(updated.log_weights[k]) == pytest.approx(shares[k].mean())


def test_every_step_raises_the_likelihood():
    points = draw(300).astype(np.float64)
    with jax.enable_x64(True):
        points = jnp.asarray(points)
        scores = [
            float(den._maximise(points, points, MIXTURE_KEY, 3, steps, -1.0, 0.0)[1])
            for steps in (0, 1, 2, 5, 20)
        ]
    assert scores == sorted(scores) and scores[-1] > scores[0]


def test_one_component_is_the_gaussian_fit():
    points = draw(1600)
    fitted = den.fit_mixture(points, 1, MIXTURE_KEY, regularisation=0.0)
    np.testing.assert_allclose(fitted.means[0], points.mean(axis=0), atol=1e-3)
    covariance = fitted.choleskys[0] @ fitted.choleskys[0].T
    np.testing.assert_allclose(covariance, np.cov(points.T, ddof=0), rtol=1e-3)


def test_same_key_same_mixture_and_scale_does_not_matter():
    points = draw(1600)
    first, again = (den.fit_mixture(points, 3, MIXTURE_KEY) for _ in range(2))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    scaled = den.fit_mixture(1000 * points + 7, 3, MIXTURE_KEY)
    np.testing.assert_allclose(scaled.means, 1000 * first.means + 7, rtol=0.01, atol=20)
    gap = den.mixture_log_prob(first, points) - den.mixture_log_prob(scaled, 1000 * points + 7)
    np.testing.assert_allclose(gap, 2 * np.log(1000), atol=0.05)


def test_held_out_likelihood_finds_the_number_of_components():
    choice = den.choose_mixture(draw(2000), MIXTURE_KEY, (1, 3, 6))
    assert choice.components == 3 and len(choice.mixture.means) == 3
    assert choice.held_out[3] > choice.held_out[1] + 0.5
    entropy_rate = -float(np.mean(den.mixture_log_prob(truth(), draw(1600, seed=9))))
    assert -choice.held_out[3] == pytest.approx(entropy_rate, abs=0.15)


def test_samples_follow_the_mixture_row_by_row():
    points = den.sample(truth(), MIXTURE_KEY, 4000)
    np.testing.assert_array_equal(points[:5], den.sample(truth(), MIXTURE_KEY, 5))
    np.testing.assert_allclose(points.mean(axis=0), WEIGHTS @ MEANS, atol=0.3)
    groups = np.argmin(np.linalg.norm(points[:, None] - MEANS[None], axis=2), axis=1)
    np.testing.assert_allclose(np.bincount(groups) / 4000, WEIGHTS, atol=0.03)
    inner = np.asarray(points)[groups == 2]
    np.testing.assert_allclose(np.cov(inner.T), 0.25 * np.eye(2), atol=0.03)


def test_high_dimension_with_a_dead_component_stays_finite():
    points = np.random.default_rng(2).normal(size=(300, 40)).astype(np.float32)
    points[:, 7] = 1.5
    points[150:, 0] += 8
    fitted = den.fit_mixture(points, 2, MIXTURE_KEY)
    assert np.all(np.isfinite(den.mixture_log_prob(fitted, points)))
    assert sorted(np.round(fitted.means[:, 0])) == [0, 8]


def test_bad_requests_are_refused():
    points = draw(10)
    with pytest.raises(UserError, match="1 to 10 components"):
        den.fit_mixture(points, 11, MIXTURE_KEY)
    with pytest.raises(UserError, match="NaN"):
        den.fit_mixture(np.full((4, 2), np.nan), 1, MIXTURE_KEY)
    with pytest.raises(UserError, match="list of sizes"):
        den.choose_mixture(points, MIXTURE_KEY, ())
    with pytest.raises(UserError, match="held-out"):
        den.choose_mixture(points, MIXTURE_KEY, (1,), held_out=0.0)
