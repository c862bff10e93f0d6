"""Named arrays of one step to and from disk: the only file that knows Orbax."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from vae_jax.checkpoint.digests import Leaves
from vae_jax.checkpoint.step_folders import RECORD

UNFINISHED = ocp.utils.TMP_DIR_SUFFIX  # of the folder that is renamed once a step is complete


def write_step(directory: Path, step: int, items: dict[str, Leaves], record: Any) -> None:
    """Writes `DIRECTORY/<step>/` with one composite save that appears by one rename.

    Waits until all is written and deletes nothing, so that the caller's background thread gets
    every error here, and removes older steps only after it has synced this one. Several processes
    call it together: each writes its part of global arrays, and the first one everything else.

    Args:
        directory: The folder of all steps.
        step: A step that does not exist yet.
        items: Non-empty arrays by item and leaf path; an item may have none. Arrays that only
            this process holds are copied to the host.
        record: JSON values that are saved with them.
    """
    arguments: dict[str, Any] = {RECORD: ocp.args.JsonSave(record)}
    for item, leaves in items.items():
        if leaves:
            arguments[item] = ocp.args.PyTreeSave({k: _savable(v) for k, v in leaves.items()})
    options = ocp.CheckpointManagerOptions(
        enable_async_checkpointing=False, lightweight_initialize=True
    )
    with _one_error_only(), ocp.CheckpointManager(directory, options=options) as manager:
        manager.save(step, args=ocp.args.Composite(**arguments), force=True)


def _savable(leaf: Any) -> Any:
    is_global = isinstance(leaf, jax.Array) and not leaf.is_fully_addressable
    return leaf if is_global else np.asarray(leaf)


def read_item(directory: Path, step: int, item: str, names: list[str]) -> Leaves:
    """Returns the leaves `names` of one item as NumPy arrays, as they are on disk: unverified.

    Raises:
        Exception: Orbax and TensorStore raise many kinds for broken files.
    """
    # A manager of its own: a broken step can spoil a manager for the good ones.
    alone = ocp.options.MultiprocessingOptions(  # Every process reads by itself.
        primary_host=jax.process_index(),
        active_processes={jax.process_index()},
        barrier_sync_key_prefix=f"process_{jax.process_index()}",
    )
    options = ocp.CheckpointManagerOptions(
        create=False, lightweight_initialize=True, multiprocessing_options=alone
    )
    arguments = ocp.args.PyTreeRestore(
        item=dict.fromkeys(names, 0),
        restore_args={name: ocp.RestoreArgs(restore_type=np.ndarray) for name in names},
    )
    with _one_error_only(), ocp.CheckpointManager(directory, options=options) as manager:
        restored = manager.restore(step, args=ocp.args.Composite(**{item: arguments}))
    return {name: np.asarray(restored[item][name], order="C") for name in names}


@contextmanager
def _one_error_only() -> Iterator[None]:
    """Reduces a failure to its exception: Orbax logs nothing, and TensorStore repeats nothing.

    Orbax closes its event loop at the first array that fails; TensorStore then finds it closed for
    every array still under way, and each would print a traceback.
    """
    logger, folder, hook = logging.getLogger("absl"), f"{os.sep}orbax{os.sep}", sys.unraisablehook

    def is_not_orbax(record: logging.LogRecord) -> bool:
        return folder not in record.pathname

    def drop_echoes(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            hook(unraisable)

    logger.addFilter(is_not_orbax)
    sys.unraisablehook = drop_echoes
    try:
        yield
    except Exception:
        time.sleep(0.1)  # the echoes arrive from other threads
        raise
    finally:
        sys.unraisablehook = hook
        logger.removeFilter(is_not_orbax)


def brief_reason(error: Exception) -> str:
    """Returns an error's first line, without TensorStore's specification; the end says most."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0].split(" [")[0]
    return line if len(line) <= 200 else f"... {line[-200:]}"
