"""Keras 3 on TensorFlow, with its loss in a custom `train_step`; compiled by XLA or not."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np

os.environ["KERAS_BACKEND"] = "tensorflow"  # Keras reads it on import.

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

from experiments.speed.peers.peer import run_peer  # noqa: E402
from experiments.speed.side import Call, Result, Task  # noqa: E402


def apply_layer(task: Task, layer: dict[str, Any], x: Any) -> Any:
    """Applies one layer with norm and activation, in Keras' functional style."""
    name, kind, shape = layer["name"], layer["kind"], layer["outputs"]
    if kind == "dense":
        x = keras.layers.Dense(math.prod(shape), name=name)(keras.layers.Flatten()(x))
        x = keras.layers.Reshape(shape)(x)
    else:
        kinds = {"conv": keras.layers.Conv2D, "conv_transpose": keras.layers.Conv2DTranspose}
        x = kinds[kind](
            shape[-1],
            layer["kernel"],
            layer["stride"],
            layer["padding"],
            use_bias=layer["bias"],
            name=name,
        )(x)
    if layer["norm"]:
        x = keras.layers.BatchNormalization(
            momentum=task.norm_momentum, epsilon=task.norm_epsilon, name=f"{name}_norm"
        )(x)
    if layer["activation"] == "leaky_relu":
        return keras.layers.LeakyReLU(negative_slope=task.negative_slope)(x)
    return x if layer["activation"] == "none" else keras.layers.Activation(layer["activation"])(x)


def make_networks(task: Task) -> tuple[keras.Model, keras.Model]:
    """Returns encoder and decoder."""
    images = x = keras.Input(task.image_shape)
    *features, mean, log_var = task.layers["encoder"]
    for layer in features:
        x = apply_layer(task, layer, x)
    heads = [apply_layer(task, head, x) for head in (mean, log_var)]
    latent = z = keras.Input((task.z_dim,))
    for layer in task.layers["decoder"]:
        z = apply_layer(task, layer, z)
    return keras.Model(images, heads), keras.Model(latent, z)


class VAE(keras.Model):
    """Both, with the loss in an explicit training step."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task
        self.encoder, self.decoder = make_networks(task)

    def loss_of(self, targets: Any, noise: Any) -> Any:
        """Returns the loss, a scalar, for `[B, H, W, C]` in [0, 1] and noise `[B, Z]`."""
        mean, log_var = (tf.cast(h, tf.float32) for h in self.encoder(targets, training=True))
        z = mean + tf.exp(0.5 * log_var) * noise
        logits = tf.cast(self.decoder(z, training=True), tf.float32)
        if self.task.likelihood == "bernoulli":
            recon = tf.nn.sigmoid_cross_entropy_with_logits(targets, logits)
        else:
            recon = tf.square(tf.sigmoid(logits) - targets)
        kl = 0.5 * tf.reduce_sum(mean**2 + tf.exp(log_var) - 1 - log_var, axis=-1)
        recon_scale, kl_scale = self.task.scales
        loss = recon_scale * tf.reduce_sum(recon, axis=(1, 2, 3)) + kl_scale * kl
        return tf.reduce_mean(loss)

    def train_step(self, images: Any) -> dict[str, Any]:
        """Returns what `fit` compiles."""
        noise = tf.random.normal((self.task.batch_size, self.task.z_dim))
        with tf.GradientTape() as tape:
            loss = self.loss_of(tf.cast(images, tf.float32) / 255.0, noise)
        variables = self.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        return {"loss": loss}


class KerasPeer:
    """The compiled model, trained by what `fit` calls for every batch."""

    def __init__(self, task: Task, variant: str) -> None:
        keras.utils.set_random_seed(0)
        if task.dtype == "bfloat16":
            keras.config.set_dtype_policy("mixed_bfloat16")
        self._model, jit = VAE(task), variant == "jit"
        learning_rate, b1, b2, epsilon = task.adam
        adam = keras.optimizers.Adam(learning_rate, b1, b2, epsilon)
        self._model.compile(optimizer=adam, jit_compile=jit)
        self._decode = tf.function(self._decoded, jit_compile=jit, reduce_retracing=True)

    def load(self, images: np.ndarray) -> None:
        """Makes a `tf.data` pipeline."""
        self._model.optimizer.build(self._model.trainable_variables)
        data = tf.data.Dataset.from_tensor_slices(images).shuffle(len(images))
        data = data.repeat().batch(self._model.task.batch_size, drop_remainder=True)
        self._batches = iter(data.prefetch(tf.data.AUTOTUNE))
        self._model.make_train_function()  # What `fit` calls for every batch.

    def take(self, network: str, layer: dict[str, Any], name: str, value: np.ndarray) -> None:
        """Norms are layers of their own; all shapes are ours."""
        owner, attribute = layer["name"], name
        if name.startswith("norm/"):
            owner, attribute = f"{owner}_norm", {"norm/scale": "gamma", "norm/bias": "beta"}[name]
        getattr(getattr(self._model, network).get_layer(owner), attribute).assign(value)

    def loss_and_gradient_norm(self, images: np.ndarray, noise: np.ndarray) -> tuple[float, float]:
        """Takes the loss of the training step, not compiled."""
        with tf.GradientTape() as tape:
            loss = self._model.loss_of(images.astype(np.float32) / 255.0, noise)
        grads = tape.gradient(loss, self._model.trainable_variables)
        return float(loss), float(tf.linalg.global_norm(grads))

    def train_step(self) -> int:
        """Trains on a batch in one call."""
        self._logs = self._model.train_function(self._batches)
        return self._model.task.batch_size

    def synchronize(self) -> None:
        """Waits for the last loss."""
        self._logs["loss"].numpy()

    def decode(self, z: np.ndarray) -> np.ndarray:
        """Decodes the points in one call."""
        return self._decode(z).numpy()

    def _decoded(self, z: Any) -> Any:
        return tf.sigmoid(tf.cast(self._model.decoder(z, training=False), tf.float32))


def run(call: Call) -> Result:
    """Measures Keras, variant 'graph' or 'jit'."""
    return run_peer(call, KerasPeer)
