"""Keras 3 on TensorFlow with a custom `train_step`, compiled by XLA ('jit') or not ('graph')."""

from __future__ import annotations

import math
import os
from typing import Any

os.environ["KERAS_BACKEND"] = "tensorflow"  # Keras reads it on import.

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from vae_jax.throughput import side  # noqa: E402
from vae_jax.throughput.side import Side, Task, TaskFolder  # noqa: E402

DECODING_BATCH = 256


def apply_layer(task: Task, layer: dict[str, Any], x: Any) -> Any:
    """One layer with norm and activation, in Keras' functional style."""
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
    """Encoder and decoder."""
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
        """The loss, a scalar, for `[B, H, W, C]` in [0, 1] and noise `[B, Z]`."""
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
        """What `fit` compiles."""
        noise = tf.random.normal((self.task.batch_size, self.task.z_dim))
        with tf.GradientTape() as tape:
            loss = self.loss_of(tf.cast(images, tf.float32) / 255.0, noise)
        variables = self.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        return {"loss": loss}


class KerasSide:
    """Training or decoding."""

    def __init__(self, folder: TaskFolder, variant: str) -> None:
        self._folder, self._task = folder, folder.task
        task = self._task
        keras.utils.set_random_seed(0)
        if task.dtype == "bfloat16":
            keras.config.set_dtype_policy("mixed_bfloat16")
        self._model, jit = VAE(task), variant == "jit"
        learning_rate, b1, b2, epsilon = task.adam
        adam = keras.optimizers.Adam(learning_rate, b1, b2, epsilon)
        self._model.compile(optimizer=adam, jit_compile=jit)
        self._logs: Any = None
        if task.what == "decode":
            self._latents = folder.latents()
            self._decode = tf.function(self._decoded, jit_compile=jit, reduce_retracing=True)
            return
        images = folder.images()
        adam.build(self._model.trainable_variables)
        data = tf.data.Dataset.from_tensor_slices(images).shuffle(len(images))
        data = data.repeat().batch(task.batch_size, drop_remainder=True)
        self._batches = iter(data.prefetch(tf.data.AUTOTUNE))
        self._model.make_train_function()  # What `fit` calls for every batch.

    def _decoded(self, z: Any) -> Any:
        return tf.sigmoid(tf.cast(self._model.decoder(z, training=False), tf.float32))

    def _take_our_weights(self) -> None:
        for path, value in self._folder.weights().items():
            network, name, *rest = path.split("/")
            name = f"{name}_norm" if len(rest) == 2 else name
            layer = getattr(self._model, network).get_layer(name)
            names = {"scale": "gamma", "bias": "beta"} if len(rest) == 2 else {}
            getattr(layer, names.get(rest[-1], rest[-1])).assign(value)

    def check(self) -> dict[str, float]:
        """Loss and gradient norm, or the spread of decoded pixels."""
        self._take_our_weights()
        if self._task.what == "decode":
            return {"pixel_std": float(np.concatenate(list(self._decode_all())).std())}
        images, noise = self._folder.check_batch()
        with tf.GradientTape() as tape:
            loss = self._model.loss_of(images.astype(np.float32) / 255.0, noise)
        grads = tape.gradient(loss, self._model.trainable_variables)
        return {"loss": float(loss), "grad_norm": float(tf.linalg.global_norm(grads))}

    def _decode_all(self):
        for start in range(0, len(self._latents), DECODING_BATCH):
            yield self._decode(self._latents[start : start + DECODING_BATCH]).numpy()

    def step(self) -> int:
        """A training step, or all latent points decoded."""
        if self._task.what == "decode":
            return sum(map(len, self._decode_all()))
        self._logs = self._model.train_function(self._batches)
        return self._task.batch_size

    def synchronize(self) -> None:
        """Wait for the last loss."""
        if self._logs is not None:
            self._logs["loss"].numpy()


def build(folder: TaskFolder, variant: str) -> Side:
    """The side for the folder's task; variant is 'graph' or 'jit'."""
    return KerasSide(folder, variant)


if __name__ == "__main__":
    side.main(build)
