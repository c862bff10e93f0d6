"""Flags of the command lines that several processes may run together."""

from __future__ import annotations

import socket
import sys
import threading

from absl import flags

from experiments import console
from vae_jax.types import UserError

_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST:PORT of process 0; give it to every process of a run."
)
_PROCESSES = flags.DEFINE_integer(
    "processes", None, "How many processes the run has.", lower_bound=1
)
_PROCESS_ID = flags.DEFINE_integer(
    "process_id", None, "Which of them this is: 0, 1, ...", lower_bound=0
)
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "Find the other processes as SLURM, Open MPI or a cloud TPU tells."
)
_PATIENCE = flags.DEFINE_integer(
    "coordinator_seconds", 120, "How long to wait for the other processes.", lower_bound=1
)


def join() -> None:
    """Joins the other processes if the flags say that there are any.

    Raises:
        UserError: The flags do not fit together, or there is no such host.
    """
    given = (_COORDINATOR.value, _PROCESSES.value, _PROCESS_ID.value)
    if not _DISTRIBUTED.value and all(value is None for value in given):
        return
    if _COORDINATOR.value is not None:
        _check_address(_COORDINATOR.value)

    from vae_jax import devices

    # JAX ends the process with a stack trace when its own patience is at an end.
    late = threading.Timer(_PATIENCE.value, _leave)
    late.daemon = True
    late.start()
    try:
        devices.join(*given, patience_seconds=2 * _PATIENCE.value)
    finally:
        late.cancel()


def _check_address(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UserError(f"--coordinator is {address!r}, but must be HOST:PORT")
    try:
        socket.getaddrinfo(host.strip("[]"), port)
    except OSError as error:
        raise UserError(f"--coordinator={address}: no such host ({error.strerror})") from error


def _leave() -> None:
    """Ends a process that has waited for others in vain."""
    print(
        f"error: the other processes did not answer within {_PATIENCE.value} s; check that all of "
        "them run and that --coordinator is right, or wait longer with --coordinator_seconds",
        file=sys.stderr,
    )
    console.leave(2)
