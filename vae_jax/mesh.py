"""Devices as a mesh with the axes `members` and `data`, and arrays that lie on it.

Programs are written for one device and the whole batch. `jit` divides them among the devices of the
mesh in use (`in_mesh`) by the shardings of their inputs; so sums over a batch, those of batch norm
too, are sums over the global batch. Without a mesh everything here is the identity, and the program
of a single device has no trace of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

MEMBERS, DATA = "members", "data"
WHOLE = PartitionSpec()
# Of arrays [S, B, ...]: each device holds its part of every batch.
BATCHES = PartitionSpec(None, DATA)


def make_mesh(devices: Sequence[jax.Device], members: int = 1) -> Mesh | None:
    """A mesh of `members` rows over devices in their order; None for a single device."""
    if len(devices) == 1:
        return None
    grid = np.array(devices).reshape(members, -1)
    return Mesh(grid, (MEMBERS, DATA), axis_types=(AxisType.Auto, AxisType.Auto))


def axis_size(mesh: Mesh | None, axis: str) -> int:
    """Devices along an axis; 1 without a mesh."""
    return 1 if mesh is None else mesh.shape[axis]


def in_mesh(mesh: Mesh | None) -> AbstractContextManager[Any]:
    """Context in which programs are called (and so traced) for the devices of `mesh`."""
    return nullcontext() if mesh is None else jax.set_mesh(mesh)


def place(tree: Any, mesh: Mesh | None, spec: PartitionSpec = WHOLE) -> Any:
    """Put arrays on the devices of a mesh; those that are there already stay as they are.

    Args:
        tree: arrays, equal in all processes. Python numbers are handed on.
        mesh: None hands everything on.
        spec: which axis of an array is divided along which axis of the mesh.

    Returns:
        The tree with global arrays.
    """
    if mesh is None:
        return tree
    sharding = NamedSharding(mesh, spec)

    def one(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array | np.ndarray):
            return leaf
        if isinstance(leaf, jax.Array):
            if getattr(leaf.sharding, "mesh", None) == mesh:
                return leaf
            if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                data = one(jax.random.key_data(leaf))
                return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
        host = np.asarray(leaf)
        return assemble(host.shape, sharding, lambda index: host[index])

    return jax.tree.map(one, tree)


def assemble(
    shape: tuple[int, ...],
    sharding: NamedSharding,
    read: Callable[[tuple[slice, ...]], np.ndarray],
) -> jax.Array:
    """A global array of which this process reads and transfers only what its devices hold.

    Args:
        shape: of the whole array.
        sharding: which part each device holds.
        read: the part of the array at some slices; called once for each different part.

    Returns:
        The array.
    """
    parts: dict[Any, np.ndarray] = {}
    arrays = []
    for device, index in sharding.addressable_devices_indices_map(shape).items():
        key = tuple((part.start, part.stop) for part in index)
        if key not in parts:
            parts[key] = read(index)
        arrays.append(jax.device_put(parts[key], device))
    return jax.make_array_from_single_device_arrays(shape, sharding, arrays)


# Within a program that is traced in a mesh


def split(tree: Any) -> Any:
    """Divide the leading axis of every array of a batch among the devices."""
    return _constrained(tree, PartitionSpec(DATA))


def whole(tree: Any) -> Any:
    """Every device holds the whole of every array."""
    return _constrained(tree, WHOLE)


def _constrained(tree: Any, spec: PartitionSpec) -> Any:
    if _traced_size(DATA) == 1:
        return tree
    return jax.tree.map(lambda leaf: jax.lax.with_sharding_constraint(leaf, spec), tree)


def each_device(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """A function of images `[B, ...]` and a kernel that every device applies to its own images.

    For operations that `jit` would not divide well by itself: the loops over chunks of images of
    `models.convolution` would gather the batch. Gradients of the kernel are summed over devices.
    """
    if _traced_size(DATA) == 1:
        return function
    own = PartitionSpec(DATA)
    return jax.shard_map(function, in_specs=(own, WHOLE), out_specs=own, check_vma=False)


def _traced_size(axis: str) -> int:
    return dict(jax.sharding.get_abstract_mesh().shape).get(axis, 1)
