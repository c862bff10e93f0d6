"""Named leaves of a tree, their SHA-256, and a JSON record that detects its own damage."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.types import UserError

PyTree = Any
Leaves = dict[str, np.ndarray]  # leaf path "opt_state/0/mu/kernel" -> array


def named_leaves(item: PyTree) -> dict[str, Any]:
    """Returns the leaves by their path, joined with `/`, in the order of `jax.tree.leaves`.

    Raises:
        UserError: Two leaves have the same path.
    """
    named = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(item):
        name = jax.tree_util.keystr(path, simple=True, separator="/") or "value"
        if name in named:
            raise UserError(f"Two leaves have the same path {name!r}; rename one of them")
        named[name] = leaf
    return named


def host_copies(item: PyTree) -> Leaves:
    """Returns a copy of every leaf by its path, in host memory that nothing else writes to.

    Raises:
        UserError: A leaf is not numeric.
    """
    host = {}
    for name, leaf in jax.device_get(named_leaves(item)).items():
        array = np.array(leaf, order="C", copy=True)
        if array.dtype.kind in "OUSMm":
            raise UserError(f"Leaf {name!r} is {type(leaf).__name__}, not a numeric array")
        host[name] = array.astype(array.dtype.newbyteorder("="), copy=False)
    return host


def first_non_finite(leaves: Leaves) -> str | None:
    """Returns the path of the first leaf with a NaN or an infinity, or None."""
    for name, array in leaves.items():
        if jnp.issubdtype(array.dtype, np.inexact) and not np.isfinite(array).all():
            return name
    return None


def digest(array: np.ndarray) -> str:
    """Returns the SHA-256 over dtype, shape and bytes of a C-contiguous array, in hexadecimal."""
    sha = hashlib.sha256(f"{array.dtype.name}{list(array.shape)}".encode())
    sha.update(array.reshape(-1).view(np.uint8).data)
    return sha.hexdigest()


def describe_leaves(leaves: Leaves) -> dict[str, dict[str, Any]]:
    """Returns shape, dtype and SHA-256 of every leaf."""
    return {
        name: {"shape": list(array.shape), "dtype": array.dtype.name, "sha256": digest(array)}
        for name, array in leaves.items()
    }


def differences(template: PyTree, found: dict[str, dict[str, Any]]) -> list[str]:
    """Returns one sentence for each leaf that differs in place, shape or dtype.

    Args:
        template: The tree of `jax.ShapeDtypeStruct` or arrays that is expected.
        found: What `describe_leaves` recorded.
    """

    def text(dtype: str, shape: Sequence[int]) -> str:
        return f"{dtype}[{', '.join(map(str, shape))}]"

    expected = {
        name: text(np.dtype(leaf.dtype).name, leaf.shape)
        for name, leaf in named_leaves(template).items()
    }
    stored = {name: text(leaf["dtype"], leaf["shape"]) for name, leaf in found.items()}
    return [
        f"leaf {name!r}: expected {expected.get(name, 'nothing')}, "
        f"found {stored.get(name, 'nothing')}"
        for name in sorted(expected | stored)
        if expected.get(name) != stored.get(name)
    ]


def rebuild(template: PyTree, arrays: Leaves) -> PyTree:
    """Returns a tree of the arrays, placed as the template says; see `SavedSteps.restore`."""
    leaves = [_place(arrays[name], leaf) for name, leaf in named_leaves(template).items()]
    return jax.tree.unflatten(jax.tree.structure(template), leaves)


def _place(array: np.ndarray, template: Any) -> Any:
    if not isinstance(template, jax.Array | jax.ShapeDtypeStruct):
        return array
    if jax.dtypes.canonicalize_dtype(array.dtype) != array.dtype:
        return array  # Without jax_enable_x64 the device would round a 64-bit leaf.
    follow = isinstance(template, jax.ShapeDtypeStruct) or template.committed
    return jax.device_put(array, template.sharding if follow else None, may_alias=False)


def seal(record: dict[str, Any]) -> dict[str, Any]:
    """Wraps a record of JSON values with the SHA-256 of its canonical text.

    Raises:
        UserError: The record cannot be written as JSON.
    """
    try:
        record = json.loads(json.dumps(record))
    except (TypeError, ValueError) as error:
        raise UserError(f"Checkpoint metadata must be JSON: {error}") from error
    return {"record": record, "sha256": _text_digest(record)}


def unseal(text: str | bytes) -> dict[str, Any]:
    """Reads back what `seal` returned.

    Raises:
        ValueError: The text is not a sealed record or was altered.
    """
    sealed = json.loads(text)
    if not isinstance(sealed, dict) or sealed.keys() != {"record", "sha256"}:
        raise ValueError("it is not a checkpoint record")
    if sealed["sha256"] != _text_digest(sealed["record"]):
        raise ValueError("its SHA-256 differs from the one saved")
    return sealed["record"]


def _text_digest(record: Any) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
