"""The rows of a run: what epoch means are means of, and the labels of likelihoods and shares."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from vae_jax.losses import Objective
from vae_jax.train.epoch import EpochMeans
from vae_jax.train.rows import complete_row
from vae_jax.train.step import objective_terms
from vae_jax.types import VAEOutput

SHAPE, Z = (4, 5, 3), 6
DIMENSIONS = math.prod(SHAPE)


def draw(count, seed=0):
    rng = np.random.default_rng(seed)
    logits, noise = rng.normal(size=(2, count, *SHAPE))
    targets = np.clip(1 / (1 + np.exp(-logits)) + 0.1 * noise, 0, 1)
    mean, log_var = rng.normal(size=(2, count, Z))
    return [a.astype(np.float32) for a in (logits, targets, mean, log_var)]


@partial(jax.jit, static_argnums=0)
def terms(objective, arrays, weights, kl_weight=2.0):
    logits, targets, mean, log_var = arrays
    output = VAEOutput(logits, mean, log_var, mean)
    return objective_terms(objective, output, targets, weights, kl_weight)


def row_of(objective, arrays, kl_weight=2.0):
    values = terms(objective, arrays, np.ones(len(arrays[0]), np.float32), kl_weight)
    means = {name: float(value) for name, value in values.items()}
    return complete_row(means, objective, kl_weight, SHAPE, Z)


def test_an_epoch_of_batches_has_the_mean_over_its_images():
    """The last, smaller batch counts by its size: 8 + 3 images, not two halves."""
    arrays, objective = draw(11), Objective()
    means, batch_losses = EpochMeans(), []
    for start, weights in ((0, np.ones(8)), (8, np.arange(8) < 3)):
        rows = np.minimum(np.arange(start, start + 8), 10)  # The padding repeats an image.
        values = terms(objective, [a[rows] for a in arrays], weights.astype(np.float32))
        batch_losses.append(float(values["loss"]))
        metrics = values | {"images": np.sum(weights)}
        means.add({name: np.asarray(value)[None] for name, value in metrics.items()})
    whole = terms(objective, arrays, np.ones(11, np.float32))
    for name, value in whole.items():
        assert means.means()[name] == pytest.approx(float(value), rel=1e-6)
    assert np.mean(batch_losses) != pytest.approx(float(whole["loss"]), rel=1e-3)


def test_means_of_the_parts_add_up_to_the_mean_loss():
    """With means of running means, as Keras 2 showed for added metrics, they would not."""
    means, shown = EpochMeans(), {"loss": [], "recon": [], "kl_weighted": []}
    for seed in range(5):
        values = terms(Objective(), draw(8, seed), np.ones(8, np.float32))
        means.add({name: np.asarray(v)[None] for name, v in (values | {"images": 8.0}).items()})
        for name, series in shown.items():
            series.append(float(values[name]))
    found = means.means()
    assert found["recon"] + found["kl_weighted"] == pytest.approx(found["loss"], rel=1e-6)
    running = np.cumsum(shown["kl_weighted"]) / np.arange(1, 6)
    displayed = np.mean(shown["recon"]) + np.mean(running)
    assert displayed != pytest.approx(found["loss"], rel=1e-4)


@pytest.mark.parametrize("likelihood", ["gaussian", "optimal_sigma"])
def test_gaussian_rows_are_labelled_as_densities_with_all_constants(likelihood):
    arrays = draw(9)
    logits, targets, mean, log_var = (a.astype(np.float64) for a in arrays)
    pixels = 1 / (1 + np.exp(-logits))
    sigma = 0.2 if likelihood == "gaussian" else np.sqrt(np.square(pixels - targets).mean())
    log_density = norm.logpdf(targets, pixels, sigma).sum() / 9
    kl = 0.5 * (mean**2 + np.exp(log_var) - 1 - log_var).sum() / 9
    row = row_of(Objective(likelihood, sigma=0.2), arrays)
    assert row["recon_nats"] == pytest.approx(-log_density, rel=1e-5)
    assert row["log_density_bound"] == pytest.approx(log_density - kl, rel=1e-5)
    bits = (log_density - kl) / (DIMENSIONS * np.log(2))
    assert row["log_density_bound_bits_per_dim"] == pytest.approx(bits, rel=1e-5)
    assert "elbo" not in row and "kl_share_above_floor" not in row


def test_the_optimal_sigma_weighs_the_kl_as_the_fixed_gaussian_of_that_sigma_does():
    logits, targets, mean, log_var = draw(9)
    sigma = float(np.sqrt(np.square(1 / (1 + np.exp(-logits)) - targets).mean()))

    def gradient(objective):
        def loss(x):
            return terms(objective, (x, targets, mean, log_var), np.ones(9, np.float32))["loss"]

        return jax.grad(loss)(jnp.asarray(logits))

    best = gradient(Objective("optimal_sigma"))
    np.testing.assert_allclose(best, gradient(Objective("gaussian", sigma=sigma)), rtol=1e-4)


def test_bernoulli_rows_have_an_elbo_and_both_shares():
    row = row_of(Objective("bernoulli", "channel_mean"), draw(9))
    assert row["elbo"] == -(row["recon_nats"] + row["kl"])
    assert row["kl_share"] == row["kl_weighted"] / row["loss"]
    above = row["recon"] - row["entropy_floor"] / SHAPE[2] + row["kl_weighted"]
    assert row["kl_share_above_floor"] == pytest.approx(row["kl_weighted"] / above, rel=1e-6)
    assert row["kl_share_above_floor"] > 2 * row["kl_share"]
    assert row["beta"] == 2.0 * SHAPE[2] and "log_density_bound" not in row


def test_at_the_entropy_floor_the_kl_is_all_that_is_left():
    _, targets, mean, log_var = draw(9)
    targets = np.clip(targets, 0.01, 0.99)
    row = row_of(Objective(), (np.log(targets / (1 - targets)), targets, mean, log_var))
    assert row["recon_nats"] == pytest.approx(row["entropy_floor"], rel=1e-5)
    assert row["kl_share_above_floor"] == pytest.approx(1.0, rel=1e-3)


def test_without_sampling_there_is_no_bound():
    means = {"loss": 2.0, "kl_weighted": 0.0, "recon_nats": 3.0, "kl": 1.0}
    assert "elbo" in complete_row(means, Objective(), 0.0, SHAPE, Z)
    assert "elbo" not in complete_row(means, Objective(), 0.0, SHAPE, Z, sampled=False)


def test_squared_error_bounds_nothing():
    row = row_of(Objective("squared_error"), draw(9))
    assert not row.keys() & {"elbo", "log_density_bound", "entropy_floor", "kl_share_above_floor"}


def test_beta_belongs_to_the_logged_weight():
    means = {"loss": 2.0, "kl_weighted": 1.0, "recon_nats": 3.0, "kl": 1.0, "kl_weight": 0.5}
    row = complete_row(means, Objective("bernoulli", "mean"), 4.0, SHAPE, Z)
    assert row["kl_weight"] == 0.5  # The mean of an epoch of warm-up.
    assert row["beta"] == pytest.approx(2 * 0.5 * DIMENSIONS / Z)
