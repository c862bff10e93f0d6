"""Measures where the time of a training step goes: its parts, and every layer."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from experiments.speed.layers import Layer, model_layers
from experiments.speed.side import Call, Result, TaskFolder
from vae_jax import config as configs
from vae_jax.data.batches import to_unit_range
from vae_jax.models.convolution import conv, conv_transpose
from vae_jax.streams import make_key
from vae_jax.train.setup import Experiment, make_experiment
from vae_jax.train.state import TrainState
from vae_jax.train.step import objective_terms
from vae_jax.types import Batch

REPEATS = 5


def milliseconds(functions: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Returns the median time of each function, all of them in turn, after one call to compile."""
    for function in functions.values():
        jax.block_until_ready(function())
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(REPEATS):
        for name, function in functions.items():
            began = time.monotonic()
            jax.block_until_ready(function())
            times[name].append(1000 * (time.monotonic() - began))
    return {name: statistics.median(values) for name, values in times.items()}


def profile_step(config: ConfigDict, images: jax.Array) -> dict[str, float]:
    """Measures one step, its parts, and variants that lack something.

    Args:
        config: The whole config.
        images: `[B, H, W, C]` uint8.

    Returns:
        Milliseconds by name; 'gradient' is forward and backward, the rest of 'step' is the
        optimiser with the guard against non-finite steps.
    """
    batch = Batch(images, jnp.ones(len(images)))
    experiment = make_experiment(config, total_steps=1)
    state = experiment.init_state()
    step = jax.jit(experiment.train_step)
    functions = {
        "step": lambda: step(state, batch, experiment.run_key, experiment.hyper),
        "gradient": _gradient(experiment, state, batch),
        "forward": _forward(experiment, state, batch),
        "adam": _adam(experiment, state),
    }
    for name, field, value in (
        ("gradient without norm", "norm", "none"),
        ("gradient without activation", "activation", "none"),
    ):
        variant = config.copy_and_resolve_references()
        if variant.model[field] == value:
            continue
        variant.model[field] = value
        other = make_experiment(variant, total_steps=1)
        functions[name] = _gradient(other, other.init_state(), batch)
    return milliseconds(functions)


def _loss(experiment: Experiment, state: TrainState, batch: Batch) -> Callable[[Any], jax.Array]:
    def loss(params: Any) -> jax.Array:
        targets = to_unit_range(batch.images)
        output, _ = experiment.model.apply(
            {"params": params, "batch_stats": state.batch_stats},
            targets,
            train=True,
            sample=True,
            mask=batch.weights > 0,
            rngs={name: experiment.run_key for name in ("latent", "dropout")},
            mutable=["batch_stats"],
        )
        weight = experiment.hyper.kl_weight
        terms = objective_terms(experiment.objective, output, targets, batch.weights, weight)
        return terms["loss"]

    return loss


def _forward(experiment: Experiment, state: TrainState, batch: Batch) -> Callable[[], Any]:
    # Arrays are arguments: what a program closes over, XLA may fold into constants.
    forward = jax.jit(lambda state, batch: _loss(experiment, state, batch)(state.params))
    return lambda: forward(state, batch)


def _gradient(experiment: Experiment, state: TrainState, batch: Batch) -> Callable[[], Any]:
    gradient = jax.jit(
        lambda state, batch: jax.value_and_grad(_loss(experiment, state, batch))(state.params)
    )
    return lambda: gradient(state, batch)


def _adam(experiment: Experiment, state: TrainState) -> Callable[[], Any]:
    @jax.jit
    def update(grads: Any, opt_state: Any, params: Any) -> Any:
        updates, opt_state = experiment.tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    return lambda: update(state.params, state.opt_state, state.params)


def profile_layers(config: ConfigDict) -> list[dict[str, Any]]:
    """Measures forward pass and gradients of every layer alone, in milliseconds for one batch.

    Returns:
        One entry per layer with its `flop` for the batch and the `forward` and `gradients`, which
        are those of kernel and input (kernel alone for the first layer).
    """
    rows, layers = [], model_layers(config)
    for network, part in layers._asdict().items():
        for layer in part:
            first = layer is layers.encoder[0]
            times = milliseconds(_layer_functions(config, layer, first))
            flop = layer.flop * config.train.batch_size
            rows.append({"name": f"{network}/{layer.name}", "flop": flop, "first": first} | times)
    return rows


def _layer_functions(config: ConfigDict, layer: Layer, first: bool) -> dict[str, Callable[[], Any]]:
    dtype = jnp.dtype(config.model.dtype)
    keys = jax.random.split(make_key(0), 3)
    size, channels = (layer.kernel,) * 2, (layer.inputs[-1], layer.outputs[-1])
    options = {
        "strides": (layer.stride,) * 2,
        "padding": layer.padding,
        "implementation": config.model.convolution,
    }
    if layer.kind == "dense":
        kernel_shape = (math.prod(layer.inputs), math.prod(layer.outputs))
        inputs = kernel_shape[:1]
        apply = jnp.matmul
    elif layer.kind == "conv":
        inputs, kernel_shape = layer.inputs, (*size, *channels)
        apply = lambda x, k: conv(x, k, input_gradient=not first, **options)  # noqa: E731
    else:
        inputs, kernel_shape = layer.inputs, (*size, *channels[::-1])
        apply = lambda x, k: conv_transpose(x, k, **options)  # noqa: E731
    x = jax.random.normal(keys[0], (config.train.batch_size, *inputs), dtype)
    kernel = jax.random.normal(keys[1], (layer.weights,), dtype).reshape(kernel_shape)
    cotangent = jax.random.normal(keys[2], jax.eval_shape(apply, x, kernel).shape, dtype)
    forward = jax.jit(apply)

    @jax.jit
    def gradients(x: jax.Array, kernel: jax.Array, cotangent: jax.Array) -> Any:
        found = jax.vjp(apply, x, kernel)[1](cotangent)
        return found[1:] if first else found

    return {
        "forward": lambda: forward(x, kernel),
        "gradients": lambda: gradients(x, kernel, cotangent),
    }


def run(call: Call) -> Result:
    """Profiles the folder's config on its first batch."""
    folder = TaskFolder(call.folder)
    config = configs.from_json(folder.task.config)
    images = jnp.asarray(folder.images()[: config.train.batch_size])
    return {"step": profile_step(config, images), "layers": profile_layers(config)}
