"""Converts weights of the reference Keras 3 encoder and decoder to our parameters and back.

Both libraries share the layouts: convolution `[k, k, in, out]`, transposed `[k, k, out, in]`,
dense `[in, out]`, features flattened in the order H, W, C. So layers are matched by kind and
order, and no array is transposed.

A functional model saves `layers/<kind>_<n>/vars/<i>` in its `.weights.h5`, where n counts the
layers of one kind in the order in which they are applied. Layers without weights (activation,
dropout, sampling) do not matter. HDF5 can point a data set at any other file of the machine: only
plain ones, of the model's own shapes, are read.
"""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict

from vae_jax import config as configs
from vae_jax.checkpoint.saving import NETWORKS, Checkpoints, network_items, network_variables
from vae_jax.files import write_file
from vae_jax.models.vae import VAE
from vae_jax.run import network_shapes
from vae_jax.run_folder import CHECKPOINTS, CONFIG_FILE, run_lock, write_config
from vae_jax.train import persistence
from vae_jax.train.resuming import resolved
from vae_jax.train.setup import make_experiment
from vae_jax.types import UserError

SUFFIX = ".weights.h5"
CLASS_NAMES = {
    "conv2d": "Conv2D",
    "conv2d_transpose": "Conv2DTranspose",
    "batch_normalization": "BatchNormalization",
    "dense": "Dense",
}
_KINDS = "|".join(CLASS_NAMES)
_WEIGHT = re.compile(rf"(?:(.*)/)?layers/({_KINDS})(?:_(\d{{1,6}}))?/vars/(\d{{1,6}})")
PLAIN_FILTERS = {1, 2, 3}  # gzip, shuffle, checksum: none of them is a plugin

CONVOLUTION = {"encoder": "conv2d", "decoder": "conv2d_transpose"}
KERNEL_BIAS = (("params", "kernel"), ("params", "bias"))
NORM = (("params", "scale"), ("params", "bias"), ("batch_stats", "mean"), ("batch_stats", "var"))
ADVICE = "change config.model (filters, dense, z_dim, norm, conv_bias) to the Keras model's layers"


class _Layer(NamedTuple):
    """One layer with weights as our tree has it.

    Attributes:
        kind: A key of `CLASS_NAMES`.
        name: `conv_0`, `conv_0/norm`, `mean`, ...
        leaves: Where its weights lie in `{'params': ..., 'batch_stats': ...}`, in Keras' order.
    """

    kind: str
    name: str
    leaves: tuple[tuple[str, ...], ...]


class _KerasLayer(NamedTuple):
    """One layer as a file or a list holds it.

    Attributes:
        where: Its name in errors.
        weights: Arrays, or HDF5 datasets that are not read yet, in Keras' order.
        label: The name that the layer has in Keras.
    """

    where: str
    weights: Sequence[Any]
    label: str = ""


def load_keras(encoder_h5: str | Path, decoder_h5: str | Path, model: VAE) -> dict[str, Any]:
    """Reads a reference encoder and decoder that Keras 3 saved with `save_weights`.

    Args:
        encoder_h5: The `.weights.h5` of the encoder, or of a model that contains it.
        decoder_h5: The same for the decoder.
        model: The model of a config that describes the same layers.

    Returns:
        `{'params': ..., 'batch_stats': ...}`, float32, each with `encoder` and `decoder`.

    Raises:
        UserError: A file is no Keras 3 weights file, or has other layers or shapes than the model.
    """
    shapes = network_shapes(model, 0)
    items = {}
    for network, file in zip(NETWORKS, (encoder_h5, decoder_h5), strict=True):
        layers = _layers(network, shapes[network])
        with _opened(file) as h5:
            stored = _stored_layers(h5, CONVOLUTION[network])
            if network == "encoder":
                stored["dense"] = _mean_first(stored["dense"])
            matched = _matched(f"{file}", network, layers, stored)
            items[network] = _filled(f"{file}", network, layers, matched, shapes[network])
    return jax.tree.map(lambda array: array.astype(np.float32), network_variables(items))


def save_keras(
    variables: Mapping[str, Any], encoder_h5: str | Path, decoder_h5: str | Path
) -> None:
    """Writes files that the reference encoder and decoder in Keras 3 read with `load_weights`.

    Args:
        variables: `{'params': ..., 'batch_stats': ...}` of both networks.
        encoder_h5: The file to write; Keras asks for the ending `.weights.h5`.
        decoder_h5: The same for the decoder.

    Raises:
        UserError: A file has another ending or cannot be written, or both are one file.
    """
    if Path(encoder_h5).resolve() == Path(decoder_h5).resolve():
        raise UserError(f"encoder and decoder would both be {encoder_h5}: name two files")
    items, contents = network_items(variables["params"], variables["batch_stats"]), {}
    for network, file in zip(NETWORKS, (encoder_h5, decoder_h5), strict=True):
        flat = flatten_dict(items[network])
        layers = []
        for kind, name, leaves in _layers(network, items[network]):
            weights = [flat[leaf] for leaf in leaves]
            layers.append((kind, _KerasLayer(name, weights, name.replace("/", "_"))))
        contents[Path(file)] = _file_of(Path(file), layers)
    for file, content in contents.items():
        write_file(file, content)


