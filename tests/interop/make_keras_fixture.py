"""What Keras 3 computes on the three reference models; it needs Keras and TensorFlow alone.

    pip install "keras>=3.8" "tensorflow-cpu>=2.18"
    python tests/interop/make_keras_fixture.py

Writes keras_reference.npz and tiny_{encoder,decoder}.weights.h5 beside this file. Weights, images
and noise come from `uniform`, so that both sides make them; only a few numbers of every result are
stored. Everything but the .h5 files is computed in float64.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

FOLDER = Path(__file__).parent
BATCH = 3
PROJECTION, IMAGES, NOISE, WEIGHTS = range(4)  # first word of the seeds


class Architecture(NamedTuple):
    """A reference model and the objectives it was published with."""

    image_shape: tuple[int, int, int]
    z_dim: int
    filters: tuple[int, ...]
    strides: tuple[int, ...]
    decoder_filters: tuple[int, ...]
    decoder_strides: tuple[int, ...]
    activation: str  # of all layers
    objectives: tuple[tuple[str, str, float], ...]  # likelihood, reduction, KL weight
    norm: bool = False
    dense: tuple[int, ...] = ()
    decoder_dense_activation: str = "none"
    dropout: float = 0.0


MODELS = {
    "mnist_z12": Architecture(
        (28, 28, 1), 12, (32, 64, 128), (1, 2, 2), (64, 32), (2, 2, 1), "leaky_relu",
        (("bernoulli", "mean", 6.5e-4),),
    ),
    "keras_example": Architecture(
        (28, 28, 1), 2, (32, 64), (2, 2), (64, 32), (2, 2, 1), "relu",
        (("bernoulli", "channel_mean", 1.0),), dense=(16,), decoder_dense_activation="relu",
    ),
    "celeba96": Architecture(
        (96, 96, 3), 256, (32, 64, 128, 256), (2, 2, 2, 2), (128, 64, 32), (2, 2, 2, 2),
        "leaky_relu",
        (("bernoulli", "channel_mean", 5.0), ("squared_error", "channel_mean", 2e-2)), norm=True,
    ),
}  # fmt: skip
TINY = Architecture(
    (16, 16, 3), 4, (4, 8), (2, 2), (4,), (2, 2), "leaky_relu", (),
    norm=True, dense=(6,), dropout=0.2,
)  # fmt: skip


def uniform(shape: Sequence[int], *seed: int) -> np.ndarray:
    """Float64 in [-1, 1) from the raw bits of Philox, which NumPy never changes."""
    bits = np.random.Philox(key=sum(word << 20 * i for i, word in enumerate(seed)))
    raw = bits.random_raw(int(np.prod(shape, dtype=int)))
    return ((raw >> np.uint64(11)) * 2.0**-52 - 1.0).reshape(shape)


def draw_weight(role: str, shape: Sequence[int], *seed: int) -> np.ndarray:
    """A weight of plausible size: `role` is Keras' name for it, kernels have unit gain."""
    values = uniform(shape, WEIGHTS, *seed)
    if role == "kernel":
        return values * np.sqrt(3.0 / np.prod(shape[:-1]))
    if role in ("gamma", "moving_variance"):
        return 1.0 + 0.3 * values
    return 0.2 * values


def inputs_of(model: Architecture) -> tuple[np.ndarray, np.ndarray]:
    """Images `[B, H, W, C]` in [0, 1) and latent noise `[B, Z]`."""
    images = 0.5 + 0.5 * uniform((BATCH, *model.image_shape), IMAGES)
    return images, 1.7 * uniform((BATCH, model.z_dim), NOISE)


def summary(array: np.ndarray) -> np.ndarray:
    """The norm of an array and its products with two fixed vectors of unit entries."""
    flat = np.asarray(array, np.float64).ravel()
    projections = [flat @ np.sign(uniform(flat.shape, PROJECTION, i)) for i in range(2)]
    return np.array([np.linalg.norm(flat), *projections])


