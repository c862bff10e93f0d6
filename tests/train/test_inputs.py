"""Inputs that differ from their targets, in the step, in validation, and in a run."""

import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import tiny
from vae_jax import config as vae_config
from vae_jax.data import inputs as stages
from vae_jax.data.inputs import (
    Augmentation,
    Corruption,
    InputStage,
    evaluation_pair,
    make_input_stage,
    training_pair,
)
from vae_jax.losses import Objective
from vae_jax.models.blocks import BlockStyle
from vae_jax.streams import step_key, stream_key
from vae_jax.train.epoch import EpochMeans
from vae_jax.train.evaluation_steps import (
    EvalCarry,
    make_eval_step,
    make_statistics_step,
    start_statistics,
)
from vae_jax.train.setup import make_experiment
from vae_jax.train.state import Hyper, start_state
from vae_jax.train.step import Examples, make_train_step, make_update_step, objective_terms
from vae_jax.train.trainer import fit
from vae_jax.types import Batch, UserError, VAEOutput

CORRUPTION = {
    "data.corruption.gaussian_sigma": 0.2,
    "data.corruption.drop_fraction": 0.5,
    "data.corruption.mask": "rectangle",
    "data.corruption.mask_size": 5,
    "data.corruption.grey": True,
}
AUGMENTATION = {
    "data.augmentation.flip": True,
    "data.augmentation.shift": 2,
    "data.augmentation.brightness": 0.3,
}
NOISE = {"data.corruption.gaussian_sigma": 0.2, "data.augmentation.flip": True}


def configured(config=None, **fields):
    config = config or tiny.get_config()
    config.update_from_flattened_dict(fields)
    vae_config.validate(config)
    return config


def batch(seed=0):
    images = np.random.default_rng(seed).integers(0, 256, (8, 16, 16, 3)).astype(np.uint8)
    return Batch(jnp.asarray(images), jnp.ones(8))


def plain_step(setup):
    """The training step written without any stage between images and model."""

    def draw(batch, key, hyper):
        targets = batch.images.astype(jnp.float32) / 255.0
        return Examples(targets, targets, batch.weights, None)

    def loss_fn(params, batch_stats, batch, key, step, hyper):
        targets = batch.inputs
        output, mutated = setup.model.apply(
            {"params": params, "batch_stats": batch_stats}, targets, train=True, sample=True,
            mask=batch.weights > 0, mutable=["batch_stats"],
            rngs={name: stream_key(key, name) for name in ("latent", "dropout")},
        )  # fmt: skip
        terms = objective_terms(
            setup.objective, output, targets, batch.weights, hyper.kl_weight * 1.0
        )
        return terms["loss"], (terms, batch_stats | mutated["batch_stats"])

    return make_update_step(draw, loss_fn, setup.tx, lambda step: jnp.ones(()))


def test_with_everything_off_the_step_is_the_plain_one_bit_for_bit():
    setup = make_experiment(configured(), 10)
    assert setup.stage == stages.CLEAN
    states = []
    for step in (setup.train_step, plain_step(setup)):
        state, program = setup.init_state(), jax.jit(step)
        for seed in range(2):
            state, _ = program(state, batch(seed), setup.run_key, setup.hyper)
        states.append(state)
    jax.tree.map(np.testing.assert_array_equal, *states)


jitted_pair = jax.jit(training_pair, static_argnums=0)


class Echo:
    """Stands in for a model: its logits are a function of the inputs alone."""

    style, sample, told = BlockStyle(), True, None

    def clone(self, style):
        return self

    def apply(self, variables, images, mutable=(), **rest):
        logits = variables["params"]["gain"] * (images - 0.5)
        zeros = jnp.zeros((len(images), 2))
        output = VAEOutput(logits, zeros, zeros, zeros)
        return (output, {"batch_stats": {"mean": images.mean()}}) if mutable else output


SUM = Objective("bernoulli", "sum")
PARAMS = {"gain": jnp.float32(3.0)}


def naive_nll(inputs, targets):
    logits = 3.0 * (np.asarray(inputs, np.float64) - 0.5)
    p, x = 1 / (1 + np.exp(-logits)), np.asarray(targets, np.float64)
    return -(x * np.log(p) + (1 - x) * np.log(1 - p)).sum((1, 2, 3))


def test_the_loss_compares_with_the_clean_image():
    stage = InputStage(corruption=Corruption(drop_fraction=0.5))
    tx, run_key, hyper = optax.sgd(1.0), jax.random.key(5), Hyper(1.0, 0.0)
    step = make_train_step(Echo(), SUM, tx, jnp.ones_like, jnp.ones_like, stage)
    state = start_state(PARAMS, {"mean": jnp.float32(0.0)}, tx)
    _, metrics = jax.jit(step)(state, batch(), run_key, hyper)
    clean = np.asarray(batch().images, np.float32) / 255
    corrupted, targets = jitted_pair(stage, step_key(run_key, 0), batch().images)
    np.testing.assert_allclose(targets, clean, atol=1e-7)
    assert float(np.mean(np.abs(corrupted - clean))) > 0.2
    expected = naive_nll(corrupted, clean).mean()
    assert float(metrics["recon"]) == pytest.approx(expected, rel=1e-5)
    assert abs(naive_nll(corrupted, corrupted).mean() / expected - 1) > 0.01