def import_run(config: ConfigDict, encoder: str, decoder: str, workdir: str | Path) -> None:
    """Makes `workdir` a run of `config` whose checkpoint at step 0 has Keras' weights.

    Args:
        config: The whole config.
        encoder: `.weights.h5` of the encoder.
        decoder: `.weights.h5` of the decoder.
        workdir: A folder without a run.

    Raises:
        UserError: The config or a file cannot be used, or the folder holds a run already.
    """
    configs.validate(config)
    if configs.kind_of(config) != "run" or config.data.condition != "none" or "told" in config:
        raise UserError(
            "weights from Keras are those of one VAE that is told nothing: set "
            "config.data.condition to 'none' and leave config.told out"
        )
    workdir = Path(workdir)
    if (workdir / CONFIG_FILE).exists():
        raise UserError(f"--workdir={workdir} holds a run already; choose another folder")
    experiment = make_experiment(config, config.train.epochs)
    variables = load_keras(encoder, decoder, experiment.model)
    state = dataclasses.replace(experiment.init_state(), **variables)
    config = resolved(config)
    facts = persistence.Facts(configs.digest(config), (), {})
    with run_lock(workdir), Checkpoints(workdir / CHECKPOINTS) as checkpoints:
        persistence.save(checkpoints, state, state.batch_stats, float("nan"), facts)
        checkpoints.wait()
        write_config(workdir, config)


def from_arrays(
    encoder: Sequence[np.ndarray], decoder: Sequence[np.ndarray], model: VAE
) -> dict[str, Any]:
    """Returns our variables from lists of arrays, as `keras_model.get_weights()` returns them.

    Args:
        encoder: The arrays of the encoder, layer by layer.
        decoder: The arrays of the decoder.
        model: The model of a config that describes the same layers.

    Returns:
        The variables as of `load_keras`; the arrays keep their type.

    Raises:
        UserError: There are more or fewer arrays than the model has, or of other shapes.
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
            _KerasLayer(layer.name, [np.asarray(next(rest)) for _ in layer.leaves])
            for layer in layers
        ]
        items[network] = _filled("the list", network, layers, stored, shapes[network])
    return network_variables(items)


def to_arrays(variables: Mapping[str, Any]) -> dict[str, list[np.ndarray]]:
    """Returns the inverse of `from_arrays`: a list for each network, as `set_weights` takes it."""
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


def _layers(network: str, item: Mapping[str, Any]) -> list[_Layer]:
    """Returns the layers of one network in Keras' order, from its tree of arrays or shapes."""
    flat = flatten_dict(item)
    names = {path[1] for path in flat}

    def layer(kind: str, *name: str) -> _Layer:
        order = NORM if kind == "batch_normalization" else KERNEL_BIAS
        leaves = ((collection, *name, leaf) for collection, leaf in order)
        return _Layer(kind, "/".join(name), tuple(path for path in leaves if path in flat))

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


def _mean_first(dense: list[_KerasLayer]) -> list[_KerasLayer]:
    """Returns the layers, the last two exchanged where Keras' names put the variance first."""
    last = dense[-2:]
    is_variance = ["var" in layer.label.lower() for layer in last]
    return [*dense[:-2], *reversed(last)] if is_variance == [True, False] else dense


def _matched(
    source: str, network: str, layers: list[_Layer], stored: dict[str, list[_KerasLayer]]
) -> list[_KerasLayer]:
    """Returns the stored layers in the order of ours."""
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
    layers: list[_Layer],
    stored: list[_KerasLayer],
    shapes: Mapping[str, Any],
) -> dict[str, Any]:
    """Returns the network's tree of stored arrays; compares all shapes before it reads any."""
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
            array = weight[()] if np.issubdtype(weight.dtype, np.floating) else None
            if array is None or not np.isfinite(array).all():
                raise UserError(
                    f"{source}: {found.where} holds {weight.dtype} values that are not all finite "
                    "floats; save the Keras weights again"
                )
            flat[leaf] = array
    return {"params": {}, "batch_stats": {}} | unflatten_dict(flat)


def _listed(shapes: list[tuple[int, ...]]) -> str:
    return " and ".join(str(shape) for shape in shapes) or "none"


