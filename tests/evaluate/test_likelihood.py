"""Bounds of a decoder whose marginal is known in closed form, and streaming."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.data.inputs import CLEAN
from vae_jax.evaluate.likelihood import image_bounds, summary
from vae_jax.losses import Objective
from vae_jax.run import Subject
from vae_jax.types import ImageSet, UserError

SIGMA, PIXELS, Z = 0.4, 4, 2


class LinearGaussian(nn.Module):
    """p(x|z) = N(0.5 + A z, sigma^2), with a posterior that is too wide by a factor."""

    width: float = 1.0

    def encode(self, images, labels=None):
        x = images.reshape(len(images), -1) - 0.5
        a, precision = self._matrices()
        mean = jnp.linalg.solve(precision, a.T @ x.T / SIGMA**2).T
        variance = jnp.diagonal(jnp.linalg.inv(precision)) * self.width
        return mean, jnp.broadcast_to(jnp.log(variance)[None], mean.shape)

    def decode(self, z, labels=None):
        a, _ = self._matrices()
        pixels = jnp.clip(0.5 + z @ a.T, 1e-6, 1 - 1e-6)
        return jax.scipy.special.logit(pixels).reshape(len(z), 2, 2, 1)

    @staticmethod
    def _matrices():
        a = 0.05 * jnp.array([[1.0, 1], [1, -1], [-1, 1], [1, 1]])  # orthogonal columns
        return a, jnp.eye(Z) + a.T @ a / SIGMA**2


def subject(width=1.0, count=5, likelihood="gaussian"):
    images = np.random.default_rng(1).integers(100, 156, (count, 2, 2, 1)).astype(np.uint8)
    every = ImageSet(images, np.arange(count))
    objective = Objective(likelihood, "sum", 0.0, SIGMA)
    return Subject(
        LinearGaussian(width), {}, objective, CLEAN, jax.random.key(0), images, None, every
    )


def repeated(one, times):
    return one._replace(images=np.repeat(one.images[:1], times, axis=0))


def log_marginal(images):
    a = 0.05 * np.array([[1.0, 1], [1, -1], [-1, 1], [1, 1]])
    covariance = a @ a.T + SIGMA**2 * np.eye(PIXELS)
    x = images.reshape(len(images), -1) / 255.0 - 0.5
    square = np.sum(x @ np.linalg.inv(covariance) * x, axis=1)
    return -0.5 * (square + np.linalg.slogdet(2 * np.pi * covariance)[1])


def test_the_exact_posterior_gives_the_marginal_with_any_sample():
    exact = subject()
    bounds = image_bounds(exact, 3)
    np.testing.assert_allclose(bounds.weighted, log_marginal(exact.images), atol=2e-4)
    np.testing.assert_allclose(bounds.effective, 3, rtol=1e-3)


def test_the_bound_rises_from_the_elbo_to_the_marginal():
    # 500 copies of one image are 500 independent bounds of it.
    wide = repeated(subject(width=3.0), 500)
    truth = log_marginal(wide.images[:1])[0]
    one, two, many = (image_bounds(wide, k, seed=2) for k in (1, 2, 200))
    # KL(q || p(z|x)): the precision is diagonal, and q is three times as wide.
    elbo = -(many.recon + many.kl).mean()
    assert abs(truth - elbo - Z * 0.5 * (3.0 - 1 - math.log(3.0))) < 0.02
    error = one.weighted.std(ddof=1) / 500**0.5
    assert abs(one.weighted.mean() - elbo) < 4 * error < 0.4
    # k = 1 is the ELBO on average; k = 2 gains about 0.5 nats, and 200 reach the marginal.
    assert elbo + 0.3 < two.weighted.mean() < many.weighted.mean() - 0.3
    assert abs(many.weighted.mean() - truth) < 0.02
    # The stated error is that of the scatter, and one sample has none.
    assert many.error.mean() == pytest.approx(many.weighted.std(), rel=0.1)
    assert np.isnan(one.error).all()


def test_streaming_changes_nothing_and_matches_a_naive_sum():
    wide = subject(width=3.0)
    whole, pieces = image_bounds(wide, 21, chunk=21), image_bounds(wide, 21, chunk=4)
    for name in whole._fields:
        np.testing.assert_allclose(getattr(whole, name), getattr(pieces, name), rtol=1e-5)
    # The same weights one at a time: sample j of image i is the same whatever comes with it.
    key, model = jax.random.key(0), wide.model
    mean, log_var = (np.asarray(v, np.float64) for v in model.encode(wide.images / 255.0))
    own = jax.vmap(lambda i: jax.vmap(lambda j: jax.random.fold_in(i, j))(jnp.arange(21)))
    keys = own(jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(5)))
    draw = jax.vmap(jax.vmap(lambda k: jax.random.normal(k, (Z,))))
    noise = np.asarray(draw(keys), np.float64)
    z = mean[:, None] + np.exp(log_var / 2)[:, None] * noise
    logits = np.asarray(model.decode(jnp.asarray(z.reshape(-1, Z), jnp.float32)), np.float64)
    x = wide.images[:, None] / 255.0
    errors = (1 / (1 + np.exp(-logits.reshape(5, 21, 2, 2, 1))) - x) ** 2
    nll = errors.sum((2, 3, 4)) / (2 * SIGMA**2)
    nll += PIXELS / 2 * math.log(2 * math.pi * SIGMA**2)
    log_weights = -nll - 0.5 * np.sum(z**2 - noise**2 - log_var[:, None], axis=-1)
    weights = np.exp(log_weights)
    np.testing.assert_allclose(whole.weighted, np.log(weights.mean(axis=1)), atol=2e-5)
    naive = weights.std(axis=1, ddof=1) / math.sqrt(21) / weights.mean(axis=1)
    np.testing.assert_allclose(whole.error, naive, rtol=1e-3)


def test_repeats_bit_for_bit_and_other_images_do_not_matter():
    first, again = image_bounds(subject(3.0), 7, seed=4), image_bounds(subject(3.0), 7, seed=4)
    np.testing.assert_array_equal(first.weighted, again.weighted)
    fewer = subject(3.0)._replace(images=subject().images[:2])
    np.testing.assert_array_equal(first.weighted[:2], image_bounds(fewer, 7, seed=4).weighted)
    assert np.all(first.weighted != image_bounds(subject(3.0), 7, seed=5).weighted)


def test_names_say_what_the_likelihood_earns():
    bounds = image_bounds(subject(3.0), 5)
    density = summary(bounds, 5, Objective("gaussian", "sum", 0.0, SIGMA), PIXELS)
    value = density["log_density_bound"]
    assert density["log_density_bound_bits_per_dim"] == pytest.approx(value / 4 / math.log(2))
    grey = summary(bounds, 5, Objective("bernoulli"), PIXELS)
    assert grey["elbo"] == pytest.approx(-(grey["recon_nats"] + grey["kl"]))
    assert not {"elbo", "iw_bound"} & density.keys()
    assert grey["iw_bound_standard_error"] == pytest.approx(bounds.weighted.std(ddof=1) / 5**0.5)


@pytest.mark.parametrize("likelihood", ["squared_error", "optimal_sigma"])
def test_no_likelihood_no_bound(likelihood):
    with pytest.raises(UserError, match="no bound"):
        image_bounds(subject(likelihood=likelihood), 5)
    with pytest.raises(UserError, match="at least 1 sample"):
        image_bounds(subject(), 0)