def build(model: Architecture, keras: Any) -> tuple[Any, Any]:
    """The encoder (images to mean, log-variance) and the decoder (points to probabilities)."""
    layers = keras.layers
    activate = layers.LeakyReLU if model.activation == "leaky_relu" else layers.ReLU

    def after(x: Any) -> Any:
        x = layers.BatchNormalization()(x) if model.norm else x
        x = activate()(x)
        return layers.Dropout(model.dropout)(x) if model.dropout else x

    images = x = keras.Input(model.image_shape)
    for filters, stride in zip(model.filters, model.strides, strict=True):
        x = after(layers.Conv2D(filters, 3, strides=stride, padding="same")(x))
    start = x.shape[1:]
    x = layers.Flatten()(x)
    for width in model.dense:
        x = activate()(layers.Dense(width)(x))
    outputs = [layers.Dense(model.z_dim, name=name)(x) for name in ("mu", "log_var")]
    encoder = keras.Model(images, outputs, name="encoder")
    points = keras.Input((model.z_dim,))
    x = layers.Dense(int(np.prod(start)))(points)
    x = layers.ReLU()(x) if model.decoder_dense_activation == "relu" else x
    x = layers.Reshape(start)(x)
    *strides, last = model.decoder_strides
    for filters, stride in zip(model.decoder_filters, strides, strict=True):
        x = after(layers.Conv2DTranspose(filters, 3, strides=stride, padding="same")(x))
    channels = model.image_shape[-1]
    x = layers.Conv2DTranspose(
        channels, 3, strides=last, padding="same", activation="sigmoid", name="image"
    )(x)
    return encoder, keras.Model(points, x, name="decoder")


def set_weights(network: Any, seed: int) -> list[tuple[str, list[int]]]:
    """Give a Keras model its formula weights; returns the role and shape of each."""
    roles = [(weight.name, list(weight.shape)) for weight in network.weights]
    network.set_weights([draw_weight(*role, seed, i) for i, role in enumerate(roles)])
    return roles


def reference_loss(
    keras: Any, objective: tuple[str, str, float], x: Any, p: Any, mu: Any, log_var: Any
) -> Any:
    """The loss as the reference writes it, a scalar, with Keras' own losses."""
    ops, losses = keras.ops, keras.losses
    likelihood, reduction, kl_weight = objective
    bernoulli = likelihood == "bernoulli"
    pixel = (losses.binary_crossentropy if bernoulli else losses.mean_squared_error)(x, p)
    inner = 1 + log_var - ops.square(mu) - ops.exp(log_var)
    if reduction == "mean":
        return ops.mean(pixel) - kl_weight * ops.mean(inner)
    reconstruction = ops.mean(ops.sum(pixel, axis=(1, 2)))
    return reconstruction + kl_weight * ops.mean(-0.5 * ops.sum(inner, axis=1))


def kept_by_keras(
    keras: Any, encoder: Any, decoder: Any, model: Architecture
) -> dict[str, Callable]:
    """The three published ways that leave the KL term to Keras, each `(images, noise) -> loss`."""
    ops, layers = keras.ops, keras.layers
    ((_, _, kl_weight),) = model.objectives

    def kl(mu: Any, log_var: Any) -> Any:
        return -kl_weight * ops.mean(1 + log_var - ops.square(mu) - ops.exp(log_var), axis=-1)

    class KLLayer(layers.Layer):
        def call(self, statistics: Any) -> Any:
            self.add_loss(ops.mean(kl(*statistics)))
            return statistics

    class ModelLoss(keras.Model):
        def call(self, data: Any) -> Any:
            mu, log_var = encoder(data[0])
            self.add_loss(ops.mean(kl(mu, log_var)))
            return decoder(mu + ops.exp(0.5 * log_var) * data[1])

    images, noise = keras.Input(model.image_shape), keras.Input((model.z_dim,))
    mu, log_var = encoder(images)
    z = layers.Lambda(lambda t: t[0] + ops.exp(0.5 * t[1]) * t[2])
    kept = KLLayer()([mu, log_var])
    layer_loss = keras.Model([images, noise], decoder(z([*kept, noise])))
    statistics = layers.Concatenate()([mu, log_var])
    outputs = keras.Model([images, noise], [decoder(z([mu, log_var, noise])), statistics])
    cross_entropy = keras.losses.BinaryCrossentropy
    layer_loss.compile(loss=cross_entropy())
    outputs.compile(loss=[cross_entropy(), lambda _, s: kl(*ops.split(s, 2, axis=-1))])
    model_loss = ModelLoss()
    model_loss.compile(loss=cross_entropy())

    def run(whole: Any, x: Any, noise: Any) -> Any:
        predicted = whole([x, noise], training=True)
        y = [x, predicted[1] * 0] if isinstance(predicted, list) else x
        return whole.compute_loss(x, y, predicted)

    return {
        "layer_loss": lambda *data: run(layer_loss, *data),
        "extra_outputs": lambda *data: run(outputs, *data),
        "model_loss": lambda *data: run(model_loss, *data),
    }