@contextmanager
def _opened(file: str | Path) -> Iterator[Any]:
    """Yields the open HDF5 file.

    Raises:
        UserError: There is no h5py, no such file, or the file is not HDF5 or is damaged.
    """
    h5py = _h5py()
    if not Path(file).is_file():
        raise UserError(f"{file} does not exist; give a {SUFFIX} file")
    try:
        with h5py.File(file, "r") as h5:
            yield h5
    except (OSError, RuntimeError, KeyError) as error:
        raise UserError(
            f"{file} is not a readable HDF5 file ({error}); save the Keras weights again"
        ) from None


def _stored_layers(h5: Any, convolution: str) -> dict[str, list[_KerasLayer]]:
    """Returns the layers of the one model in an open file that has layers of kind `convolution`.

    Args:
        h5: The file, opened by `_opened`.
        convolution: 'conv2d' for an encoder, 'conv2d_transpose' for a decoder.

    Returns:
        For every kind in `CLASS_NAMES` the layers, in Keras' order.

    Raises:
        UserError: The file holds no such model, or several.
    """
    models: dict[str, dict[tuple[str, int], dict[int, Any]]] = {}

    def collect(name: str, entry: Any) -> None:  # `visititems` follows no link out of the file.
        match = _WEIGHT.fullmatch(name)
        if match and hasattr(entry, "shape"):
            prefix, kind, number, index = match.groups(default="")
            layer = models.setdefault(prefix, {}).setdefault((kind, int(number or 0)), {})
            layer[int(index)] = entry

    hard = _h5py().HardLink
    linked = h5.visititems_links(lambda name, link: None if isinstance(link, hard) else name)
    if linked is not None:
        raise UserError(
            f"{h5.filename}: {linked} is a link to another place; save the Keras weights again"
        )
    h5.visititems(collect)
    fitting = [layers for layers in models.values() if any(k == convolution for k, _ in layers)]
    if len(fitting) != 1:
        raise UserError(
            f"{h5.filename} holds {len(fitting)} Keras 3 models with {CLASS_NAMES[convolution]} "
            f"layers instead of one; write it with model.save_weights('NAME{SUFFIX}') of Keras 3"
        )
    stored: dict[str, list[_KerasLayer]] = {kind: [] for kind in CLASS_NAMES}
    for (kind, _), weights in sorted(fitting[0].items(), key=lambda entry: entry[0]):
        group = weights[min(weights)].parent
        where = group.parent.name.lstrip("/")
        in_order = [weights[i] for i in sorted(weights)]
        for weight in in_order:
            _check_plain(h5.filename, weight)
        stored[kind].append(_KerasLayer(where, in_order, str(group.attrs.get("name", ""))))
    return stored


def _check_plain(file: str, entry: Any) -> None:
    """Raises a UserError unless the values of a data set lie in this file, as Keras writes them."""
    creation = entry.id.get_create_plist()
    filters = {creation.get_filter(i)[0] for i in range(creation.get_nfilters())}
    if entry.external:
        what = "keeps its values in another file"
    elif entry.is_virtual:
        what = "is put together from other data sets"
    elif not filters <= PLAIN_FILTERS:
        what = f"needs the HDF5 filters {sorted(filters - PLAIN_FILTERS)}"
    elif entry.chunks and any(c > n for c, n in zip(entry.chunks, entry.shape, strict=True)):
        what = f"comes in chunks of {entry.chunks}, larger than itself"
    else:
        return
    raise UserError(f"{file}: {entry.name} {what} and is not read; save the Keras weights again")


def _file_of(file: Path, layers: Sequence[tuple[str, _KerasLayer]]) -> bytes:
    """Returns the contents of a `.weights.h5` file.

    Args:
        file: The path that they are for; Keras asks for the ending `.weights.h5`.
        layers: Kind and layer, in the order in which they are applied.

    Raises:
        UserError: The path has another ending, or there is no h5py.
    """
    h5py = _h5py()
    if not file.name.endswith(SUFFIX):
        raise UserError(f"{file} must end in {SUFFIX}, or Keras does not read it; rename it")
    counts: dict[str, int] = defaultdict(int)
    # In memory: on a full disk the library itself may crash.
    with h5py.File(file.name, "w", driver="core", backing_store=False) as h5:
        for kind, layer in layers:
            name = f"{kind}_{counts[kind]}" if counts[kind] else kind
            counts[kind] += 1
            group = h5.create_group(f"layers/{name}/vars")
            group.attrs["name"] = layer.label
            for i, weight in enumerate(layer.weights):
                group[str(i)] = np.asarray(weight)
        h5.flush()
        return h5.id.get_file_image()


def _h5py() -> Any:
    try:
        import h5py
    except ImportError:
        raise UserError(
            "Keras weights need h5py, which is not installed; install the extra `keras-weights`"
        ) from None
    return h5py
