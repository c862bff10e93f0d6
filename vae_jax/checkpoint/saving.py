"""Checkpoints of a run: written in the background, verified leaf by leaf when read."""

from __future__ import annotations

import logging
import math
import operator
import os
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self

import numpy as np

from vae_jax import devices
from vae_jax.checkpoint import digests
from vae_jax.checkpoint.digests import PyTree
from vae_jax.checkpoint.orbax_items import brief_reason, write_step
from vae_jax.checkpoint.saved_steps import Restored, SavedSteps
from vae_jax.checkpoint.step_folders import Damaged, steps_to_keep
from vae_jax.types import UserError

FINITE_ITEMS = ("encoder", "decoder", "classifier")  # never saved with a NaN or an infinity


class Checkpoints(SavedSteps):
    """The checkpoints of the one process, or job of several processes, that trains the run.

    A step appears under its number by one rename, after all its arrays and digests are on disk;
    it is renamed away before it is deleted. A process killed at any instant therefore leaves good
    steps and ignorable rests. Files are synced before older steps go, so this holds for a power
    failure as far as the file system keeps its promises.

    Where several processes train, all of them save together, waiting for the disk, in a folder that
    all of them see: Orbax writes global arrays from all, the first one does the rest.
    """

    def __init__(
        self, directory: str | os.PathLike[str], *, keep_latest: int = 2, keep_best: int = 1
    ):
        """Opens the folder; nothing is created before the first save.

        Args:
            directory: folder of all steps.
            keep_latest: how many of the newest steps survive, at least 1.
            keep_best: how many of the steps with the lowest finite test loss survive besides.
        """
        if keep_latest < 1 or keep_best < 0:
            raise UserError(
                "keep_latest must be at least 1 and keep_best at least 0, "
                f"not {keep_latest} and {keep_best}"
            )
        super().__init__(directory)
        self._keep_latest, self._keep_best = keep_latest, keep_best
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        try:
            self.close()
        except UserError as unsaved:
            if error is None:
                raise
            logging.error("%s", unsaved)  # the first error is the one to show

    def close(self) -> None:
        """Waits for a pending save and raises its error."""
        try:
            self.wait()
        finally:
            self._writer.shutdown()

    def save(
        self, step: int, items: dict[str, PyTree], *, test_loss: float, metadata: dict[str, Any]
    ) -> None:
        """Copies the arrays to the host, then hashes and writes them in the background.

        Waits for the save before it. A step that exists is left alone if the arrays are equal
        (only its test loss and metadata are renewed), replaced if it is damaged. Damaged steps
        that `restore` met are set aside as `<step>.damaged`; remove them at will.

        Args:
            step: training step, not older than the newest good one.
            items: trees of numeric arrays (jax or numpy), e.g. `encoder`,
                `decoder` and `training`.
            test_loss: ranks the steps, lower is better; NaN if unknown.
            metadata: JSON-able facts such as the resolved config and versions.

        Raises:
            UserError: a non-finite leaf of the encoder or decoder, a step out of order,
                metadata that is not JSON, or the failure of the save before it.
        """
        self.wait()
        step = operator.index(step)
        newest = devices.on_first(self.latest_step)
        if step < 0 or (newest is not None and step < newest):
            raise UserError(
                f"Step {step} cannot be saved in {self.directory}: the newest step there is "
                f"{newest}; choose another folder to branch off an older step"
            )
        arrays = {}
        for item, tree in items.items():
            arrays[item] = digests.host_copies(tree)
            name = digests.first_non_finite(arrays[item]) if item in FINITE_ITEMS else None
            if name is not None:
                raise UserError(
                    f"Step {step} is not saved: leaf {name!r} of the {item} is not finite; "
                    "lower the learning rate or clip the gradients, and resume"
                )
        loss = float(test_loss)
        facts = {"step": step, "test_loss": loss if math.isfinite(loss) else None}
        facts["metadata"] = digests.seal(metadata)["record"]
        if devices.several():
            shared = {item: digests.named_leaves(tree) for item, tree in items.items()}
            self._write(facts, arrays, shared)
        else:
            self._pending = self._writer.submit(self._write, facts, arrays, arrays)

    def wait(self) -> None:
        """Waits until the pending save is on disk.

        Raises:
            UserError: the save failed: where, why, bytes needed and bytes free.
        """
        if self._pending is not None:
            try:
                self._pending.result()
            finally:
                if self._pending.done():  # An interrupt leaves it to the next wait.
                    self._pending = None

    def restore(self, items: dict[str, PyTree], step: int | None = None) -> Restored:
        """`SavedSteps.restore` after waiting for a pending save."""
        self.wait()
        return super().restore(items, step)

    def _write(
        self,
        facts: dict[str, Any],
        arrays: dict[str, digests.Leaves],
        sources: dict[str, dict[str, Any]],
    ) -> None:
        """Writes the arrays `sources`, of which `arrays` are the copies on the host."""
        step = facts["step"]
        try:
            items = {name: digests.describe_leaves(item) for name, item in arrays.items()}
            sealed = digests.seal({**facts, "items": items})
            if devices.on_first(lambda: self._make_room(step, sealed)):
                stored = {  # Orbax takes no empty arrays; their record is enough.
                    item: {name: leaf for name, leaf in leaves.items() if np.size(leaf)}
                    for item, leaves in sources.items()
                }
                write_step(self.directory, step, stored, sealed)
            devices.on_first(lambda: self._settle(step))
        except UserError:
            raise
        except Exception as error:
            if devices.describe_loss(error):
                raise
            needed = sum(leaf.nbytes for leaves in arrays.values() for leaf in leaves.values())
            raise UserError(self._explain_failure(step, needed, error)) from error

    def _make_room(self, step: int, sealed: dict[str, Any]) -> bool:
        """Whether the step is to be written; nothing of that name is in the way then."""
        self._folders.sweep()
        if step not in self._rejected and self._renew(step, sealed):
            return False
        self._folders.set_aside(step)  # if it exists, it was found damaged
        return True

    def _settle(self, step: int) -> None:
        self._folders.sync(step)
        self._rejected.discard(step)
        self._retain()

    def _renew(self, step: int, sealed: dict[str, Any]) -> bool:
        """Whether the step exists with equal arrays; its record is then replaced if it differs."""
        try:
            record = self._folders.record(step)
            self._read_arrays(step, record, list(record["items"]))
        except Damaged:
            return False
        if record["items"] != sealed["record"]["items"]:
            raise UserError(
                f"Step {step} exists in {self.directory} with other contents; "
                "resume from it or choose another folder"
            )
        if record != sealed["record"]:
            self._folders.replace_record(step, sealed)
        return True

    def _retain(self) -> None:
        """Deletes what the retention rule does not keep, and sets damaged steps aside."""
        losses = self.test_losses()
        keep = steps_to_keep(losses, keep_latest=self._keep_latest, keep_best=self._keep_best)
        for step in self._folders.numbers():
            if step not in losses:
                self._folders.set_aside(step)
                self._rejected.discard(step)
            elif step not in keep:
                self._folders.discard(step)

    def _explain_failure(self, step: int, needed: int, error: Exception) -> str:
        try:
            self._folders.sweep()
            free = f"{shutil.disk_usage(self.directory).free:,} bytes are free"
        except OSError as second:
            free = f"the folder cannot be used ({second})"
        return (
            f"Step {step} was not saved in {self.directory}: it needs up to {needed:,} bytes and "
            f"{free} there ({brief_reason(error)}); free some space or choose another folder"
        )
