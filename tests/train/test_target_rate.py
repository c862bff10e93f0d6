"""A target for the rate, from the config to the rows of a run."""

import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from vae_jax.config import validate
from vae_jax.kl_controller import INTEGRAL, PROPORTIONAL
from vae_jax.run_folder import read_rows
from vae_jax.train.epoch import EpochMeans
from vae_jax.train.setup import make_experiment
from vae_jax.train.sweep import fit_sweep, member_folder
from vae_jax.train.trainer import fit
from vae_jax.types import Batch, UserError

TARGET = 5.0


def quiet(*_):
    pass


@pytest.fixture
def held_config(tiny_config):
    tiny_config.loss.target_rate = TARGET
    return tiny_config


def batch(value=None):
    images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3)) / np.float32(255)
    images = images if value is None else np.full_like(images, value)
    return Batch(jnp.asarray(images), jnp.ones(8))


def test_the_weight_of_every_step_follows_from_the_rates_before_it(held_config):
    """And a step that is not finite leaves the controller as it was."""
    setup = make_experiment(held_config, total_steps=100)
    step = jax.jit(setup.train_step)
    state, log_factor, error = setup.init_state(), 0.0, 0.0
    for _ in range(4):
        state, metrics = step(state, batch(), setup.run_key, setup.hyper)
        expected = 3.0 * np.exp(log_factor + PROPORTIONAL * error)
        assert float(metrics["kl_weight"]) == pytest.approx(expected, rel=1e-5)
        expected *= float(metrics["kl"])
        assert float(metrics["kl_weighted"]) == pytest.approx(expected, rel=1e-5)
        error = np.clip(float(metrics["kl"]) / TARGET - 1, -1, 1)
        log_factor += INTEGRAL * error
    after, metrics = step(state, batch(np.nan), setup.run_key, setup.hyper)
    assert not metrics["finite"] and error != 0
    jax.tree.map(np.testing.assert_array_equal, after.control, state.control)


def test_a_held_run_is_logged_and_resumes_bit_for_bit(
    held_config, tmp_path, monkeypatch, assert_same_run
):
    fit(held_config, tmp_path / "whole", quiet)
    for row in read_rows(tmp_path / "whole"):
        assert row["kl_weight"] != 3.0
        assert row["beta"] == pytest.approx(3 * row["kl_weight"])
        if row["split"] == "test":  # with the weight that the last step left
            assert row["kl_weighted"] == pytest.approx(row["kl_weight"] * row["kl"], rel=1e-5)
    seen, add = 0, EpochMeans.add

    def stopping(self, metrics):
        nonlocal seen
        if "finite" in metrics:
            seen += 1
            if seen == 3:
                signal.raise_signal(signal.SIGTERM)
        add(self, metrics)

    monkeypatch.setattr(EpochMeans, "add", stopping)
    monkeypatch.setattr("vae_jax.train.epoch.Pace.count", lambda self, remaining: 1)
    assert fit(held_config, tmp_path / "cut", quiet).step == 3
    monkeypatch.undo()
    fit(held_config, tmp_path / "cut", quiet)
    assert_same_run(held_config, tmp_path / "whole", tmp_path / "cut")


@pytest.mark.slow
def test_members_that_are_trained_together_are_held_each(held_config, tmp_path):
    sweep = {"kl_weight": (0.3, 3.0), "z_dim": (2, 4), "learning_rate": (), "seed": ()}
    how = {"mode": "list", "schedule": "together", "same_batches": True, "memory_gib": 0.0}
    with held_config.unlocked():
        held_config.sweep = ConfigDict(sweep | how)
    held_config.train.epochs = 1
    result = fit_sweep(held_config, tmp_path / "sweep", quiet)
    for member in result.members:
        fit(member.config, tmp_path / member.name, quiet)
        folders = (member_folder(tmp_path / "sweep", member), tmp_path / member.name)
        together, alone = (read_rows(folder)[-1] for folder in folders)
        assert together["kl_weight"] != member.config.loss.kl_weight
        for name in ("kl_weight", "beta", "kl", "loss"):
            assert together[name] == pytest.approx(alone[name], rel=1e-4)


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("loss.kl_schedule", "linear", "loss.kl_schedule 'constant', not 'linear'"),
        ("loss.kl_weight", 0.0, "loss.kl_weight above 0"),
        ("loss.free_bits", 0.1, "loss.free_bits 0"),
        ("model.sample", False, "model.sample True"),
    ],
)
def test_what_does_not_go_with_a_target_is_refused(held_config, field, value, told):
    validate(held_config)
    held_config.update_from_flattened_dict({field: value})
    with pytest.raises(UserError, match=f"target_rate is 5, which needs config.{told}"):
        validate(held_config)
