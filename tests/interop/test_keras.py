"""Outputs, losses and gradients of the reference models against Keras' own numbers."""

import functools
import importlib
import json
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import make_keras_fixture as fixture
import numpy as np
import pytest

from vae_jax.interop.keras import from_arrays, to_arrays
from vae_jax.losses import Objective
from vae_jax.models.vae import make_vae, reparameterize
from vae_jax.train.step import objective_terms
from vae_jax.types import VAEOutput

CONFIGS = {"mnist_z12": "mnist_z12", "keras_example": "keras_example", "celeba96": "celeba"}
# Both types and both implementations of convolution meet Keras. Dtype, relative tolerance:
PRECISIONS = {
    "mnist_z12": (jnp.float64, 1e-9),
    "keras_example": (jnp.float32, 1e-5),
    "celeba96": (jnp.float64, 1e-9),
}
CONVOLUTIONS = {"mnist_z12": "matmul", "keras_example": "xla", "celeba96": "matmul"}
COUNTS = {
    "mnist_z12": [243_224, 174_081],
    "keras_example": [69_076, 65_089],
    "celeba96": [5_109_440, 2_757_571],
}
WAYS = ("explicit_0", "layer_loss", "extra_outputs", "model_loss")


def forward(module, images, noise, train):
    """The model with given noise."""
    mean, log_var = module.encoder(images, train)
    z = reparameterize(mean, log_var, noise)
    return VAEOutput(module.decoder(z, train), mean, log_var, z)


class Ours(NamedTuple):
    """What our model computes with the fixture's weights, images and noise; summaries `[..., 3]`.

    Attributes:
        counts: parameters of encoder and decoder, statistics included.
        outputs: of the two forward passes, by the fixture's names.
        updated: by network, of all weights after the running statistics saw one batch.
        losses: one for each objective.
        gradients: one `[W, 3]` for each objective.
    """

    counts: list[int]
    outputs: dict[str, np.ndarray]
    updated: dict[str, np.ndarray]
    losses: list[float]
    gradients: list[np.ndarray]


def compute(name, roles, arrays, dtype):
    config = importlib.import_module(f"configs.{CONFIGS[name]}").get_config()
    # TensorFlow's LeakyReLU holds its slope in float32, whatever the type of its input.
    config.model.negative_slope = float(np.float32(config.model.negative_slope))
    config.model.convolution = CONVOLUTIONS[name]
    model = make_vae(config.model, config.data.image_shape)
    data = (from_arrays(*arrays, model), *fixture.inputs_of(fixture.MODELS[name]))
    variables, images, noise = jax.tree.map(lambda array: jnp.asarray(array, dtype), data)
    objectives = fixture.MODELS[name].objectives

    def run(params, batch_stats, images, noise, choice, train):
        variables = {"params": params, "batch_stats": batch_stats}
        output, updated = model.apply(
            variables, images, noise, train, method=forward, mutable=["batch_stats"]
        )
        ones = jnp.ones(len(images), images.dtype)
        losses = [
            objective_terms(Objective(*objective), output, images, ones, kl_weight)["loss"]
            for *objective, kl_weight in objectives
        ]
        statistics = batch_stats | updated.get("batch_stats", {})
        return jnp.stack(losses) @ choice, (output, statistics)

    run_eval = jax.jit(partial(run, train=False))
    run_train = jax.jit(jax.value_and_grad(partial(run, train=True), has_aux=True))
    inputs = (variables["params"], variables["batch_stats"], images, noise)
    choices = np.eye(len(objectives), dtype=dtype)
    _, (evaluated, _) = run_eval(*inputs, choices[0])
    trained = [run_train(*inputs, choice) for choice in choices]
    (_, (output, statistics)), _ = trained[0]
    updated = to_arrays({"params": variables["params"], "batch_stats": statistics})
    return Ours(
        [sum(array.size for array in network) for network in arrays],
        summarize(output, "train") | summarize(evaluated, "eval"),
        {network: summaries(weights) for network, weights in updated.items()},
        [float(loss) for (loss, _), _ in trained],
        [summaries(trainable(gradients, statistics, roles)) for _, gradients in trained],
    )


def trainable(gradients, statistics, roles):
    """The gradients in the order of Keras' trainable weights."""
    arrays = to_arrays({"params": gradients, "batch_stats": statistics})
    return [
        array
        for network in ("encoder", "decoder")
        for array, (role, _) in zip(arrays[network], roles[network], strict=True)
        if not role.startswith("moving")
    ]


def summaries(arrays):
    return np.array([fixture.summary(array) for array in arrays])


def summarize(output, mode):
    parts = {"mean": output.mean, "log_var": output.log_var, "p": jax.nn.sigmoid(output.logits)}
    return {f"{part}_{mode}": fixture.summary(value) for part, value in parts.items()}


@pytest.fixture(scope="module")
def ours(kept, formula_arrays):
    @functools.cache
    def by_name(name):
        dtype, _ = PRECISIONS[name]
        with jax.enable_x64(dtype == jnp.float64):
            roles = json.loads(str(kept[f"{name}/weights"]))
            return compute(name, roles, formula_arrays(roles), dtype)

    return by_name


def assert_close(actual, expected, rtol):
    """Summaries agree relative to each array's norm, or to a ten-thousandth of the largest norm.

    The gradient of a bias in front of a batch norm is exactly 0: only rounding is left of it.
    """
    actual, expected = np.atleast_2d(actual), np.atleast_2d(expected)
    norms = np.maximum(expected[:, :1], 1e-4 * expected[:, :1].max())
    np.testing.assert_array_less(np.abs(actual - expected) / norms, rtol)


@pytest.mark.parametrize("name", CONFIGS)
def test_outputs_losses_and_gradients_are_those_of_keras(name, ours, kept):
    computed, (_, rtol) = ours(name), PRECISIONS[name]
    assert computed.counts == kept[f"{name}/counts"].tolist() == COUNTS[name]
    for part, value in computed.outputs.items():
        assert_close(value, kept[f"{name}/{part}"], rtol)
    for network, value in computed.updated.items():
        assert_close(value, kept[f"{name}/updated_{network}"], rtol)
    for i, (loss, gradients) in enumerate(zip(computed.losses, computed.gradients, strict=True)):
        assert loss == pytest.approx(float(kept[f"{name}/loss_explicit_{i}"]), rel=rtol)
        assert_close(gradients, kept[f"{name}/gradients_explicit_{i}"], rtol)


@pytest.mark.parametrize("way", WAYS)
def test_the_four_ways_to_add_the_kl_in_keras_are_our_one_function(way, ours, kept):
    (loss,), (gradients,) = ours("mnist_z12").losses, ours("mnist_z12").gradients
    assert loss == pytest.approx(float(kept[f"mnist_z12/loss_{way}"]), rel=1e-9)
    assert_close(gradients, kept[f"mnist_z12/gradients_{way}"], 1e-9)
