"""Plain Flax, as most people write it: `nn.Conv`, `nn.ConvTranspose`, one jitted step a batch."""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training import train_state
from flax.traverse_util import unflatten_dict

from vae_jax.throughput import side
from vae_jax.throughput.side import Side, Task, TaskFolder

DECODING_BATCH = 256


class TrainState(train_state.TrainState):
    """Flax's own, with batch norm's statistics."""

    batch_stats: Any


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


class FlaxSide:
    """Training or decoding."""

    def __init__(self, folder: TaskFolder) -> None:
        self._folder, self._task = folder, folder.task
        task = self._task
        self._model = VAE(task)
        learning_rate, b1, b2, epsilon = task.adam
        images, noise = jnp.zeros((1, *task.image_shape)), jnp.zeros((1, task.z_dim))
        variables = jax.jit(self._model.init)(jax.random.key(0), images, noise)
        self._state = TrainState.create(
            apply_fn=self._model.apply,
            params=variables["params"],
            tx=optax.adam(learning_rate, b1, b2, epsilon),
            batch_stats=variables.get("batch_stats", {}),
        )
        self._train_step = jax.jit(self._make_train_step(), donate_argnums=0)
        self._decode = jax.jit(lambda v, z: self._model.apply(v, z, method="decode"))
        if task.what == "train":
            self._images = folder.images()
            self._batches = side.shuffled_batches(len(self._images), task.batch_size)
        else:
            self._latents = folder.latents()
        self._metrics: Any = None

    def _make_train_step(self):
        task = self._task
        recon_scale, kl_scale = task.scales

        def train_step(state, images, key_or_noise):
            targets = images.astype(jnp.float32) / 255.0
            noise = key_or_noise
            if jnp.issubdtype(noise.dtype, jax.dtypes.prng_key):
                key = jax.random.fold_in(key_or_noise, state.step)
                noise = jax.random.normal(key, (len(images), task.z_dim))

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

            gradient = jax.value_and_grad(loss_fn, has_aux=True)
            (loss, batch_stats), grads = gradient(state.params)
            state = state.apply_gradients(grads=grads, batch_stats=batch_stats)
            return state, {"loss": loss, "grad_norm": optax.tree.norm(grads)}

        return train_step

    def _with_our_weights(self) -> TrainState:
        kinds = {
            (network, layer["name"]): layer["kind"]
            for network, layers in self._task.layers.items()
            for layer in layers
        }
        params = {}
        for path, value in self._folder.weights().items():
            network, name, *rest = path.split("/")
            if rest == ["kernel"] and kinds[network, name] == "conv_transpose":
                value = value[::-1, ::-1].swapaxes(2, 3)
            if len(rest) == 2:  # conv_0/norm/scale
                name, rest = f"{name}_norm", rest[1:]
            params[network, name, *rest] = jnp.asarray(value)
        # A step takes its arguments' memory: this side's own state must outlive the check.
        return jax.tree.map(jnp.copy, self._state).replace(params=unflatten_dict(params))

    def check(self) -> dict[str, float]:
        """Loss and gradient norm, or the spread of decoded pixels."""
        state = self._with_our_weights()
        if self._task.what == "decode":
            variables = {"params": state.params, "batch_stats": state.batch_stats}
            return {"pixel_std": float(self._decode(variables, self._latents).std())}
        _, metrics = self._train_step(state, *self._folder.check_batch())
        return {name: float(value) for name, value in metrics.items()}

    def step(self) -> int:
        """A training step, or all latent points decoded."""
        if self._task.what == "decode":
            variables = {"params": self._state.params, "batch_stats": self._state.batch_stats}
            for start in range(0, len(self._latents), DECODING_BATCH):
                z = self._latents[start : start + DECODING_BATCH]
                np.asarray(self._decode(variables, z))
            return len(self._latents)
        images = self._images[next(self._batches)]
        self._state, self._metrics = self._train_step(self._state, images, jax.random.key(1))
        return len(images)

    def synchronize(self) -> None:
        """Wait for the last step."""
        jax.block_until_ready(self._metrics)


def build(folder: TaskFolder, variant: str) -> Side:
    """The side for the folder's task."""
    del variant
    return FlaxSide(folder)


if __name__ == "__main__":
    side.main(build)
