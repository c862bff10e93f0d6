"""The VAE in Keras 3 on TensorFlow, with its loss in a custom `train_step`."""

from __future__ import annotations

import math
import os
from typing import Any

os.environ["KERAS_BACKEND"] = "tensorflow"  # Keras reads it on import.

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

from vae_jax.throughput.side import Task  # noqa: E402


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
