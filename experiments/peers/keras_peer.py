"""Keras 3 on TensorFlow, compiled by XLA ('jit') or not ('graph')."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.peers import peer
from experiments.peers.keras_model import VAE, keras, tf  # which chooses Keras' backend
from vae_jax.throughput.side import Task


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
        """A `tf.data` pipeline."""
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
        """By the loss of the training step, not compiled."""
        with tf.GradientTape() as tape:
            loss = self._model.loss_of(images.astype(np.float32) / 255.0, noise)
        grads = tape.gradient(loss, self._model.trainable_variables)
        return float(loss), float(tf.linalg.global_norm(grads))

    def train_step(self) -> int:
        """One call for a batch."""
        self._logs = self._model.train_function(self._batches)
        return self._model.task.batch_size

    def synchronize(self) -> None:
        """Wait for the last loss."""
        self._logs["loss"].numpy()

    def decode(self, z: np.ndarray) -> np.ndarray:
        """One call for the points."""
        return self._decode(z).numpy()

    def _decoded(self, z: Any) -> Any:
        return tf.sigmoid(tf.cast(self._model.decoder(z, training=False), tf.float32))


if __name__ == "__main__":
    peer.main(KerasPeer)
