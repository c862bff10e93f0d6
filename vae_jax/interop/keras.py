"""Weights of the reference Keras 3 encoder and decoder, to our parameters and back.

Both libraries share the layouts: convolution `[k, k, in, out]`, transposed `[k, k, out, in]`,
dense `[in, out]`, features flattened in the order H, W, C. So layers are matched by kind and
order, and no array is transposed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from vae_jax.checkpoint.saving import NETWORKS, network_items, network_variables
from vae_jax.interop.keras_h5 import CLASS_NAMES, KerasLayer, opened, stored_layers, write_layers
from vae_jax.models.vae import VAE
from vae_jax.run import network_shapes
from vae_jax.types import UserError

CONVOLUTION = {"encoder": "conv2d", "decoder": "conv2d_transpose"}
KERNEL_BIAS = (("params", "kernel"), ("params", "bias"))
NORM = (("params", "scale"), ("params", "bias"), ("batch_stats", "mean"), ("batch_stats", "var"))
ADVICE = "change config.model (filters, dense, z_dim, norm, conv_bias) to the Keras model's layers"


class Layer(NamedTuple):
    """One layer with weights as our tree has it.

    Attributes:
        kind: a key of `CLASS_NAMES`.
        name: `conv_0`, `conv_0/norm`, `mean`, ...
        leaves: where its weights lie in `{'params': ..., 'batch_stats': ...}`, in Keras' order.
    """

    kind: str
    name: str
    leaves: tuple[tuple[str, ...], ...]


def load_keras(encoder_h5: str | Path, decoder_h5: str | Path, model: VAE) -> dict[str, Any]:
    """Read a reference encoder and decoder that Keras 3 saved with `save_weights`.

    Args:
        encoder_h5: `.weights.h5` of the encoder, or of a model that contains it.
        decoder_h5: the same for the decoder.
        model: of the config that describes the same layers.

    Returns:
        `{'params': ..., 'batch_stats': ...}`, float32, each with `encoder` and `decoder`.

    Raises:
        UserError: not a Keras 3 weights file, or other layers or shapes than the model's.
    """
    shapes = network_shapes(model, 0)
    items = {}
    for network, file in zip(NETWORKS, (encoder_h5, decoder_h5), strict=True):
        layers = _layers(network, shapes[network])
        with opened(file) as h5:
            stored = stored_layers(h5, CONVOLUTION[network])
            if network == "encoder":
                stored["dense"] = _mean_first(stored["dense"])
            matched = _matched(f"{file}", network, layers, stored)
            items[network] = _filled(f"{file}", network, layers, matched, shapes[network])
    return jax.tree.map(lambda array: array.astype(np.float32), network_variables(items))


def save_keras(
    variables: Mapping[str, Any], encoder_h5: str | Path, decoder_h5: str | Path
) -> None:
    """Write files that the reference encoder and decoder in Keras 3 read with `load_weights`.

    Args:
        variables: `{'params': ..., 'batch_stats': ...}` of both networks.
        encoder_h5: file to write; Keras asks for the ending `.weights.h5`.
        decoder_h5: the same for the decoder.

    Raises:
        UserError: another ending, or a file that cannot be written.
    """
    items = network_items(variables["params"], variables["batch_stats"])
    for network, file in zip(NETWORKS, (encoder_h5, decoder_h5), strict=True):
        flat = flatten_dict(items[network])
        layers = []
        for kind, name, leaves in _layers(network, items[network]):
            weights = [flat[leaf] for leaf in leaves]
            layers.append((kind, KerasLayer(name, weights, name.replace("/", "_"))))
        write_layers(Path(file), layers)


def from_arrays(
    encoder: Sequence[np.ndarray], decoder: Sequence[np.ndarray], model: VAE
) -> dict[str, Any]:
    """Our variables from lists of arrays, as `keras_model.get_weights()` returns them.

    Args:
        encoder: arrays of the encoder, layer by layer.
        decoder: arrays of the decoder.
        model: of the config that describes the same layers.

    Returns:
        See `load_keras`; the arrays keep their type.

    Raises:
        UserError: another number of arrays or other shapes than the model's.
    """
    shapes = network_shapes(model, 0)
    items = {}
    for network, arrays in zip(NETWORKS, (encoder, decoder), strict=True):
        layers = _layers(network, shapes[network])
        expected = sum(len(layer.leaves) for layer in layers)
        if len(arrays) != expected:
            raise UserError(
                f"the list for the {network} holds {len(arrays)} arrays, but the {network} of "
                f"this config has {expected}; {ADVICE}"
            )
        rest = iter(arrays)
        stored = [
            KerasLayer(layer.name, [np.asarray(next(rest)) for _ in layer.leaves])
            for layer in layers
        ]
        items[network] = _filled("the list", network, layers, stored, shapes[network])
    return network_variables(items)


def to_arrays(variables: Mapping[str, Any]) -> dict[str, list[np.ndarray]]:
    """The inverse of `from_arrays`: a list for each network, as `set_weights` takes it."""
    items = network_items(variables["params"], variables["batch_stats"])
    flat = {network: flatten_dict(item) for network, item in items.items()}
    return {
        network: [
            np.asarray(flat[network][leaf])
            for layer in _layers(network, item)
            for leaf in layer.leaves
        ]
        for network, item in items.items()
    }


def _layers(network: str, item: Mapping[str, Any]) -> list[Layer]:
    """The layers of one network in Keras' order, from its tree of arrays or shapes."""
    flat = flatten_dict(item)
    names = {path[1] for path in flat}

    def layer(kind: str, *name: str) -> Layer:
        order = NORM if kind == "batch_normalization" else KERNEL_BIAS
        leaves = ((collection, *name, leaf) for collection, leaf in order)
        return Layer(kind, "/".join(name), tuple(path for path in leaves if path in flat))

    def numbered(prefix: str) -> list[str]:
        return [f"{prefix}_{i}" for i in range(len(names)) if f"{prefix}_{i}" in names]

    convolutions = []
    for name in numbered("conv"):
        convolutions.append(layer(CONVOLUTION[network], name))
        if ("params", name, "norm", "scale") in flat:
            convolutions.append(layer("batch_normalization", name, "norm"))
    if network == "decoder":
        return [layer("dense", "dense"), *convolutions]
    dense = (*numbered("dense"), "mean", "log_var")
    return [*convolutions, *(layer("dense", name) for name in dense)]


