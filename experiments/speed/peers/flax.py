"""Plain Flax, as most people write it: `nn.Conv`, `nn.BatchNorm`, one jitted step per batch."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training import train_state
from flax.traverse_util import flatten_dict, unflatten_dict

from experiments.speed.peers.peer import run_peer
from experiments.speed.side import Call, Result, Task, shuffled_batches
from vae_jax.streams import make_key


def apply_layer(task: Task, layer: dict[str, Any], x: jax.Array, train: bool) -> jax.Array:
    """Applies one layer with norm and activation, as submodules of the calling module."""
    name, kind, shape = layer["name"], layer["kind"], layer["outputs"]
    common = {"dtype": jnp.dtype(task.dtype), "use_bias": layer["bias"], "name": name}
    if kind == "dense":
        x = nn.Dense(math.prod(shape), **common)(x.reshape(len(x), -1)).reshape(-1, *shape)
    else:
        convolution = nn.Conv if kind == "conv" else nn.ConvTranspose
        size, strides = (layer["kernel"],) * 2, (layer["stride"],) * 2
        x = convolution(shape[-1], size, strides, layer["padding"].upper(), **common)(x)
    if layer["norm"]:
        x = nn.BatchNorm(
            use_running_average=not train,
            momentum=task.norm_momentum,
            epsilon=task.norm_epsilon,
            dtype=jnp.dtype(task.dtype),
            name=f"{name}_norm",
        )(x)
    if layer["activation"] == "leaky_relu":
        return nn.leaky_relu(x, task.negative_slope)
    return x if layer["activation"] == "none" else getattr(nn, layer["activation"])(x)


class Encoder(nn.Module):
    """Images to mean and log_var."""

    task: Task

    @nn.compact
    def __call__(self, x, train):
        *features, mean, log_var = self.task.layers["encoder"]
        for layer in features:
            x = apply_layer(self.task, layer, x, train)
        heads = [apply_layer(self.task, head, x, train) for head in (mean, log_var)]
        return [head.astype(jnp.float32) for head in heads]


class Decoder(nn.Module):
    """Latent points to logits."""

    task: Task

    @nn.compact
    def __call__(self, z, train):
        for layer in self.task.layers["decoder"]:
            z = apply_layer(self.task, layer, z, train)
        return z.astype(jnp.float32)


class VAE(nn.Module):
    """Both."""

    task: Task

    def setup(self):
        self.encoder, self.decoder = Encoder(self.task), Decoder(self.task)

    def __call__(self, images, noise, train=True):
        mean, log_var = self.encoder(images, train)
        return self.decoder(mean + jnp.exp(0.5 * log_var) * noise, train), mean, log_var

    def decode(self, z):
        return nn.sigmoid(self.decoder(z, False))


class TrainState(train_state.TrainState):
    """Flax's own, with batch norm's statistics."""

    batch_stats: Any


def gradient(task: Task, state: TrainState, images: jax.Array, noise: jax.Array):
    """`(loss, batch_stats), grads` of uint8 images and noise `[B, Z]`."""
    targets = images.astype(jnp.float32) / 255.0
    recon_scale, kl_scale = task.scales

    def loss_fn(params):
        variables = {"params": params, "batch_stats": state.batch_stats}
        (logits, mean, log_var), updates = state.apply_fn(
            variables, targets, noise, mutable=["batch_stats"]
        )
        if task.likelihood == "bernoulli":
            recon = optax.sigmoid_binary_cross_entropy(logits, targets)
        else:
            recon = jnp.square(nn.sigmoid(logits) - targets)
        kl = 0.5 * jnp.sum(mean**2 + jnp.exp(log_var) - 1 - log_var, axis=-1)
        loss = recon_scale * recon.sum(axis=(1, 2, 3)) + kl_scale * kl
        return loss.mean(), updates.get("batch_stats", {})

    return jax.value_and_grad(loss_fn, has_aux=True)(state.params)


def train_step(task: Task, state: TrainState, images: jax.Array, key: jax.Array):
    """Returns the next state, and metrics."""
    key = jax.random.fold_in(key, state.step)
    noise = jax.random.normal(key, (len(images), task.z_dim), jnp.float32)
    (loss, batch_stats), grads = gradient(task, state, images, noise)
    state = state.apply_gradients(grads=grads, batch_stats=batch_stats)
    return state, {"loss": loss, "grad_norm": optax.tree.norm(grads)}


class FlaxPeer:
    """A jitted training step that takes its state's memory, and a jitted `decode`."""

    def __init__(self, task: Task) -> None:
        self._task, model = task, VAE(task)
        learning_rate, b1, b2, epsilon = task.adam
        images, noise = jnp.zeros((1, *task.image_shape)), jnp.zeros((1, task.z_dim))
        variables = jax.jit(model.init)(make_key(0), images, noise)
        self._state = TrainState.create(
            apply_fn=model.apply,
            params=variables["params"],
            tx=optax.adam(learning_rate, b1, b2, epsilon),
            batch_stats=variables.get("batch_stats", {}),
        )
        self._train_step = jax.jit(partial(train_step, task), donate_argnums=0)
        self._decode = jax.jit(lambda variables, z: model.apply(variables, z, method="decode"))

    def load(self, images: np.ndarray) -> None:
        """Batches come from the host."""
        self._images = images
        self._batches = shuffled_batches(len(images), self._task.batch_size)

    def take(self, network: str, layer: dict[str, Any], name: str, value: np.ndarray) -> None:
        """Norms are layers of their own; transposed kernels are `nn.ConvTranspose`'s."""
        if layer["kind"] == "conv_transpose" and name == "kernel":
            value = value[::-1, ::-1].swapaxes(2, 3)
        owner = layer["name"] + ("_norm" if name.startswith("norm/") else "")
        params = flatten_dict(self._state.params)
        params[network, owner, name.removeprefix("norm/")] = jnp.asarray(value)
        self._state = self._state.replace(params=unflatten_dict(params))

    def loss_and_gradient_norm(self, images: np.ndarray, noise: np.ndarray) -> tuple[float, float]:
        """Takes the gradient of the training step; the state stays."""
        (loss, _), grads = jax.jit(partial(gradient, self._task))(self._state, images, noise)
        return float(loss), float(optax.tree.norm(grads))

    def train_step(self) -> int:
        """Trains on a batch in one call."""
        images = self._images[next(self._batches)]
        self._state, self._metrics = self._train_step(self._state, images, make_key(1))
        return len(images)

    def synchronize(self) -> None:
        """Waits for the last metrics."""
        jax.block_until_ready(self._metrics)

    def decode(self, z: np.ndarray) -> np.ndarray:
        """Decodes the points in one call."""
        variables = {"params": self._state.params, "batch_stats": self._state.batch_stats}
        return np.asarray(self._decode(variables, z))


def run(call: Call) -> Result:
    """Measures plain Flax."""
    return run_peer(call, lambda task, _: FlaxPeer(task))
