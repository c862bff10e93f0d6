"""Flags of the command lines that several processes may run together."""

from __future__ import annotations

from absl import flags

from vae_jax import processes

_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST:PORT of process 0; give it to every process of a run."
)
_PROCESSES = flags.DEFINE_integer("processes", None, "How many processes the run has.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which of them this is: 0, 1, ...")
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "Find the other processes as SLURM, Open MPI or a cloud TPU tells."
)


def join() -> None:
    """Join the other processes if the flags say that there are any."""
    given = (_COORDINATOR.value, _PROCESSES.value, _PROCESS_ID.value)
    if _DISTRIBUTED.value or any(value is not None for value in given):
        processes.join(*given)
