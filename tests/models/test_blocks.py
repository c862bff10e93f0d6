"""Layers by name: the very activations inside the networks, and their gradient to the images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import classifier_mnist, tiny
from vae_jax.models.blocks import ConvBlock, layer_features, layer_names
from vae_jax.models.classifier import make_classifier
from vae_jax.models.vae import make_vae
from vae_jax.types import UserError


@pytest.fixture(scope="module")
def networks():
    """(stack, style, variables, function that captures all activated outputs) of both kinds."""
    key, out = jax.random.key(0), {}
    model = make_vae(tiny.get_config().model, (16, 16, 3))
    images = jax.random.uniform(key, (3, 16, 16, 3))
    variables = jax.jit(lambda key: model.init(key, images, False, False))(key)
    encoder = {kind: trees["encoder"] for kind, trees in variables.items()}
    stats = encoder["batch_stats"]["conv_1"]["norm"]
    encoder["batch_stats"]["conv_1"]["norm"] = jax.tree.map(lambda x: x + 0.3, stats)
    network = model.bind({}).encoder.clone(parent=None)
    out["encoder"] = (network, model.encoder_stack, model.style, encoder, images, (False,))

    fields = classifier_mnist.get_config().classifier
    model = make_classifier(fields, (12, 10, 1), labels=4)
    images = jax.random.uniform(key, (3, 12, 10, 1))
    variables = jax.jit(lambda key: model.init(key, images, False))(key)
    out["classifier"] = (model, model.stack, model.style, variables, images, (False,))
    return out


@pytest.mark.parametrize("kind", ["encoder", "classifier"])
def test_features_are_the_activations_inside_the_network(networks, kind):
    network, stack, style, variables, images, arguments = networks[kind]

    @jax.jit
    def capture(images):
        return network.apply(
            variables,
            images,
            *arguments,
            capture_intermediates=lambda module, _: isinstance(module, ConvBlock),
            mutable=["intermediates"],
        )[1]

    captured = capture(images)
    for name in layer_names(stack):
        inside = captured["intermediates"][name]["__call__"][0]
        features = jax.jit(layer_features(stack, style, variables, name))(images)
        np.testing.assert_allclose(features, inside, atol=1e-6)
        assert features.shape[-1] == stack.filters[int(name[-1])]


def test_the_gradient_reaches_the_images_from_the_first_layer_on(networks):
    _, stack, style, variables, images, _ = networks["classifier"]
    for name in layer_names(stack):
        layer = layer_features(stack, style, variables, name)
        gradient = jax.jit(jax.grad(lambda x, layer=layer: jnp.sum(layer(x))))(images)
        assert float(jnp.abs(gradient).max()) > 0, name


def test_an_unknown_layer_is_answered_with_the_valid_ones(networks):
    _, stack, style, variables, _, _ = networks["classifier"]
    with pytest.raises(UserError, match="'conv_3' is not a layer.*conv_0, conv_1, conv_2"):
        layer_features(stack, style, variables, "conv_3")


def test_features_that_are_asked_for_again_are_not_compiled_again(networks):
    """A sweep asks for each of its members: new programs for each would fill the memory."""
    _, stack, style, variables, images, _ = networks["classifier"]
    traced = []

    @jax.jit
    def program(layer, images):
        traced.append(images.shape)
        return layer(images)

    for _ in range(2):
        program(layer_features(stack, style, variables, "conv_0"), images)
    assert len(traced) == 1
