"""The devices of a run: how many take part, arrays that lie on them, and several processes as one.

Programs are written for one device and the whole batch. `jit` divides them among the devices of the
mesh in use (`in_mesh`), which has the axes `members` and `data`, by the shardings of their inputs;
so sums over a batch, those of batch norm too, are sums over the global batch. Without a mesh, all
of that is the identity, and the program of a single device has no trace of it.

Several processes run the same program on JAX's own distributed runtime and take the same decisions
in the same order; whatever may differ between them (time, signals, files) is agreed on through the
last part of this file. With one process, that is the identity too.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from vae_jax import progress as displays
from vae_jax.types import UserError

Device = Any  # jax.Device, which type checkers mistake for a variable
T = TypeVar("T")

MEMBERS, DATA = "members", "data"
WHOLE = PartitionSpec()
# Of arrays [S, B, ...]: each device holds its part of every batch.
BATCHES = PartitionSpec(None, DATA)
# Of arrays [K, ...]: each device holds its own members.
OWN = PartitionSpec(MEMBERS)

# A process that is silent for so long counts as dead, and the runtime ends the others.
HEARTBEAT_SECONDS = 30
# How long the others wait at the end for the pictures and measurements of the first process.
PATIENCE_SECONDS = 24 * 3600
MESSAGE_BYTES = 4096
# Words in the errors of the runtime when another process has gone.
LOST = ("Gloo", "NCCL", "Connection", "coordination", "heartbeat", "UNAVAILABLE", "DEADLINE")


# Which devices take part, by rule or as asked


class Share(NamedTuple):
    """The devices of a run.

    Attributes:
        devices: Those that take part, equally many of every process.
        reason: Why not all of them, in words; empty if all do.
    """

    devices: tuple[Device, ...]
    reason: str


def data_share(config: ConfigDict) -> Share:
    """Returns the devices that divide every batch among themselves.

    The rule for `config.parallel.data` 0: as many as there are, or the largest number below that
    divides both batch sizes (and micro-batches), since every device takes equally many images.

    Args:
        config: The whole config.

    Raises:
        UserError: The number asked for is not there or divides no batch; or batches cannot be
            divided among the processes.
    """
    devices, processes, asked = jax.devices(), _process_count(), config.parallel.data
    _check_asked("data", asked)
    micro_batch = config.train.batch_size // config.train.accumulate
    common = math.gcd(micro_batch, config.eval.batch_size)
    name = "config.train.batch_size"
    if config.train.accumulate > 1:
        name += " / config.train.accumulate"
    sizes = f"{name} {micro_batch} and config.eval.batch_size {config.eval.batch_size}"
    if common % (asked or processes):
        raise UserError(
            f"{sizes} cannot be divided among {asked or processes} "
            f"{'devices' if asked else 'processes'}: make both multiples of it"
        )
    fitting = [n for n in range(processes, len(devices) + 1, processes) if common % n == 0]
    count = asked or fitting[-1]
    reason = f"as asked in config.parallel.data of {len(devices)}" if asked else ""
    if not asked and count < len(devices):
        reason = f"of {len(devices)}: no larger number divides {sizes}"
    return Share(_first_of_each(count // processes), reason)


def data_mesh(config: ConfigDict) -> Mesh | None:
    """Makes the mesh of a run of its own; None for a single device."""
    return make_mesh(data_share(config).devices)


def members_devices(asked: int, members: int) -> tuple[Device, ...]:
    """Returns the devices among which the members of a group are divided.

    Args:
        asked: `config.parallel.members`; 0 for all devices, but no more than members.
        members: The number of members in the largest group.

    Returns:
        The devices; a group is filled up to a multiple of their number with copies of its last
        member, which nobody reads.

    Raises:
        UserError: More are asked for than there are.
    """
    _check_asked("members", asked)
    each = (asked or min(members, len(jax.devices()))) // _process_count()
    return _first_of_each(max(1, each))


def members_mesh(asked: int, members: int) -> Mesh | None:
    """Makes the mesh of groups of members; None for a single device."""
    devices = members_devices(asked, members)
    return make_mesh(devices, len(devices))


def _check_asked(field: str, asked: int) -> None:
    """Raises a UserError unless that many devices can take part, equally many of each process."""
    count, processes = len(jax.devices()), _process_count()
    if asked > count or asked % processes:
        raise UserError(
            f"config.parallel.{field} is {asked}, but there are {count} devices in {processes} "
            "processes: take at most that many, equally many of each, or 0 for all"
        )


def _process_count() -> int:
    return len({device.process_index for device in jax.devices()})


def _first_of_each(count: int) -> tuple[Device, ...]:
    """Returns the first `count` devices of every process, process by process."""
    devices = jax.devices()
    processes = sorted({device.process_index for device in devices})
    own = [[d for d in devices if d.process_index == process] for process in processes]
    return tuple(device for some in own for device in some[:count])


# Arrays that lie on them


def make_mesh(devices: Sequence[Device], members: int = 1) -> Mesh | None:
    """Makes a mesh of `members` rows over devices in their order; None for a single device."""
    if len(devices) == 1:
        return None
    grid = np.array(devices).reshape(members, -1)
    return Mesh(grid, (MEMBERS, DATA), axis_types=(AxisType.Auto, AxisType.Auto))


def axis_size(mesh: Mesh | None, axis: str) -> int:
    """Returns the number of devices along an axis; 1 without a mesh."""
    return 1 if mesh is None else mesh.shape[axis]


def in_mesh(mesh: Mesh | None) -> AbstractContextManager[Any]:
    """Returns a context in which programs are called (and so traced) for a mesh."""
    return nullcontext() if mesh is None else jax.set_mesh(mesh)


def place(tree: Any, mesh: Mesh | None, spec: PartitionSpec = WHOLE) -> Any:
    """Puts arrays on the devices of a mesh; arrays that are there already stay as they are.

    Args:
        tree: Arrays, equal in all processes. Python numbers are returned as they are.
        mesh: The mesh; with None, everything is returned as it is.
        spec: Which axis of an array is divided along which axis of the mesh.

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
    """Makes a global array; this process reads and transfers only what its devices hold.

    Args:
        shape: The shape of the whole array.
        sharding: Which part each device holds.
        read: Returns the part of the array at some slices; called once for each different part.
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
    """Returns whole arrays on the host, in every process."""

    def one(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable or leaf.is_fully_replicated:
            return jax.device_get(leaf)
        return multihost_utils.process_allgather(leaf, tiled=True)

    return jax.tree.map(one, tree)


# Within a program that is traced in a mesh


def split(tree: Any) -> Any:
    """Divides the leading axis of every array of a batch among the devices."""
    return _constrained(tree, PartitionSpec(DATA))


def whole(tree: Any) -> Any:
    """Gives every device the whole of every array."""
    return _constrained(tree, WHOLE)


def _constrained(tree: Any, spec: PartitionSpec) -> Any:
    if _traced_size(DATA) == 1:
        return tree
    return jax.tree.map(lambda leaf: jax.lax.with_sharding_constraint(leaf, spec), tree)


def on_own_images(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Makes a function of images `[B, ...]` and a kernel run on the images of each device alone.

    For operations that `jit` would not divide well by itself: the loops over chunks of images of
    `models.convolution` would gather the batch. Gradients of the kernel are summed over devices.
    """
    own = PartitionSpec(DATA)
    return _on_own_part(DATA, function, (own, WHOLE), own)


