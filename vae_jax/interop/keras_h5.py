"""The layers in a Keras 3 `.weights.h5` file: read one by one, and written as Keras reads them.

A functional model saves `layers/<kind>_<n>/vars/<i>`, where n counts the layers of one kind in the
order in which they are applied. Layers without weights (activation, dropout, sampling) do not
matter.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vae_jax.types import UserError

SUFFIX = ".weights.h5"
CLASS_NAMES = {
    "conv2d": "Conv2D",
    "conv2d_transpose": "Conv2DTranspose",
    "batch_normalization": "BatchNormalization",
    "dense": "Dense",
}
_KINDS = "|".join(CLASS_NAMES)
_WEIGHT = re.compile(rf"(?:(.*)/)?layers/({_KINDS})(?:_(\d+))?/vars/(\d+)")


class KerasLayer(NamedTuple):
    """One layer as a file or a list holds it.

    Attributes:
        where: what error messages call it.
        weights: arrays, or HDF5 datasets that are not read yet, in Keras' order.
        label: the name that the layer has in Keras.
    """

    where: str
    weights: Sequence[Any]
    label: str = ""


@contextmanager
def opened(file: str | Path) -> Iterator[Any]:
    """The open HDF5 file.

    Raises:
        UserError: no h5py, no such file, or a file that is not HDF5 or is damaged.
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


def stored_layers(h5: Any, convolution: str) -> dict[str, list[KerasLayer]]:
    """The layers of the one model in an open file that has layers of kind `convolution`.

    Args:
        h5: of `opened`.
        convolution: 'conv2d' for an encoder, 'conv2d_transpose' for a decoder.

    Returns:
        For every kind in `CLASS_NAMES` the layers, in Keras' order.

    Raises:
        UserError: the file holds no such model, or several.
    """
    models: dict[str, dict[tuple[str, int], dict[int, Any]]] = {}

    def collect(name: str, entry: Any) -> None:  # `visititems` follows no link out of the file.
        match = _WEIGHT.fullmatch(name)
        if match and hasattr(entry, "shape"):
            prefix, kind, number, index = match.groups(default="")
            layer = models.setdefault(prefix, {}).setdefault((kind, int(number or 0)), {})
            layer[int(index)] = entry

    h5.visititems(collect)
    fitting = [layers for layers in models.values() if any(k == convolution for k, _ in layers)]
    if len(fitting) != 1:
        raise UserError(
            f"{h5.filename} holds {len(fitting)} Keras 3 models with {CLASS_NAMES[convolution]} "
            f"layers instead of one; write it with model.save_weights('NAME{SUFFIX}') of Keras 3"
        )
    stored: dict[str, list[KerasLayer]] = {kind: [] for kind in CLASS_NAMES}
    for (kind, _), weights in sorted(fitting[0].items(), key=lambda entry: entry[0]):
        group = weights[min(weights)].parent
        where = group.parent.name.lstrip("/")
        in_order = [weights[i] for i in sorted(weights)]
        stored[kind].append(KerasLayer(where, in_order, str(group.attrs.get("name", ""))))
    return stored


def write_layers(file: Path, layers: Sequence[tuple[str, KerasLayer]]) -> None:
    """Write a `.weights.h5` file, all or nothing.

    Args:
        file: to write; Keras asks for the ending `.weights.h5`.
        layers: kind and layer, in the order in which they are applied.

    Raises:
        UserError: another ending, no h5py, or a file that cannot be written.
    """
    h5py = _h5py()
    if not file.name.endswith(SUFFIX):
        raise UserError(f"{file} must end in {SUFFIX}, or Keras does not read it; rename it")
    temporary = file.with_name(f".{file.name}.tmp")
    counts: dict[str, int] = defaultdict(int)
    try:
        with h5py.File(temporary, "w") as h5:
            for kind, layer in layers:
                name = f"{kind}_{counts[kind]}" if counts[kind] else kind
                counts[kind] += 1
                group = h5.create_group(f"layers/{name}/vars")
                group.attrs["name"] = layer.label
                for i, weight in enumerate(layer.weights):
                    group[str(i)] = np.asarray(weight)
        temporary.replace(file)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"{file} cannot be written ({error}); choose another place") from None


def _h5py() -> Any:
    try:
        import h5py
    except ImportError:
        raise UserError(
            "Keras weights need h5py, which is not installed; install the extra `keras-weights`"
        ) from None
    return h5py