def record(name: str, model: Architecture, keras: Any, tf: Any) -> dict[str, np.ndarray]:
    """Everything that is kept of one model, under names that begin with its name."""
    encoder, decoder = build(model, keras)
    networks = {"encoder": encoder, "decoder": decoder}
    roles = {n: set_weights(network, i) for i, (n, network) in enumerate(networks.items())}
    before = [network.get_weights() for network in networks.values()]
    x, noise = (tf.constant(array) for array in inputs_of(model))
    kept: dict[str, Any] = {"weights": json.dumps(roles)}
    trainable = encoder.trainable_variables + decoder.trainable_variables

    def forward(training: bool) -> tuple[Any, Any, Any]:
        mu, log_var = encoder(x, training=training)
        z = mu + tf.exp(0.5 * log_var) * noise
        return mu, log_var, decoder(z, training=training)

    def explicit(objective: tuple[str, str, float]) -> Any:
        mu, log_var, p = forward(training=True)
        return reference_loss(keras, objective, x, p, mu, log_var)

    ways = {f"explicit_{i}": lambda o=o: explicit(o) for i, o in enumerate(model.objectives)}
    if name == "mnist_z12":
        extra = kept_by_keras(keras, encoder, decoder, model)
        ways |= {way: lambda f=f: f(x, noise) for way, f in extra.items()}
    for training in (False, True):
        for part, value in zip(("mean", "log_var", "p"), forward(training), strict=True):
            kept[f"{part}_{'train' if training else 'eval'}"] = summary(value)
    for network in networks.values():
        kept[f"updated_{network.name}"] = np.array(
            [summary(w) for w in network.get_weights()]
        )  # with the running statistics after one batch
    for network, weights in zip(networks.values(), before, strict=True):
        network.set_weights(weights)
    for way, loss_of in ways.items():
        with tf.GradientTape() as tape:
            loss = loss_of()
        kept[f"loss_{way}"] = np.array(float(loss))
        gradients = tape.gradient(loss, trainable)
        kept[f"gradients_{way}"] = np.array([summary(gradient) for gradient in gradients])
    counts = [encoder.count_params(), decoder.count_params()]
    return {f"{name}/{key}": np.asarray(v) for key, v in (kept | {"counts": counts}).items()}


def main() -> None:
    """Write the three files."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras
    import tensorflow as tf

    tiny = build(TINY, keras)
    for i, network in enumerate(tiny):
        set_weights(network, i)
        network.save_weights(FOLDER / f"tiny_{network.name}.weights.h5")
    tiny_roles = {n.name: [(w.name, list(w.shape)) for w in n.weights] for n in tiny}
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    kept = {"tiny/weights": np.asarray(json.dumps(tiny_roles))}
    kept["versions"] = np.asarray(f"keras {keras.__version__}, tensorflow {tf.__version__}")
    for name, model in MODELS.items():
        kept |= record(name, model, keras, tf)
    np.savez_compressed(FOLDER / "keras_reference.npz", **kept)
    for file in sorted([*FOLDER.glob("*.npz"), *FOLDER.glob("*.h5")]):
        print(f"wrote {file.name}: {file.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
