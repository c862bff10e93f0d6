"""Learned priors recover densities that no Gaussian is like, in a two-sample test."""

import jax
import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import cdist

from vae_jax.priors import learned
from vae_jax.priors.fitted import Codes, draw, fit_prior


def ring(count, seed):
    """Points at distance 2 +- 0.2 from (3, -1) in the plane."""
    rng = np.random.default_rng(seed)
    angle, radius = rng.uniform(0, 2 * np.pi, count), rng.normal(2, 0.2, count)
    points = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return (points + [3, -1]).astype(np.float32)


def p_value(ours, theirs, permutations=200):
    """Of the energy distance between two sets, by permutation (Szekely & Rizzo 2004)."""
    both = np.concatenate([ours, theirs])
    distances, count, rng = cdist(both, both), len(ours), np.random.default_rng(0)

    def energy(order):
        a, b = order[:count], order[count:]
        within = distances[np.ix_(a, a)].mean() + distances[np.ix_(b, b)].mean()
        return 2 * distances[np.ix_(a, b)].mean() - within

    found = energy(np.arange(len(both)))
    others = [energy(rng.permutation(len(both))) for _ in range(permutations)]
    return np.mean([found <= other for other in others])


def fitted(kind):
    return fit_prior(kind, Codes(ring(3000, 1)), Codes(ring(500, 2)), seed=0)


@pytest.fixture
def few_steps(monkeypatch):
    monkeypatch.setattr(learned, "STEPS", 100)
    monkeypatch.setattr(learned, "EVERY", 50)
    learned._programs.cache_clear()
    yield
    learned._programs.cache_clear()


def test_the_test_tells_a_gaussian_from_a_ring_and_a_mixture_from_none():
    test = ring(400, 3)
    assert p_value(ring(400, 4), test) > 0.05
    assert p_value(draw(fitted("gaussian"), 0, 400), test) < 0.01
    assert p_value(draw(fitted("mixture"), 0, 400), test) > 0.05


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["two_stage", "flow"])
def test_a_ring_is_recovered(kind):
    prior = fitted(kind)
    assert 0 < prior.facts["steps"] <= learned.STEPS
    assert prior.facts["held_out_loss"] < prior.facts["held_out_loss_at_first"]
    z = draw(prior, 0, 400)
    assert p_value(z, ring(400, 3)) > 0.01
    if kind == "flow":  # The Gaussian decoder of the second VAE fills the ring's middle a little.
        radii = np.linalg.norm(z - [3, -1], axis=1)
        assert stats.kstest(radii, stats.norm(2, 0.2).cdf).statistic < 0.2


@pytest.mark.parametrize("kind", ["two_stage", "flow"])
def test_point_i_depends_on_seed_and_i_alone_and_the_same_seed_fits_the_same_prior(kind, few_steps):
    prior, again = fitted(kind), fitted(kind)
    jax.tree.map(np.testing.assert_array_equal, prior.density, again.density)
    many = draw(prior, 7, 130)
    for count in (1, 64, 129):
        np.testing.assert_array_equal(draw(prior, 7, count), many[:count])


def test_an_untrained_flow_is_the_fitted_gaussian():
    params = learned.start_flow(3, jax.random.key(0))
    white = learned.fit_gaussian(np.random.default_rng(0).normal(1, 2, (500, 3)))
    keys = jax.random.split(jax.random.key(1), 50)
    flowed = jax.vmap(lambda key: learned.flow_draw(learned.Learned(white, params), key))(keys)
    noise = jax.vmap(lambda key: jax.random.normal(key, (3,)))(keys)
    np.testing.assert_allclose(flowed, noise @ white.cholesky.T + white.mean[None], atol=2e-3)


def test_losses_are_those_of_known_functions():
    x = np.random.default_rng(5).normal(size=(4000, 2)).astype(np.float32)
    # An untrained flow of N(0, I): E|v - (x1 - x0)|^2 = Z (2 - (2t-1)^2 / (t^2 + (1-t)^2)).
    t = np.linspace(0, 1, 20001)
    wanted = 2 * np.mean(2 - (2 * t - 1) ** 2 / (t**2 + (1 - t) ** 2))
    start = learned.start_flow(2, jax.random.key(0))
    loss = learned.flow_loss(start, x, jax.random.key(2)).mean()
    assert float(loss) == pytest.approx(wanted, rel=0.03)
    # A second VAE that ignores its code, with variance v: KL 0, and the Gaussian's entropy.
    zeros = jax.tree.map(np.zeros_like, learned.start_second_vae(2, jax.random.key(0)))
    found = learned.elbo_loss(zeros, x, jax.random.key(3))
    np.testing.assert_allclose(found, -stats.norm.logpdf(x).sum(axis=1), rtol=1e-5)
