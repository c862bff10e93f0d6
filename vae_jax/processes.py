"""Several processes as one run: what they agree on, and what the first of them does for all.

All processes run the same program on JAX's own distributed runtime and take the same decisions in
the same order; whatever may differ between them (time, signals, files) goes through here. With one
process everything here is the identity.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from vae_jax import progress as displays
from vae_jax.types import UserError

# A process that is not heard of for so long is dead, and the runtime ends the others.
HEARTBEAT_SECONDS = 30
# How long the others wait at the end for the pictures and measurements of the first process.
PATIENCE_SECONDS = 24 * 3600
MESSAGE_BYTES = 4096
# What the runtime's errors have in common when another process has gone.
LOST = ("Gloo", "NCCL", "Connection", "coordination", "heartbeat", "UNAVAILABLE", "DEADLINE")

T = TypeVar("T")


def join(coordinator: str | None, processes: int | None, process_id: int | None) -> None:
    """Become one of the processes of a run; call it before anything else of JAX.

    Args:
        coordinator: HOST:PORT of process 0; None to find it out from the environment that SLURM,
            Open MPI and cloud TPUs set.
        processes: how many there are, or None likewise.
        process_id: which of them this is, or None likewise.

    Raises:
        UserError: the arguments do not fit together, or the others do not answer.
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
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=PATIENCE_SECONDS,
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"the processes of this run did not find each other ({_first_line(error)}); check "
            "--coordinator, --processes and --process_id, or the environment of --distributed"
        ) from error


def joined() -> bool:
    """Whether `join` has succeeded."""
    return jax.distributed.is_initialized()


def several() -> bool:
    """Whether this process is one of several."""
    return jax.process_count() > 1


def is_first() -> bool:
    """Whether this process writes metrics, pictures and locks."""
    return jax.process_index() == 0


def describe_loss(error: Exception) -> str | None:
    """A sentence for an error that means that another process has gone; None for any other."""
    if not joined() or not any(word in str(error) for word in LOST):
        return None
    return (
        f"process {jax.process_index()} of {jax.process_count()} stops, since another process of "
        f"this run is gone ({_first_line(error)[:120]}); start all of them again with the same "
        "command to go on from the last checkpoint"
    )


def least(value: int) -> int:
    """The smallest of the values that the processes give."""
    return int(multihost_utils.process_allgather(np.int32(value)).min()) if several() else value


def greatest(value: int) -> int:
    """The largest of the values that the processes give."""
    return int(multihost_utils.process_allgather(np.int32(value)).max()) if several() else value


def on_first(function: Callable[[], T]) -> T:
    """Call a function in process 0 alone; all others wait for what it returns, or raises.

    Args:
        function: returns something that JSON holds, such as a number or None.

    Returns:
        Its result, in every process.

    Raises:
        UserError: it raised one.
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
    """Call a function in process 0, and then in the others, which find its files ready."""
    results = []
    on_first(lambda: results.append(function()))
    return results[0] if results else function()


@contextmanager
def held_by_first(context: AbstractContextManager[Any]) -> Iterator[None]:
    """A context, such as a lock, that process 0 holds for all."""
    with ExitStack() as stack:
        on_first(lambda: stack.enter_context(context))
        yield


@contextmanager
def progress(total: int, label: str, unit: str = "", start: int = 0) -> Iterator[displays.Advance]:
    """`vae_jax.progress.progress`, shown by process 0."""
    if is_first():
        with displays.progress(total, label, unit, start) as advance:
            yield advance
    else:
        yield lambda amount=1, note="": None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