def _mean_first(dense: list[KerasLayer]) -> list[KerasLayer]:
    """Exchange the last two layers where Keras' names say that the variance comes first."""
    last = dense[-2:]
    is_variance = ["var" in layer.label.lower() for layer in last]
    return [*dense[:-2], *reversed(last)] if is_variance == [True, False] else dense


def _matched(
    source: str, network: str, layers: list[Layer], stored: dict[str, list[KerasLayer]]
) -> list[KerasLayer]:
    """The stored layers in the order of ours."""
    for kind, class_name in CLASS_NAMES.items():
        names = [layer.name for layer in layers if layer.kind == kind]
        if len(names) != len(stored[kind]):
            found = ", ".join(layer.where for layer in stored[kind]) or "none"
            raise UserError(
                f"{source} holds {len(stored[kind])} {class_name} layers ({found}), but the "
                f"{network} of this config has {len(names)} ({', '.join(names) or 'none'}); "
                f"{ADVICE}"
            )
    queues = {kind: iter(found) for kind, found in stored.items()}
    return [next(queues[layer.kind]) for layer in layers]


def _filled(
    source: str,
    network: str,
    layers: list[Layer],
    stored: list[KerasLayer],
    shapes: Mapping[str, Any],
) -> dict[str, Any]:
    """The network's tree with the stored arrays; shapes are compared before anything is read."""
    expected: dict[Any, Any] = flatten_dict(shapes)
    flat = {}
    for layer, found in zip(layers, stored, strict=True):
        ours = [expected[leaf].shape for leaf in layer.leaves]
        theirs = [tuple(weight.shape) for weight in found.weights]
        if ours != theirs:
            raise UserError(
                f"{source}: {found.where} has weights of shape {_listed(theirs)}, but "
                f"{network}/{layer.name} of this config has {_listed(ours)}; {ADVICE}"
            )
        for leaf, weight in zip(layer.leaves, found.weights, strict=True):
            array = np.asarray(weight[()])
            if not np.issubdtype(array.dtype, np.floating) or not np.isfinite(array).all():
                raise UserError(
                    f"{source}: {found.where} holds {array.dtype} values that are not all finite "
                    "floats; save the Keras weights again"
                )
            flat[leaf] = array
    return {"params": {}, "batch_stats": {}} | unflatten_dict(flat)


def _listed(shapes: list[tuple[int, ...]]) -> str:
    return " and ".join(str(shape) for shape in shapes) or "none"
