"""Gaussian mixtures: recovered parameters, densities against scipy, EM against a plain loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from vae_jax.metrics import mixture as mix
from vae_jax.metrics import mixture_fit as fit
from vae_jax.types import UserError

KEY = jax.random.key(11)
WEIGHTS = np.array([0.5, 0.3, 0.2])
MEANS = np.array([[0.0, 0.0], [10.0, 2.0], [-4.0, 9.0]])
FACTORS = np.array([[[1.0, 0], [0.5, 1]], [[2.0, 0], [-1.0, 0.5]], [[0.5, 0], [0, 0.5]]])


def truth() -> mix.Mixture:
    parts = (np.log(WEIGHTS), MEANS, FACTORS)
    return mix.Mixture(*(jnp.asarray(part, jnp.float32) for part in parts))


def draw(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    groups = rng.choice(3, size=count, p=WEIGHTS)
    noise = rng.normal(size=(count, 2))
    return (MEANS[groups] + np.einsum("nij,nj->ni", FACTORS[groups], noise)).astype(np.float32)


def test_log_density_agrees_with_scipy():
    points = draw(50)
    parts = [
        np.log(w) + stats.multivariate_normal(m, f @ f.T).logpdf(points)
        for w, m, f in zip(WEIGHTS, MEANS, FACTORS, strict=True)
    ]
    expected = special.logsumexp(parts, axis=0)
    np.testing.assert_allclose(mix.mixture_log_prob(truth(), points), expected, rtol=1e-4)


def test_parameters_are_recovered():
    points = draw(1600)
    fitted = fit.fit_mixture(points, 3, KEY)
    order = np.argsort(-np.exp(fitted.log_weights))
    np.testing.assert_allclose(np.exp(fitted.log_weights)[order], WEIGHTS, atol=0.03)
    np.testing.assert_allclose(fitted.means[order], MEANS, atol=0.2)
    covariances = np.asarray(fitted.choleskys @ fitted.choleskys.transpose(0, 2, 1))[order]
    np.testing.assert_allclose(covariances, FACTORS @ FACTORS.transpose(0, 2, 1), atol=0.4)
    assert np.mean(mix.mixture_log_prob(fitted, points)) > np.mean(
        mix.mixture_log_prob(truth(), points)
    )


def test_an_update_agrees_with_a_plain_loop():
    points = draw(200).astype(np.float64)
    shares = np.random.default_rng(1).dirichlet(np.ones(3), size=200).T
    with jax.enable_x64(True):
        updated = fit._update(jnp.asarray(points), jnp.asarray(shares), 0.01)
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
            float(fit._maximise(points, points, KEY, 3, steps, -1.0, 0.0)[1])
            for steps in (0, 1, 2, 5, 20)
        ]
    assert scores == sorted(scores) and scores[-1] > scores[0]


def test_one_component_is_the_gaussian_fit():
    points = draw(1600)
    fitted = fit.fit_mixture(points, 1, KEY, regularisation=0.0)
    np.testing.assert_allclose(fitted.means[0], points.mean(axis=0), atol=1e-3)
    covariance = fitted.choleskys[0] @ fitted.choleskys[0].T
    np.testing.assert_allclose(covariance, np.cov(points.T, ddof=0), rtol=1e-3)


def test_same_key_same_mixture_and_scale_does_not_matter():
    points = draw(1600)
    first, again = (fit.fit_mixture(points, 3, KEY) for _ in range(2))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    scaled = fit.fit_mixture(1000 * points + 7, 3, KEY)
    np.testing.assert_allclose(scaled.means, 1000 * first.means + 7, rtol=0.01, atol=20)
    gap = mix.mixture_log_prob(first, points) - mix.mixture_log_prob(scaled, 1000 * points + 7)
    np.testing.assert_allclose(gap, 2 * np.log(1000), atol=0.05)


def test_held_out_likelihood_finds_the_number_of_components():
    choice = fit.choose_mixture(draw(2000), KEY, (1, 3, 6), restarts=1)
    assert choice.components == 3 and len(choice.mixture.means) == 3
    assert choice.held_out[3] > choice.held_out[1] + 0.5
    entropy_rate = -float(np.mean(mix.mixture_log_prob(truth(), draw(1600, seed=9))))
    assert -choice.held_out[3] == pytest.approx(entropy_rate, abs=0.15)


def test_samples_follow_the_mixture_row_by_row():
    points = mix.mixture_sample(truth(), KEY, 4000)
    np.testing.assert_array_equal(points[:5], mix.mixture_sample(truth(), KEY, 5))
    np.testing.assert_allclose(points.mean(axis=0), WEIGHTS @ MEANS, atol=0.3)
    groups = np.argmin(np.linalg.norm(points[:, None] - MEANS[None], axis=2), axis=1)
    np.testing.assert_allclose(np.bincount(groups) / 4000, WEIGHTS, atol=0.03)
    inner = np.asarray(points)[groups == 2]
    np.testing.assert_allclose(np.cov(inner.T), 0.25 * np.eye(2), atol=0.03)


def test_high_dimension_with_a_dead_component_stays_finite():
    points = np.random.default_rng(2).normal(size=(300, 40)).astype(np.float32)
    points[:, 7] = 1.5
    points[150:, 0] += 8
    fitted = fit.fit_mixture(points, 2, KEY)
    assert np.all(np.isfinite(mix.mixture_log_prob(fitted, points)))
    assert sorted(np.round(fitted.means[:, 0])) == [0, 8]


def test_bad_requests_are_refused():
    points = draw(10)
    with pytest.raises(UserError, match="1 to 10 components"):
        fit.fit_mixture(points, 11, KEY)
    with pytest.raises(UserError, match="NaN"):
        fit.fit_mixture(np.full((4, 2), np.nan), 1, KEY)
    with pytest.raises(UserError, match="list of sizes"):
        fit.choose_mixture(points, KEY, ())
    with pytest.raises(UserError, match="held-out"):
        fit.choose_mixture(points, KEY, (1,), held_out=0.0)
