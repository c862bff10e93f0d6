"""Shapes and arithmetic of the reference models against figures worked out by hand."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import celeba, keras_example, mnist_z12, tiny
from experiments.speed.layers import decoding_flop, model_layers, training_bytes, training_flop
from vae_jax.models.vae import make_vae

# Multiplications of one image, by hand: positions of the smaller image x taps x channels.
CELEBA_ENDS = 48 * 48 * 9 * 3 * 32
CELEBA_CONV = 24 * 24 * 9 * 32 * 64  # equal for all inner layers: a quarter of the positions,
CELEBA_DENSE = 6 * 6 * 256 * 256  # four times the channels
MNIST_ENDS = 28 * 28 * 9 * 1 * 32
MNIST_CONV = 14 * 14 * 9 * 32 * 64
MNIST_DENSE = 7 * 7 * 128 * 12
KERAS_FIRST = 14 * 14 * 9 * 1 * 32
KERAS_DENSE = 7 * 7 * 64 * 16 + 2 * 16 * 2 + 2 * 7 * 7 * 64
KERAS_CONV = 7 * 7 * 9 * 32 * 64
KERAS_UP = (7 * 7 * 9 * 64 * 64, 14 * 14 * 9 * 64 * 32, 28 * 28 * 9 * 32 * 1)
FORWARD = {
    celeba: 2 * (2 * CELEBA_ENDS + 6 * CELEBA_CONV + 3 * CELEBA_DENSE),
    mnist_z12: 2 * (2 * MNIST_ENDS + 4 * MNIST_CONV + 3 * MNIST_DENSE),
    keras_example: 2 * (KERAS_FIRST + KERAS_CONV + KERAS_DENSE + sum(KERAS_UP)),
}
FIRST = {celeba: CELEBA_ENDS, mnist_z12: MNIST_ENDS, keras_example: KERAS_FIRST}


@pytest.mark.parametrize(
    ("config", "megaflop"), [(celeba, 444.6), (mnist_z12, 90.3), (keras_example, 39.9)]
)
def test_training_takes_three_forward_passes_less_the_gradient_of_the_images(config, megaflop):
    flop = training_flop(model_layers(config.get_config()))
    assert flop == 3 * FORWARD[config] - 2 * FIRST[config]
    assert flop / 1e6 == pytest.approx(megaflop, abs=0.05)


def test_decoding_is_the_decoders_share_of_the_forward_pass():
    layers = model_layers(celeba.get_config())
    assert decoding_flop(layers) == 2 * (CELEBA_DENSE + 3 * CELEBA_CONV + CELEBA_ENDS)


@pytest.mark.parametrize("config", [celeba, mnist_z12, keras_example, tiny])
def test_layers_have_the_names_and_kernels_of_the_parameters(config):
    config = config.get_config()
    model = make_vae(config.model, config.data.image_shape)
    images = jnp.zeros((1, *config.data.image_shape))
    params = jax.eval_shape(lambda key: model.init(key, images, False, False), jax.random.key(0))
    params = params["params"]
    for network, layers in model_layers(config)._asdict().items():
        assert {layer.name for layer in layers} == set(params[network])
        for layer in layers:
            own = params[network][layer.name]
            assert math.prod(own["kernel"].shape) == layer.weights
            assert ("bias" in own, "norm" in own) == (layer.bias, layer.norm)


def test_least_memory_traffic_counts_maps_and_the_optimiser():
    config = tiny.get_config()
    layers = model_layers(config)
    sizes = [16 * 16 * 3, 8 * 8 * 4, 4 * 4 * 8]  # of the maps that convolutions read and write
    encoder = 2 * sizes[0] + 5 * sizes[1] + 2 * sizes[2] + 2 * (3 * sizes[2] + 2 * 4)
    decoder = 3 * 4 + 5 * sizes[2] + 5 * sizes[1] + 2 * sizes[0]
    weights = 9 * (3 * 4 + 4 * 8 + 8 * 4 + 4 * 3) + 3 * 4 * sizes[2]
    expected = 2 * (encoder + decoder) + 28 * weights / 8
    assert training_bytes(layers, 8, itemsize=2) == pytest.approx(expected)
    np.testing.assert_array_less(training_bytes(layers, 16, 2), training_bytes(layers, 8, 2))
