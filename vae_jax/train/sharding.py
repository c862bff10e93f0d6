"""How many devices take part in a run, by rule or as asked."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from vae_jax.mesh import Device, make_mesh
from vae_jax.types import UserError


class Share(NamedTuple):
    """The devices of a run.

    Attributes:
        devices: that take part, equally many of every process.
        reason: why not all of them, in words; empty if all do.
    """

    devices: tuple[Device, ...]
    reason: str


def data_share(config: ConfigDict, devices: list[Device] | None = None) -> Share:
    """The devices that divide every batch among themselves.

    Rule for `config.parallel.data` 0: as many as there are, or the largest number below that
    divides both batch sizes (and micro-batches), since every device takes equally many images.

    Args:
        config: the whole config.
        devices: to choose from; None for all devices of all processes.

    Returns:
        The devices.

    Raises:
        UserError: the number asked for is not there or divides no batch; or batches cannot be
            divided among the processes.
    """
    devices = jax.devices() if devices is None else devices
    processes = len({device.process_index for device in devices})
    asked, micro_batch = config.parallel.data, config.train.batch_size // config.train.accumulate
    common = math.gcd(micro_batch, config.eval.batch_size)
    sizes = (
        f"{_micro_batch_name(config)} {micro_batch} and config.eval.batch_size "
        f"{config.eval.batch_size}"
    )
    if asked > len(devices) or asked % processes:
        raise UserError(
            f"config.parallel.data is {asked}, but there are {len(devices)} devices in "
            f"{processes} processes: take at most that many, equally many of each, or 0 for all"
        )
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
    return Share(_first_of_each(devices, count // processes), reason)


def members_share(asked: int, members: int, devices: list[Device] | None = None) -> Share:
    """The devices among which the members of a group that is trained together are divided.

    Args:
        asked: `config.parallel.members`; 0 for all devices, but no more than members.
        members: of the largest group.
        devices: to choose from; None for all devices of all processes.

    Returns:
        The devices; a group is filled up to a multiple of their number with copies of its last
        member, which nobody reads.

    Raises:
        UserError: more are asked for than there are.
    """
    devices = jax.devices() if devices is None else devices
    processes = len({device.process_index for device in devices})
    if asked > len(devices) or asked % processes:
        raise UserError(
            f"config.parallel.members is {asked}, but there are {len(devices)} devices in "
            f"{processes} processes: take at most that many, equally many of each, or 0 for all"
        )
    each = (asked or min(members, len(devices))) // processes
    return Share(_first_of_each(devices, max(1, each)), "")


def data_mesh(config: ConfigDict) -> Mesh | None:
    """The mesh of a run of its own; None for a single device."""
    return make_mesh(data_share(config).devices)


def members_mesh(asked: int, members: int) -> Mesh | None:
    """The mesh of groups of members; None for a single device."""
    devices = members_share(asked, members).devices
    return make_mesh(devices, len(devices))


def _first_of_each(devices: list[Device], count: int) -> tuple[Device, ...]:
    """The first `count` devices of every process, process by process."""
    processes = sorted({device.process_index for device in devices})
    own = [[d for d in devices if d.process_index == process] for process in processes]
    return tuple(device for some in own for device in some[:count])


def _micro_batch_name(config: ConfigDict) -> str:
    name = "config.train.batch_size"
    return name if config.train.accumulate == 1 else f"{name} / config.train.accumulate"
