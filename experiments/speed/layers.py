"""The layers that a config describes, with their shapes, and the arithmetic they take."""

from __future__ import annotations

import math
from typing import NamedTuple

from ml_collections import ConfigDict

from vae_jax.models.convolution import conv_output_size, conv_transpose_output_size


class Layer(NamedTuple):
    """One layer with weights.

    Attributes:
        name: The name within its network, as in the parameters: 'conv_0', 'mean', ...
        kind: 'conv', 'conv_transpose' or 'dense'.
        inputs: `(H, W, C)` or `(F,)`; a dense layer flattens them.
        outputs: Likewise; a dense layer reshapes to them.
        kernel: The side of the square kernel; 1 for dense layers.
        stride: The stride in both directions.
        padding: 'same' or 'valid'.
        bias: Whether it has a bias.
        norm: Whether batch norm follows.
        activation: The activation that follows then.
    """

    name: str
    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    kernel: int = 1
    stride: int = 1
    padding: str = "valid"
    bias: bool = True
    norm: bool = False
    activation: str = "none"

    @property
    def flop(self) -> int:
        """Returns the floating-point operations of the forward pass for one image.

        Two for each weight at each position of the smaller image; at the border, taps that fall
        on padding count too, and the zeros inside a transposed convolution do not.
        """
        small = self.inputs if self.kind == "conv_transpose" else self.outputs
        positions = 1 if self.kind == "dense" else small[0] * small[1]
        return 2 * positions * self.weights

    @property
    def weights(self) -> int:
        """Returns the number of elements of the kernel."""
        if self.kind == "dense":
            return math.prod(self.inputs) * math.prod(self.outputs)
        return self.kernel**2 * self.inputs[2] * self.outputs[2]


class Layers(NamedTuple):
    """The layers of both networks, first to last; the encoder ends in 'mean' and 'log_var'."""

    encoder: tuple[Layer, ...]
    decoder: tuple[Layer, ...]


def model_layers(config: ConfigDict) -> Layers:
    """Returns the layers of a validated config; the labels of a condition are not counted."""
    model = config.model
    encoder, start = _convolutions(model, model.encoder, "conv", tuple(config.data.image_shape))
    features = start
    for i, width in enumerate(model.encoder.dense):
        layer = Layer(f"dense_{i}", "dense", features, (width,), activation=model.activation)
        encoder.append(layer)
        features = layer.outputs
    encoder += [Layer(name, "dense", features, (model.z_dim,)) for name in ("mean", "log_var")]
    activation = model.decoder_dense_activation
    dense = Layer("dense", "dense", (model.z_dim,), start, activation=activation)
    decoder, _ = _convolutions(
        model, model.decoder, "conv_transpose", start, last=config.data.image_shape[-1]
    )
    return Layers(tuple(encoder), (dense, *decoder))


def _convolutions(
    model: ConfigDict, stack: ConfigDict, kind: str, shape: tuple[int, ...], last: int = 0
) -> tuple[list[Layer], tuple[int, ...]]:
    size = conv_output_size if kind == "conv" else conv_transpose_output_size
    layers = []
    widths: list[int] = [*stack.filters, *([last] if last else [])]
    for i, filters in enumerate(widths):
        kernel, stride, padding = stack.kernel_sizes[i], stack.strides[i], stack.padding[i]
        height, width = (size(length, kernel, stride, padding) for length in shape[:2])
        plain = bool(last) and i == len(stack.filters)
        norm = model.norm == "batch" and not plain
        layers.append(
            Layer(
                name=f"conv_{i}",
                kind=kind,
                inputs=shape,
                outputs=(height, width, filters),
                kernel=kernel,
                stride=stride,
                padding=padding,
                bias=plain or model.conv_bias or model.norm == "none",
                norm=norm,
                activation="none" if plain else model.activation,
            )
        )
        shape = layers[-1].outputs
    return layers, shape


def training_flop(layers: Layers) -> int:
    """Returns the operations of a training step for one image: forward and both gradients.

    The first layer has no input gradient.
    """
    forward = sum(layer.flop for layer in (*layers.encoder, *layers.decoder))
    return 3 * forward - layers.encoder[0].flop


def decoding_flop(layers: Layers) -> int:
    """Returns the operations of the decoder for one image."""
    return sum(layer.flop for layer in layers.decoder)


def training_bytes(layers: Layers, batch_size: int, itemsize: int) -> float:
    """Returns the bytes of memory traffic of a training step for one image, perfectly fused.

    Each layer reads its input and writes its output; the backward pass reads the output's
    gradient and the input, and writes the input's gradient. Adam reads gradient, parameter and
    two moments in float32 and writes three of them, once for the whole batch.

    Args:
        layers: The layers of the model.
        batch_size: B.
        itemsize: The bytes of an activation.
    """
    both = (*layers.encoder, *layers.decoder)
    activations = sum(3 * math.prod(i.inputs) + 2 * math.prod(i.outputs) for i in both)
    activations -= math.prod(both[0].inputs)
    return itemsize * activations + 7 * 4 * sum(i.weights for i in both) / batch_size