def test_every_step_draws_anew_and_the_seed_decides():
    stage = InputStage(corruption=Corruption(drop_fraction=0.5))
    images = batch().images
    drawn = [
        np.asarray(jitted_pair(stage, step_key(jax.random.key(seed), step), images)[0])
        for seed, step in ((0, 0), (0, 1), (1, 0), (0, 0))
    ]
    assert not np.array_equal(drawn[0], drawn[1]) and not np.array_equal(drawn[0], drawn[2])
    np.testing.assert_array_equal(drawn[0], drawn[3])


def test_augmentation_is_the_same_for_input_and_target():
    stage = InputStage(Augmentation(brightness=0.3))
    images, key = batch().images, jax.random.key(0)
    inputs, targets = jitted_pair(stage, key, images)
    np.testing.assert_array_equal(inputs, targets)
    assert not np.allclose(targets, images.astype(jnp.float32) / 255)
    both = stage._replace(corruption=Corruption(drop_fraction=0.5))
    inputs, varied = (np.asarray(x) for x in jitted_pair(both, key, images))
    np.testing.assert_array_equal(varied, targets)
    kept = inputs.any(-1)
    assert 0.3 < kept.mean() < 0.7
    np.testing.assert_array_equal(inputs[kept], varied[kept])


def test_evaluated_images_are_never_augmented():
    stage = InputStage(Augmentation(True, 2, 0.3))
    images = batch().images
    inputs, targets = evaluation_pair(stage, jax.random.key(0), images, 0)
    assert inputs is targets
    np.testing.assert_array_equal(targets, images.astype(jnp.float32) / 255)


def test_validation_compares_with_clean_images_whatever_the_batch_size():
    stage = InputStage(Augmentation(True, 2, 0.3), Corruption(drop_fraction=0.5))
    key, hyper = jax.random.key(9), Hyper(1.0, 0.0)
    images = np.concatenate([batch(seed).images for seed in range(2)])
    sums = {}
    for size in (8, 4):
        step, losses = jax.jit(make_eval_step(Echo(), SUM, stage)), []
        carry = EvalCarry({"params": PARAMS}, jnp.int32(0))
        for start in range(0, 16, size):
            piece = Batch(jnp.asarray(images[start : start + size]), jnp.ones(size))
            carry, metrics = step(carry, piece, key, hyper)
            losses.append(float(metrics["recon"]))
        sums[size] = np.mean(losses)
    assert sums[8] == pytest.approx(sums[4], rel=1e-6)
    inputs, _ = evaluation_pair(stage, key, jnp.asarray(images), 0)
    clean = images.astype(np.float32) / 255  # No trace of the augmentation.
    assert sums[8] == pytest.approx(naive_nll(inputs, clean).mean(), rel=1e-5)


def test_batch_statistics_are_measured_on_corrupted_inputs():
    stage = InputStage(Augmentation(brightness=0.5), Corruption(drop_fraction=0.5))
    start = start_statistics(PARAMS, {"mean": jnp.float32(0.0)})
    step = jax.jit(make_statistics_step(Echo(), stage))
    carry, _ = step(start, batch(), jax.random.key(9), Hyper(1.0, 0.0))
    inputs, targets = evaluation_pair(stage, jax.random.key(9), batch().images, 0)
    assert float(carry.total["mean"]) == pytest.approx(float(inputs.mean()), rel=1e-5)
    assert float(inputs.mean()) < 0.6 * float(targets.mean())


def test_interrupted_and_resumed_equals_uninterrupted_bit_for_bit(
    tiny_config, tmp_path, monkeypatch, assert_same_run
):
    corrupted_config, said = configured(tiny_config, **NOISE), []
    corrupted_config.train.epochs, corrupted_config.eval.batch_stats = 1, "running"
    fit(corrupted_config, tmp_path / "whole", said.append)
    assert "Gaussian noise of sigma 0.2; augmentation in training: mirrored" in said[0]
    add, seen = EpochMeans.add, 0

    def stopping(self, metrics):
        nonlocal seen
        seen += len(metrics["images"])
        if seen == 3:
            signal.raise_signal(signal.SIGTERM)
        add(self, metrics)

    monkeypatch.setattr(EpochMeans, "add", stopping)
    monkeypatch.setattr("vae_jax.train.epoch.Pace.count", lambda self, remaining: 1)
    stopped = fit(corrupted_config, tmp_path / "parts", said.append)
    assert stopped.interrupted_by == signal.SIGTERM and stopped.step == 3
    monkeypatch.undo()
    fit(corrupted_config, tmp_path / "parts", said.append)
    assert_same_run(corrupted_config, tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"data.corruption.drop_fraction": 1.5}, "config.data.corruption.drop_fraction is 1.5"),
        ({"data.corruption.mask": "middle"}, "valid are none, rectangle, left"),
        ({"data.corruption.mask": "rectangle"}, "'rectangle' needs a side in pixels"),
        ({"data.corruption.mask_size": 4}, "any other mask 0"),
        ({"data.corruption.mask": "rectangle", "data.corruption.mask_size": 17}, "have only 16"),
        ({"data.augmentation.shift": 17}, "config.data.augmentation.shift is 17 pixels"),
        (
            {"data.corruption.grey": True, "data.image_shape": (16, 16, 1)},
            "config.data.corruption.grey is True, but the images have no colour",
        ),
    ],
)
def test_what_does_not_fit_the_images_is_refused(fields, message):
    with pytest.raises(UserError, match=message):
        configured(**fields)


def test_the_stage_of_a_config():
    stage = make_input_stage(configured(**CORRUPTION, **AUGMENTATION).data)
    assert stage.corruption == Corruption(True, 0.2, 0.5, "black", "rectangle", 5)
    assert stage.augmentation == Augmentation(True, 2, 0.3)