def on_own_members(function: Callable[..., tuple[Any, Any]], in_specs: Any) -> Any:
    """Makes a function run on the members of each device alone, which share nothing.

    Args:
        function: Returns the members' carry, with a leading axis K, and metrics `[S, K]`.
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


# Several processes as one run


def join(
    coordinator: str | None,
    processes: int | None,
    process_id: int | None,
    patience_seconds: int = 120,
) -> None:
    """Joins the other processes of a run; call it before anything else of JAX.

    Args:
        coordinator: HOST:PORT of process 0; None to find it out from the environment that SLURM,
            Open MPI and cloud TPUs set.
        processes: The number of processes, or None likewise.
        process_id: Which of them this is, or None likewise.
        patience_seconds: How long to wait for the others.

    Raises:
        UserError: The arguments do not fit together, or the others do not answer.
    """
    given = {value is not None for value in (coordinator, processes, process_id)}
    if len(given) > 1:
        raise UserError("--coordinator, --processes and --process_id go together: give all three")
    if processes is not None and process_id is not None and not 0 <= process_id < processes:
        raise UserError(f"--process_id is {process_id}, but must be 0 to {processes - 1}")
    try:
        jax.distributed.initialize(
            coordinator,
            processes,
            process_id,
            initialization_timeout=patience_seconds,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=PATIENCE_SECONDS,
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"the processes of this run did not find each other ({_first_line(error)}); check "
            "--coordinator, --processes and --process_id, or the environment of --distributed"
        ) from error


def joined() -> bool:
    """Returns whether `join` has succeeded."""
    return jax.distributed.is_initialized()


def several() -> bool:
    """Returns whether this process is one of several."""
    return jax.process_count() > 1


def is_first() -> bool:
    """Returns whether this process is the one that writes metrics, pictures and locks."""
    return jax.process_index() == 0


def describe_loss(error: Exception) -> str | None:
    """Returns a sentence if an error means that another process has gone, else None."""
    if not joined() or not any(word in str(error) for word in LOST):
        return None
    return (
        f"process {jax.process_index()} of {jax.process_count()} stops, since another process of "
        f"this run is gone ({_first_line(error)[:120]}); start all of them again with the same "
        "command to go on from the last checkpoint"
    )


def least(value: int) -> int:
    """Returns the smallest of the values that the processes give."""
    return int(multihost_utils.process_allgather(np.int32(value)).min()) if several() else value


def greatest(value: int) -> int:
    """Returns the largest of the values that the processes give."""
    return int(multihost_utils.process_allgather(np.int32(value)).max()) if several() else value


def on_first(function: Callable[[], T]) -> T:
    """Calls a function in process 0 alone; all others wait for what it returns or raises.

    Args:
        function: Returns something that JSON holds, such as a number or None.

    Returns:
        Its result, in every process.

    Raises:
        UserError: The function raised one.
    """
    if not several():
        return function()
    message: dict[str, Any] = {}
    if is_first():
        try:
            message = {"result": function()}
        except UserError as error:
            message = {"error": str(error)[: MESSAGE_BYTES // 8]}
    text = json.dumps(message).encode()[:MESSAGE_BYTES].ljust(MESSAGE_BYTES)
    text = multihost_utils.broadcast_one_to_all(np.frombuffer(text, np.uint8))
    message = json.loads(np.asarray(text).tobytes())
    if "error" in message:
        raise UserError(message["error"])
    return message["result"]


def first_before_others(function: Callable[[], T]) -> T:
    """Calls a function in process 0 and then in the others, which find its files ready."""
    results = []
    on_first(lambda: results.append(function()))
    return results[0] if results else function()


@contextmanager
def held_by_first(context: AbstractContextManager[Any]) -> Iterator[None]:
    """Enters a context, such as a lock, in process 0 on behalf of all."""
    with ExitStack() as stack:
        on_first(lambda: stack.enter_context(context))
        yield


@contextmanager
def progress(total: int, label: str, unit: str, start: int = 0) -> Iterator[displays.Advance]:
    """Shows progress in process 0 alone; see `vae_jax.progress.progress`."""
    if is_first():
        with displays.progress(total, label, unit, start) as advance:
            yield advance
    else:
        yield lambda amount=1, note="": None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
