"""The VAE in plain Flax, as most people write it: `nn.Conv`, `nn.ConvTranspose`, `nn.BatchNorm`."""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vae_jax.throughput.side import Task


def apply_layer(task: Task, layer: dict[str, Any], x: jax.Array, train: bool) -> jax.Array:
    """One layer with norm and activation, as submodules of the calling module."""
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
