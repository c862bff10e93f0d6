"""Flags of the command lines that several processes may run together."""

from __future__ import annotations

import socket
import sys
import time

from absl import flags

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
        UserError: The flags do not fit together, or the others do not answer in time.
    """
    given = (_COORDINATOR.value, _PROCESSES.value, _PROCESS_ID.value)
    if not _DISTRIBUTED.value and all(value is None for value in given):
        return
    if _COORDINATOR.value is not None and _PROCESS_ID.value:
        _await_coordinator(_COORDINATOR.value, _PATIENCE.value)

    from vae_jax import devices

    devices.join(*given, patience_seconds=_PATIENCE.value)


def _await_coordinator(address: str, seconds: float) -> None:
    """Returns when process 0 listens: JAX's own client ends the process where nobody does."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UserError(f"--coordinator is {address!r}, but must be HOST:PORT")
    deadline, told = time.monotonic() + seconds, False
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=seconds).close()
            return
        except socket.gaierror as error:
            raise UserError(f"--coordinator={address}: no such host ({error.strerror})") from error
        except OSError as error:
            if time.monotonic() >= deadline:
                raise UserError(
                    f"process 0 does not answer at --coordinator={address} after {seconds:g} s "
                    f"({error.strerror or error}); start it, or wait longer with "
                    "--coordinator_seconds"
                ) from error
        if not told:
            print(f"waiting for process 0 at {address}", file=sys.stderr)
            told = True
        time.sleep(0.5)
