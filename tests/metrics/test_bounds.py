"""Bounds of a decoder whose marginal is known in closed form, and their errors by repetition."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from vae_jax.losses import Objective
from vae_jax.metrics import bounds

SIGMA, PIXELS, Z = 0.4, 4, 2
A = 0.05 * np.array([[1.0, 1], [1, -1], [-1, 1], [1, 1]])  # orthogonal columns
PRECISION = np.eye(Z) + A.T @ A / SIGMA**2


def images(count=5):
    """`[N, 4]` in [0, 1]."""
    return np.random.default_rng(1).integers(100, 156, (count, PIXELS)) / 255.0


def posterior(x, width):
    """The exact posterior of p(x|z) = N(0.5 + A z, sigma^2), its variance times a factor."""
    mean = np.linalg.solve(PRECISION, A.T @ (x - 0.5).T / SIGMA**2).T
    log_var = np.log(np.diagonal(np.linalg.inv(PRECISION)) * width)
    return mean.astype(np.float32), np.tile(log_var, (len(x), 1)).astype(np.float32)


def nll(z, targets, labels):
    errors = jnp.sum(jnp.square(targets - 0.5 - z @ A.T.astype(np.float32)), axis=1)
    return errors / (2 * SIGMA**2) + PIXELS / 2 * math.log(2 * math.pi * SIGMA**2)


NLL = Partial(nll)


def weights_of(x, samples, width=3.0, seed=0, chunk=bounds.CHUNK):
    targets = jnp.asarray(x, jnp.float32)
    return bounds.importance_samples(
        NLL, jax.random.key(seed), samples, posterior(x, width), jnp.arange(len(x)), targets,
        chunk=chunk,
    )  # fmt: skip


def log_marginal(x):
    covariance = A @ A.T + SIGMA**2 * np.eye(PIXELS)
    square = np.sum((x - 0.5) @ np.linalg.inv(covariance) * (x - 0.5), axis=1)
    return -0.5 * (square + np.linalg.slogdet(2 * np.pi * covariance)[1])


def test_the_exact_posterior_gives_the_marginal_with_any_sample():
    log_weights, _ = weights_of(images(), 3, width=1.0)
    found, _, effective = bounds.log_mean_weight(log_weights)
    np.testing.assert_allclose(found, log_marginal(images()), atol=2e-4)
    np.testing.assert_allclose(effective, 3, rtol=1e-3)


def test_the_bound_rises_from_the_elbo_to_the_marginal():
    # 500 copies of one image are 500 independent bounds of it.
    copies = np.repeat(images(1), 500, axis=0)
    truth = log_marginal(copies[:1])[0]
    log_weights, losses = weights_of(copies, 200, seed=2)
    one, two, many = (bounds.log_mean_weight(log_weights[:, :k])[0] for k in (1, 2, 200))
    mean, log_var = posterior(copies[:1], 3.0)
    kl = 0.5 * np.sum(mean**2 + np.exp(log_var) - 1 - log_var)
    # KL(q || p(z|x)): the precision is diagonal, and q is three times as wide.
    elbo = -(losses.mean() + kl)
    assert abs(truth - elbo - Z * 0.5 * (3.0 - 1 - math.log(3.0))) < 0.02
    error = one.std(ddof=1) / 500**0.5
    assert abs(one.mean() - elbo) < 4 * error < 0.4
    # k = 1 is the ELBO on average; k = 2 gains about 0.5 nats, and 200 reach the marginal.
    assert elbo + 0.3 < two.mean() < many.mean() - 0.3
    assert abs(many.mean() - truth) < 0.02


def test_chunks_change_nothing_and_match_a_naive_sum():
    whole, pieces = weights_of(images(), 21, chunk=21), weights_of(images(), 21, chunk=4)
    for a, b in zip(whole, pieces, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    # The same weights one at a time: sample j of image i is the same whatever comes with it.
    key, draws = jax.random.key(0), []
    for i in range(5):
        keys = [jax.random.fold_in(jax.random.fold_in(key, i), j) for j in range(21)]
        draws.append([np.asarray(jax.random.normal(k, (Z,)), np.float64) for k in keys])
    noise = np.array(draws)
    mean, log_var = (np.asarray(part, np.float64)[:, None] for part in posterior(images(), 3.0))
    z = mean + np.exp(log_var / 2) * noise
    errors = np.sum((images()[:, None] - 0.5 - z @ A.T) ** 2, axis=-1)
    losses = errors / (2 * SIGMA**2) + PIXELS / 2 * math.log(2 * math.pi * SIGMA**2)
    log_weights = -losses - 0.5 * np.sum(z**2 - noise**2 - log_var, axis=-1)
    np.testing.assert_allclose(whole[0], log_weights, atol=2e-5)
    np.testing.assert_allclose(whole[1], losses, atol=2e-5)


def test_repeats_bit_for_bit_and_other_images_do_not_matter():
    first, again = weights_of(images(), 7, seed=4), weights_of(images(), 7, seed=4)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[0][:2], weights_of(images()[:2], 7, seed=4)[0])
    np.testing.assert_array_equal(first[0], weights_of(images(), 9, seed=4)[0][:, :7])
    assert np.all(first[0] != weights_of(images(), 7, seed=5)[0])


@pytest.mark.parametrize("deviation", [0.5, 1.5, 3.0])
def test_the_stated_error_is_that_of_repeated_draws(deviation):
    # Weights of real posteriors are about log-normal; 50 of them, drawn 4,000 times.
    log_weights = deviation * np.random.default_rng(0).normal(size=(4000, 50)) - 86
    found, error, effective = bounds.log_mean_weight(log_weights)
    assert np.sqrt(np.mean(error**2)) == pytest.approx(found.std(), rel=0.08)
    if deviation == 1.5:  # What the delta method gives is too small there.
        delta = np.sqrt((50 / effective - 1) / 49)
        assert np.sqrt(np.mean(delta**2)) < 0.87 * found.std()


def test_the_error_agrees_with_leaving_out_one_sample_after_the_other():
    log_weights = np.random.default_rng(1).normal(0, 2, (6, 9))
    _, error, effective = bounds.log_mean_weight(log_weights)
    for row, found, count in zip(log_weights, error, effective, strict=True):
        w = np.exp(row)
        left_out = [np.log(np.delete(w, i).mean()) for i in range(9)]
        assert found == pytest.approx(np.sqrt(8 * np.var(left_out)))
        assert count == pytest.approx(w.sum() ** 2 / (w**2).sum())
    # One sample carries everything: the others keep their digits, and one sample has no error.
    _, error, effective = bounds.log_mean_weight(np.array([[0.0, -80.0, -81.0]]))
    rest = math.log((math.exp(-80) + math.exp(-81)) / 2)
    left_out = [rest, math.log(0.5), math.log(0.5)]
    assert error[0] == pytest.approx(np.sqrt(2 * np.var(left_out)))
    assert np.isnan(bounds.log_mean_weight(log_weights[:, :1])[1]).all()


def test_names_say_what_the_likelihood_earns():
    log_weights, losses = weights_of(images(), 5)
    kl = np.full(5, 1.5)
    each = bounds.ImageBounds(losses.mean(axis=1), kl, *bounds.log_mean_weight(log_weights))
    density = bounds.summary(each, 5, Objective("gaussian", "sum", 0.0, SIGMA), PIXELS)
    value = density["log_density_bound"]
    assert density["log_density_bound_bits_per_dim"] == pytest.approx(value / 4 / math.log(2))
    grey = bounds.summary(each, 5, Objective("bernoulli"), PIXELS)
    assert grey["elbo"] == pytest.approx(-(grey["recon_nats"] + grey["kl"]))
    assert not {"elbo", "iw_bound"} & density.keys()
    assert grey["iw_bound_standard_error"] == pytest.approx(each.weighted.std(ddof=1) / 5**0.5)
    assert grey["iw_sampling_error"] == pytest.approx(np.sqrt(np.sum(each.error**2)) / 5)
