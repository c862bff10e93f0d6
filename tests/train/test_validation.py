"""Evaluation: masked last batch, re-estimated batch statistics."""

import jax
import numpy as np
import pytest

from vae_jax.data.splits import open_splits
from vae_jax.train.engine import Plain
from vae_jax.train.epoch import make_run_steps
from vae_jax.train.setup import make_experiment
from vae_jax.train.task import vae_task
from vae_jax.train.validation import Validator, make_feeds


@pytest.fixture
def trained(tiny_config):
    """A state whose running statistics lag: momentum 0.99, ten steps."""
    tiny_config.model.norm_momentum = 0.99
    setup = make_experiment(tiny_config, 100)
    splits = open_splits(tiny_config.data)
    feeds = make_feeds(tiny_config, splits)
    program = jax.jit(make_run_steps(setup.train_step))
    (segment,) = feeds.train.segments(0)
    state = setup.init_state()
    for _ in range(2):
        state, _ = program(state, segment, np.int32(0), np.int32(5), setup.run_key, setup.hyper)
    return tiny_config, splits, state


def validator(config, splits):
    return Validator(Plain(vae_task(config, splits)), make_feeds(config, splits))


def evaluate(config, splits, state):
    """The row of the test split."""
    (means,) = validator(config, splits).evaluate(state)
    return vae_task(config, splits).complete_row("test", means["test"])


def test_reestimated_statistics_are_those_of_the_training_images(trained):
    config, splits, state = trained
    stats = validator(config, splits).batch_stats(state)
    # The first encoder layer sees the images alone: its exact statistics are easy to compute.
    images = splits.train.take(np.arange(16)).astype(np.float32) / 255
    kernel = state.params["encoder"]["conv_0"]["kernel"]
    from vae_jax.models.convolution import conv

    features = np.asarray(conv(images, kernel, strides=(2, 2)), np.float64)
    norm = stats["encoder"]["conv_0"]["norm"]
    np.testing.assert_allclose(norm["mean"], features.mean((0, 1, 2)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(norm["var"], features.var((0, 1, 2)), rtol=1e-3, atol=1e-7)
    running = state.batch_stats["encoder"]["conv_0"]["norm"]
    assert not np.allclose(running["var"], norm["var"], rtol=0.1)


def test_running_statistics_on_request(trained):
    config, splits, state = trained
    config.eval.batch_stats = "running"
    assert validator(config, splits).batch_stats(state) is state.batch_stats


def test_evaluation_does_not_depend_on_how_the_last_batch_is_padded(trained):
    config, splits, state = trained
    kls = []
    for batch_size in (11, 8, 4):  # 11 test images: no padding, 5 of 16, 1 of 12
        config.eval.batch_size = batch_size
        metrics = evaluate(config, splits, state)
        assert metrics["images"] == 11
        kls.append((metrics["kl"], metrics["entropy_floor"]))
    np.testing.assert_allclose(kls, [kls[0]] * 3, rtol=1e-5)


def test_the_optimal_sigma_is_that_of_the_split_however_it_is_batched(trained):
    """Its bound is that of the fixed Gaussian decoder of the reported sigma."""
    config, splits, state = trained
    rows = []
    for batch_size in (11, 4, 1):
        config.eval.batch_size, config.loss.likelihood = batch_size, "optimal_sigma"
        rows.append(evaluate(config, splits, state))
    config.loss.likelihood, config.loss.sigma = "gaussian", rows[-1]["sigma"]
    fixed = evaluate(config, splits, state)
    # Each batch draws noise of its own, so the errors agree but roughly.
    assert rows[-1]["recon_nats"] == pytest.approx(fixed["recon_nats"], rel=1e-5)
    assert rows[-1]["loss"] == pytest.approx(rows[-1]["recon"] + rows[-1]["kl_weighted"])
    np.testing.assert_allclose([row["sigma"] for row in rows], rows[0]["sigma"], rtol=0.02)
    bounds = [row["recon_nats"] for row in rows]
    assert np.ptp(bounds) < 0.02 * 768  # nats; 2 % of sigma in each of the 768 components


def test_evaluation_repeats_bit_for_bit(trained):
    config, splits, state = trained
    first, second = (evaluate(config, splits, state) for _ in range(2))
    assert first == second
    assert first["loss"] == pytest.approx(first["recon"] + first["kl_weighted"], rel=1e-6)
