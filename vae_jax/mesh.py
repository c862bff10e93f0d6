"""Devices as a mesh with the axes `members` and `data`, and arrays that lie on it.

Programs are written for one device and the whole batch. `jit` divides them among the devices of the
mesh in use (`in_mesh`) by the shardings of their inputs; so sums over a batch, those of batch norm
too, are sums over the global batch. Without a mesh everything here is the identity, and the program
of a single device has no trace of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

Device = Any  # jax.Device, which type checkers take for a variable
MEMBERS, DATA = "members", "data"
WHOLE = PartitionSpec()
# Of arrays [S, B, ...]: each device holds its part of every batch.
BATCHES = PartitionSpec(None, DATA)
# Of arrays [K, ...]: each device holds its own members.
OWN = PartitionSpec(MEMBERS)


def make_mesh(devices: Sequence[Device], members: int = 1) -> Mesh | None:
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
            if jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key):
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
        assert index is not None  # every addressable device holds a part
        key = tuple((part.start, part.stop) for part in index)
        if key not in parts:
            parts[key] = read(index)
        arrays.append(jax.device_put(parts[key], device))
    return jax.make_array_from_single_device_arrays(shape, sharding, arrays)


def host(tree: Any) -> Any:
    """The arrays on the host, whole, in every process."""

    def one(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable or leaf.is_fully_replicated:
            return jax.device_get(leaf)
        return multihost_utils.process_allgather(leaf, tiled=True)

    return jax.tree.map(one, tree)


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


def on_own_images(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """A function of images `[B, ...]` and a kernel that every device applies to its own images.

    For operations that `jit` would not divide well by itself: the loops over chunks of images of
    `models.convolution` would gather the batch. Gradients of the kernel are summed over devices.
    """
    own = PartitionSpec(DATA)
    return _on_own_part(DATA, function, (own, WHOLE), own)


def on_own_members(function: Callable[..., tuple[Any, Any]], in_specs: Any) -> Any:
    """A function that every device applies to its own members; they share nothing.

    Args:
        function: returns the members' carry, with a leading axis K, and metrics `[S, K]`.
        in_specs: `OWN` for arguments with a leading axis K, `WHOLE` for what all members share.

    Returns:
        A function with the same arguments and results; the metrics of all are on every device.
    """

    def gathering(*arguments: Any) -> tuple[Any, Any]:
        carry, metrics = function(*arguments)
        gather = partial(jax.lax.all_gather, axis_name=MEMBERS, axis=1, tiled=True)
        return carry, jax.tree.map(gather, metrics)

    def either(*arguments: Any) -> tuple[Any, Any]:
        chosen = function if _traced_size(MEMBERS) == 1 else gathering
        return _on_own_part(MEMBERS, chosen, in_specs, (OWN, WHOLE))(*arguments)

    return either


def _on_own_part(axis: str, function: Callable[..., Any], in_specs: Any, out_specs: Any) -> Any:
    if _traced_size(axis) == 1:
        return function
    return jax.shard_map(function, in_specs=in_specs, out_specs=out_specs, check_vma=False)


def _traced_size(axis: str) -> int:
    return dict(jax.sharding.get_abstract_mesh().shape).get(axis, 1)
