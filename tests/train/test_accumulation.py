"""Micro-batches give the loss, the gradient and the step of the whole batch."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import tiny
from vae_jax.train.accumulation import micro_batches
from vae_jax.train.setup import make_experiment
from vae_jax.types import Batch

RANDOM = {
    "data.augmentation.flip": True, "data.augmentation.shift": 2,
    "data.corruption.gaussian_sigma": 0.1, "data.corruption.drop_fraction": 0.2,
}  # fmt: skip


@cache
def compiled(**fields):
    """Config, experiment and its step."""
    config = tiny.get_config()
    config.update_from_flattened_dict(fields)
    setup = make_experiment(config, 10)
    return config, setup, jax.jit(setup.train_step)


def one_step(accumulate, images, weights, **fields):
    """Gradient, from Adam's first moment, metrics and the state after a step."""
    config, setup, program = compiled(**fields, **{"train.accumulate": accumulate})
    batch = Batch(jnp.asarray(images), jnp.asarray(weights))
    found = program(setup.init_state(), batch, setup.run_key, setup.hyper)
    state, metrics = jax.device_get(found)
    gradient = jax.tree.map(lambda mu: mu / (1 - config.optimizer.b1), state.opt_state.mu)
    return gradient, metrics, state


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3)).astype(np.uint8)


@pytest.mark.parametrize("kept", [8, 5, 1])
def test_the_step_is_that_of_the_whole_batch(images, kept):
    """With every random draw of inputs and noise, and with micro-batches of padding alone."""
    weights = (np.arange(8) < kept).astype(np.float32)
    fields = RANDOM | {"model.norm": "none"}
    expected, metrics, _ = one_step(1, images, weights, **fields)
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected))
    for accumulate in (2, 8):
        found, own, state = one_step(accumulate, images, weights, **fields)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * largest),
            found,
            expected,
        )
        for name in metrics:
            assert own[name] == pytest.approx(metrics[name], rel=1e-5), name
        assert own["images"] == kept and state.step == 1


@pytest.mark.parametrize("momentum", [0.9, 0.0, 1.0])
def test_running_statistics_move_once_as_those_of_the_whole_batch(images, momentum):
    """Of the first layer, which sees the images alone; also with micro-batches of padding."""
    weights = (np.arange(8) < 5).astype(np.float32)
    fields = {"model.norm_momentum": momentum}
    *_, whole = one_step(1, images, weights, **fields)
    for accumulate in (4, 8) if momentum == 0.9 else (4,):
        _, metrics, state = one_step(accumulate, images, weights, **fields)
        first = [s.batch_stats["encoder"]["conv_0"]["norm"] for s in (state, whole)]
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), *first)
        assert np.isfinite(metrics["loss"]) and metrics["finite"]
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.batch_stats))


def test_micro_batches_take_turns():
    parts = micro_batches(np.arange(12), 3)
    assert np.asarray(parts).tolist() == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]
