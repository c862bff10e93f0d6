"""Named leaves of a tree, their SHA-256, and a JSON record that detects its own damage."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.types import UserError

PyTree = Any
Leaves = dict[str, np.ndarray]  # leaf path "opt_state/0/mu/kernel" -> array


def named_leaves(item: PyTree) -> dict[str, Any]:
    """Leaves by their path, joined with `/`, in the order of `jax.tree.leaves`.

    Raises:
        UserError: two leaves have the same path.
    """
    named = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(item):
        name = jax.tree_util.keystr(path, simple=True, separator="/") or "value"
        if name in named:
            raise UserError(f"Two leaves have the same path {name!r}; rename one of them")
        named[name] = leaf
    return named


def is_prng_key(leaf: Any) -> bool:
    """Whether `leaf` (an array or a `jax.ShapeDtypeStruct`) is a typed PRNG key."""
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def host_copies(item: PyTree) -> tuple[Leaves, dict[str, str]]:
    """Copies every leaf to host memory of its own, safe against donation and later changes.

    Returns:
        The arrays by leaf path (typed keys as their uint32 data), and the names of the
        generator behind each typed key by leaf path.

    Raises:
        UserError: a leaf is not numeric.
    """
    named = named_leaves(item)
    generators = {k: str(jax.random.key_impl(v)) for k, v in named.items() if is_prng_key(v)}
    data = stored_leaves(item)
    host = {k: np.array(v, order="C", copy=True) for k, v in jax.device_get(data).items()}
    for name, array in host.items():
        if array.dtype.kind in "OUSMm":
            raise UserError(f"Leaf {name!r} is {type(named[name]).__name__}, not a numeric array")
        host[name] = array.astype(array.dtype.newbyteorder("="), copy=False)
    return host, generators


def stored_leaves(item: PyTree) -> dict[str, Any]:
    """The leaves by path as they are stored: typed keys as their uint32 data."""
    return {
        name: jax.random.key_data(leaf) if is_prng_key(leaf) else leaf
        for name, leaf in named_leaves(item).items()
    }


def first_non_finite(leaves: Leaves) -> str | None:
    """Path of the first leaf with a NaN or an infinity, or None."""
    for name, array in leaves.items():
        if jnp.issubdtype(array.dtype, np.inexact) and not np.isfinite(array).all():
            return name
    return None


def digest(array: np.ndarray) -> str:
    """SHA-256 over dtype, shape and bytes of a C-contiguous array, in hexadecimal."""
    sha = hashlib.sha256(f"{array.dtype.name}{list(array.shape)}".encode())
    sha.update(array.reshape(-1).view(np.uint8).data)
    return sha.hexdigest()


def describe_leaves(leaves: Leaves, generators: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Shape and dtype as stored, SHA-256, and generator (None for plain arrays) of every leaf."""
    return {
        name: {
            "shape": list(array.shape),
            "dtype": array.dtype.name,
            "sha256": digest(array),
            "generator": generators.get(name),
        }
        for name, array in leaves.items()
    }


def differences(template: PyTree, found: dict[str, dict[str, Any]]) -> list[str]:
    """Compares structure, shapes and dtypes; one sentence per leaf that does not fit.

    Args:
        template: tree of `jax.ShapeDtypeStruct` or arrays that is expected.
        found: what `describe_leaves` recorded.
    """
    expected = {name: _signature(leaf) for name, leaf in named_leaves(template).items()}
    stored = {
        name: (tuple(leaf["shape"]), leaf["dtype"], leaf["generator"])
        for name, leaf in found.items()
    }
    sentences = []
    for name in sorted(expected | stored):
        if name not in stored:
            sentences.append(f"leaf {name!r}: expected {_text(expected[name])}, found nothing")
        elif name not in expected:
            sentences.append(f"leaf {name!r}: expected nothing, found {_text(stored[name])}")
        elif expected[name][:2] != stored[name][:2] or not _same_generator(
            expected[name][2], stored[name][2]
        ):
            sentences.append(
                f"leaf {name!r}: expected {_text(expected[name])}, found {_text(stored[name])}"
            )
    return sentences


def _signature(leaf: Any) -> tuple[tuple[int, ...], str, Any]:
    """Shape and dtype of the stored form, and the key dtype of typed keys (None otherwise)."""
    if is_prng_key(leaf):
        data = jax.eval_shape(jax.random.key_data, jax.ShapeDtypeStruct(leaf.shape, leaf.dtype))
        return data.shape, data.dtype.name, leaf.dtype
    if not hasattr(leaf, "dtype"):
        leaf = np.asarray(leaf)
    return tuple(leaf.shape), np.dtype(leaf.dtype).name, None


def _same_generator(expected: Any, stored: str | None) -> bool:
    if expected is None or stored is None:
        return expected is stored
    return jax.eval_shape(lambda: jax.random.key(0, impl=stored)).dtype == expected


def _text(signature: tuple[tuple[int, ...], str, Any]) -> str:
    shape, dtype, generator = signature
    text = f"{dtype}[{', '.join(map(str, shape))}]"
    return text if generator is None else f"{text} of a PRNG key ({generator})"


def rebuild(template: PyTree, arrays: Leaves, found: dict[str, dict[str, Any]]) -> PyTree:
    """Puts verified host arrays where the template wants them; see `SavedSteps.restore`."""
    leaves = [
        _place(arrays[name], leaf, found[name]["generator"])
        for name, leaf in named_leaves(template).items()
    ]
    return jax.tree.unflatten(jax.tree.structure(template), leaves)


def _place(array: np.ndarray, template: Any, generator: str | None) -> Any:
    if not isinstance(template, jax.Array | jax.ShapeDtypeStruct):
        return array
    if generator is None and jax.dtypes.canonicalize_dtype(array.dtype) != array.dtype:
        return array  # Without jax_enable_x64 the device would round a 64-bit leaf.
    follow = isinstance(template, jax.ShapeDtypeStruct) or template.committed
    sharding = template.sharding if follow else None
    if generator is not None:
        key = jax.random.wrap_key_data(jax.device_put(array), impl=generator)
        return key if sharding is None else jax.device_put(key, sharding)
    return jax.device_put(array, sharding, may_alias=False)


def seal(record: dict[str, Any]) -> dict[str, Any]:
    """Wraps a JSON-able record with the SHA-256 of its canonical text.

    Raises:
        UserError: the record is not JSON-able.
    """
    try:
        record = json.loads(json.dumps(record))
    except (TypeError, ValueError) as error:
        raise UserError(f"Checkpoint metadata must be JSON: {error}") from error
    return {"record": record, "sha256": _text_digest(record)}


def unseal(text: str | bytes) -> dict[str, Any]:
    """Reads back what `seal` returned.

    Raises:
        ValueError: the text is not a sealed record or was altered.
    """
    sealed = json.loads(text)
    if not isinstance(sealed, dict) or sealed.keys() != {"record", "sha256"}:
        raise ValueError("it is not a checkpoint record")
    if sealed["sha256"] != _text_digest(sealed["record"]):
        raise ValueError("its SHA-256 differs from the one saved")
    return sealed["record"]


def _text_digest(record: Any) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
