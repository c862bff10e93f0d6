"""A trained decoder as plain numbers: norms folded into the weights, which are float16.

In evaluation a batch norm is a factor and an offset for each channel, so that the decoder equals
one of the same layers without norms. This is a model, too, that can be run and compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np

from vae_jax.models.convolution import conv_axis, conv_transpose_output_size
from vae_jax.models.encoder import feature_shape
from vae_jax.models.vae import VAE
from vae_jax.types import UserError

MAX_WEIGHTS = 16_000_000  # a page of 43 MB


class Network(NamedTuple):
    """A decoder without norms.

    Attributes:
        model: The module, with `norm='none'`, in float32.
        variables: Its parameters, rounded to float16.
        layers: Plain data on each layer: the first is dense, the others are transposed
            convolutions, see `_layers`.
        weights: Kernel and bias of every layer in order, little-endian float16; for a told model
            followed by kernel and bias of its gate and the kernel of its shift. A kernel is
            `[inputs, outputs]` or `[channels, taps x filters]`, those of gates and shifts are
            `[T, outputs or filters]`.
    """

    model: VAE
    variables: dict[str, Any]
    layers: list[dict[str, Any]]
    weights: bytes


def plain_network(model: VAE, variables: Mapping[str, Any], label_dim: int) -> Network:
    """Folds the norms of a decoder into its weights, and rounds these to float16.

    Gates and shifts of a model that is told KL weight or latent size are left as they are, since
    they differ from pair to pair.

    Args:
        model: The module.
        variables: Variables that contain the parameters and statistics of the decoder.
        label_dim: L, the number of labels that the decoder is told.

    Raises:
        UserError: Too many weights for a page, or weights outside the range of float16.
    """
    params = variables["params"]["decoder"]
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    if count > MAX_WEIGHTS:
        raise UserError(
            f"the decoder has {count:,} weights, but a page holds at most {MAX_WEIGHTS:,}; "
            "explore a smaller model"
        )
    statistics = variables.get("batch_stats", {}).get("decoder", {})
    epsilon = model.style.norm_epsilon
    folded = {
        name: _rounded(name, _folded(layer, statistics.get(name), epsilon))
        for name, layer in params.items()
    }
    plain = model.clone(style=replace(model.style, norm="none", dtype="float32"))
    layers = _layers(plain, label_dim)
    weights = b"".join(_bytes(layer["name"], folded) for layer in layers)
    return Network(plain, {"params": {"decoder": folded}}, layers, weights)


def _folded(
    layer: Mapping[str, Any], statistics: Mapping[str, Any] | None, epsilon: float
) -> dict[str, Any]:
    """Returns the arrays of a layer in float64, with its norm folded into kernel and bias."""
    exact = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), dict(layer))
    norm, bias = exact.pop("norm", None), exact.get("bias", 0.0)
    if norm is None or statistics is None:
        return exact
    mean, variance = (np.asarray(statistics["norm"][name], np.float64) for name in ("mean", "var"))
    factor = norm["scale"] / np.sqrt(variance + epsilon)
    kernel = exact["kernel"] * factor[None, None, :, None]  # [k, k, filters, channels]
    return exact | {"kernel": kernel, "bias": (bias - mean) * factor + norm["bias"]}


def _rounded(name: str, layer: dict[str, Any]) -> dict[str, Any]:
    with np.errstate(over="ignore"):
        rounded = jax.tree.map(lambda array: array.astype(np.float16), layer)
    if not all(np.isfinite(array).all() for array in jax.tree.leaves(rounded)):
        raise UserError(
            f"the decoder's layer {name} holds weights that are not finite or exceed 65,504, the "
            "largest float16; explore another --step or run"
        )
    return jax.tree.map(lambda array: array.astype(np.float32), rounded)


def _layers(model: VAE, label_dim: int) -> list[dict[str, Any]]:
    """Returns the layers of a decoder, first to last.

    `top` and `left` are the numbers of rows and columns that are cut off the result of a transposed
    convolution, see `conv_axis`. `told` is T if a gate and a shift follow, else 0.
    """
    stack, style = model.decoder_stack, model.style
    told = 0 if model.told is None else model.told.width
    height, width, channels = feature_shape(model.encoder_stack, model.image_shape)
    layers: list[dict[str, Any]] = [
        {
            "name": "dense",
            "kind": "dense",
            "inputs": model.z_dim + label_dim,
            "outputs": height * width * channels,
            "activation": model.decoder_dense_activation,
            "slope": style.negative_slope,
            "told": told,
        }
    ]
    widths = (*stack.filters, model.image_shape[-1])
    for i, filters in enumerate(widths):
        kernel, stride, padding = stack.kernel_sizes[i], stack.strides[i], stack.padding[i]
        rows, columns = (
            conv_axis(
                conv_transpose_output_size(size, kernel, stride, padding), kernel, stride, padding
            )
            for size in (height, width)
        )
        layers.append(
            {
                "name": f"conv_{i}",
                "kind": "transposed",
                "in_height": rows.small,
                "in_width": columns.small,
                "channels": channels,
                "out_height": rows.large,
                "out_width": columns.large,
                "filters": filters,
                "kernel": kernel,
                "stride": stride,
                "top": rows.low,
                "left": columns.low,
                "activation": "none" if i == len(widths) - 1 else style.activation,
                "slope": style.negative_slope,
                "told": 0 if i == len(widths) - 1 else told,
            }
        )
        height, width, channels = rows.large, columns.large, filters
    return layers


def _bytes(name: str, layers: Mapping[str, dict[str, Any]]) -> bytes:
    layer = layers[name]
    kernel = layer["kernel"]
    if kernel.ndim == 4:  # [k, k, filters, channels] to [channels, k, k, filters]
        kernel = kernel.transpose(3, 0, 1, 2)
    gate, shift = (layer.get(part, layers.get(f"{name}_{part}")) for part in ("gate", "shift"))
    parts = [kernel, layer["bias"]]
    if gate is not None and shift is not None:
        parts += [gate["kernel"], gate["bias"], shift["kernel"]]
    return b"".join(part.astype("<f2").tobytes() for part in parts)
