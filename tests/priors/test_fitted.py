"""Fitted priors against known densities, and points that no count changes."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from vae_jax.metrics.densities import Gaussian, Mixture
from vae_jax.priors.fitted import Codes, Prior, draw, fit_prior, normal_prior
from vae_jax.run import prior_latents
from vae_jax.types import UserError

RNG = np.random.default_rng(3)
FACTOR = np.array([[1.5, 0, 0], [0.4, 0.7, 0], [-0.3, 0.2, 0.4]])
MEAN = np.array([2.0, 0.0, -1.0])


def gaussian_codes(count, seed=0):
    z = np.random.default_rng(seed).normal(size=(count, 3)) @ FACTOR.T + MEAN
    return Codes(z.astype(np.float32))


def a_mixture():
    weights, means = np.array([0.2, 0.8]), np.array([[3.0, 0, 0], [-0.75, 0, 0]])
    factors = np.stack([FACTOR, 0.5 * np.eye(3)])
    parts = (jnp.asarray(part, jnp.float32) for part in (np.log(weights), means, factors))
    return Prior("mixture", "two", MEAN[None].astype(np.float32), Mixture(*parts))


def a_gaussian():
    density = Gaussian(jnp.zeros(3), jnp.asarray(FACTOR, jnp.float32))
    location = np.stack([MEAN, np.ones(3), -np.ones(3)]).astype(np.float32)
    return Prior("gaussian", "gaussian", location, density)


def test_the_normal_prior_gives_the_points_that_it_always_gave():
    for count in (1, 64, 65, 150):
        np.testing.assert_array_equal(draw(normal_prior(5), 33, count), prior_latents(33, count, 5))


@pytest.mark.parametrize("prior", [a_gaussian(), a_mixture()], ids=lambda prior: prior.kind)
def test_point_i_depends_on_seed_and_i_alone(prior):
    labels = np.eye(2, dtype=np.float32)[np.arange(150) % 2] if prior.kind == "gaussian" else None
    many = draw(prior, 7, 150, labels=labels)
    for count in (1, 63, 64, 65, 149):
        few = draw(prior, 7, count, labels=None if labels is None else labels[:count])
        np.testing.assert_array_equal(few, many[:count])
    assert np.all(many != draw(prior, 8, 150, labels=labels))


def test_points_follow_their_law():
    labels = np.tile(np.float32([0, 1]), (4000, 1))
    z = np.float64(draw(a_gaussian(), 5, 4000, labels=labels))
    np.testing.assert_allclose(z.mean(axis=0), MEAN - 1, atol=0.1)
    np.testing.assert_allclose(np.cov(z.T), FACTOR @ FACTOR.T, atol=0.15)
    z = np.float64(draw(a_mixture(), 5, 4000))
    first = FACTOR @ FACTOR.T + np.diag([9.0, 0, 0])  # of weight 0.2, at 3 about the mean
    second = 0.25 * np.eye(3) + np.diag([0.75**2, 0, 0])
    np.testing.assert_allclose(z.mean(axis=0), MEAN, atol=0.15)
    np.testing.assert_allclose(np.cov(z.T), 0.2 * first + 0.8 * second, atol=0.25)
    assert stats.skew(z[:, 0]) > 0.7  # which no single Gaussian has


def test_temperature_scales_the_spread_about_the_mean():
    cold, warm = (draw(a_mixture().at(temperature), 1, 200) for temperature in (0.5, 1.0))
    np.testing.assert_allclose(cold - MEAN, 0.5 * (warm - MEAN), atol=1e-6)
    np.testing.assert_allclose(draw(a_mixture().at(0.0), 1, 3), np.tile(MEAN, (3, 1)))


def test_a_gaussian_is_fitted_given_the_label():
    labels = np.eye(2, dtype=np.float32)[RNG.integers(0, 2, 4000)]
    codes = gaussian_codes(4000)
    codes = Codes(codes.z + labels @ np.float32([[5, 0, 0], [0, -5, 0]]), labels)
    prior = fit_prior("gaussian", codes, None, 0)
    np.testing.assert_allclose(np.cov(prior.density.cholesky @ RNG.normal(size=(3, 9000))),
                               FACTOR @ FACTOR.T, atol=0.15)  # fmt: skip
    for label, offset in (([1, 0], [5, 0, 0]), ([0, 1], [0, -5, 0])):
        z = draw(prior, 0, 500, labels=np.tile(np.float32(label), (500, 1)))
        np.testing.assert_allclose(z.mean(axis=0), MEAN + offset, atol=0.2)
    assert (prior.facts["codes"], prior.facts["held_out_codes"]) == (3600, 400)


@pytest.mark.parametrize("z", [np.zeros((1, 3)), np.full((9, 3), np.nan)], ids=["few", "NaN"])
def test_codes_that_carry_no_density_are_refused(z):
    with pytest.raises(UserError, match="a prior needs finite codes of 2 images or more"):
        fit_prior("gaussian", Codes(z), Codes(z), 0)
