"""The checkpoints of a run: any process reads and verifies them, one writes in the background."""

from __future__ import annotations

import logging
import math
import operator
import os
import resource
import shutil
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, Self

import jax
import numpy as np

from vae_jax import devices
from vae_jax.checkpoint import digests
from vae_jax.checkpoint.digests import PyTree
from vae_jax.checkpoint.orbax_items import UNFINISHED, brief_reason, read_item, write_step
from vae_jax.checkpoint.step_folders import Damaged, StepFolders, steps_to_keep
from vae_jax.types import UserError

NETWORKS = ("encoder", "decoder")
FINITE_ITEMS = ("encoder", "decoder", "classifier")  # never saved with a NaN or an infinity


def network_items(params: Mapping[str, Any], batch_stats: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a checkpoint item for each network, with its parameters and statistics."""
    return {
        network: {"params": params[network], "batch_stats": batch_stats[network]}
        for network in params
    }


def network_variables(items: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the inverse of `network_items`."""
    return {
        kind: {network: item[kind] for network, item in items.items()}
        for kind in ("params", "batch_stats")
    }


class Restored(NamedTuple):
    """What `SavedSteps.restore` read.

    Attributes:
        step: The step it was saved at.
        items: A tree for every item that was asked for.
        metadata: The metadata given to `Checkpoints.save`.
    """

    step: int
    items: dict[str, PyTree]
    metadata: dict[str, Any]


class SavedSteps:
    """Checkpoints in `DIRECTORY/<step>/<item>/`, as any number of processes may read them.

    Attributes:
        directory: The absolute path of the folder of all steps.
    """

    def __init__(self, directory: str | os.PathLike[str]):
        """Opens a directory, which need not exist; nothing is created in it."""
        self._folders = StepFolders(directory, unfinished=UNFINISHED)
        self.directory = self._folders.directory
        self._rejected: set[int] = set()  # found damaged by `restore`

    def validation_losses(self) -> dict[int, float]:
        """Returns the validation loss of every step with a readable record; NaN if not finite."""
        losses = {}
        for step in self._folders.numbers():
            if step not in self._rejected:
                try:
                    loss = self._folders.record(step)["validation_loss"]
                except Damaged:
                    continue
                losses[step] = math.nan if loss is None else loss
        return losses

    def steps(self) -> list[int]:
        """Returns the readable steps that `restore` has not rejected, oldest first."""
        return list(self.validation_losses())

    def latest_step(self) -> int | None:
        """Returns the newest step, or None."""
        return max(self.steps(), default=None)

    def read_metadata(self, step: int) -> dict[str, Any]:
        """Returns the metadata given to `Checkpoints.save`, without reading any array.

        Raises:
            UserError: The step is missing or its record is damaged.
        """
        return self._record(step)["metadata"]

    def networks_digest(self, step: int) -> str:
        """Returns a SHA-256 of the networks of a step, by what its record says of their arrays.

        Raises:
            UserError: The step is missing or its record is damaged.
        """
        items = self._record(step)["items"]
        return digests.seal({name: items.get(name) for name in NETWORKS})["sha256"]

    def restore(self, items: dict[str, PyTree], step: int | None = None) -> Restored:
        """Reads and verifies the named items; no other item is touched.

        Args:
            items: For every item wanted, a tree of `jax.ShapeDtypeStruct` or arrays. Its
                structure, shapes and dtypes must be those saved. Shardings given there are
                followed; otherwise leaves go to the default device. NumPy leaves stay on the
                host, and so do 64-bit leaves without `jax_enable_x64`.
            step: The step to read, or None for the newest good one; damaged steps are then
                skipped with a warning.

        Raises:
            UserError: The step asked for is missing or damaged, no step is good, or the template
                does not fit the checkpoint (expected and found, by leaf).
        """
        if step is not None:
            try:
                return self._restore_step(items, step)
            except Damaged as damage:
                raise self._refusal(step, damage) from damage
        reasons = []
        for candidate in sorted(set(self._folders.numbers()) - self._rejected, reverse=True):
            try:
                return self._restore_step(items, candidate)
            except Damaged as damage:
                logging.warning(
                    "Checkpoint step %d in %s is damaged and skipped: %s.",
                    *(candidate, self.directory, damage),
                )
                self._rejected.add(candidate)
                reasons.append(f"step {candidate}: {damage}")
        detail = f" ({'; '.join(reasons)})" if reasons else ""
        raise UserError(f"There is no good checkpoint in {self.directory}{detail}")

    def _record(self, step: int) -> dict[str, Any]:
        try:
            return self._folders.record(step)
        except Damaged as damage:
            raise self._refusal(step, damage) from None

    def _refusal(self, step: int, damage: Damaged) -> UserError:
        others = [other for other in self.steps() if other != step]
        return UserError(
            f"Checkpoint step {step} in {self.directory} cannot be used: {damage}; "
            f"other steps there: {', '.join(map(str, others)) or 'none'}"
        )

    def _restore_step(self, items: dict[str, PyTree], step: int) -> Restored:
        record = self._folders.record(step)
        for item, template in items.items():
            if item not in record["items"]:
                found = [f"expected item {item!r}, found {', '.join(record['items'])}"]
            else:
                found = digests.differences(template, record["items"][item])
                found = [f"item {item!r}, {sentence}" for sentence in found]
            if found:
                more = f" (and {len(found) - 1} more differences)" if len(found) > 1 else ""
                raise UserError(
                    f"Checkpoint step {step} in {self.directory} does not fit: {found[0]}{more}; "
                    "use the config it was trained with"
                )
        arrays = self._read_arrays(step, record, list(items))
        placed = {item: digests.rebuild(template, arrays[item]) for item, template in items.items()}
        return Restored(step, placed, record["metadata"])

    def _read_arrays(
        self, step: int, record: dict[str, Any], items: list[str]
    ) -> dict[str, digests.Leaves]:
        """Reads items to the host and compares every leaf with its digest."""
        arrays = {}
        for item in items:
            leaves = record["items"][item]
            empty = {name: leaf for name, leaf in leaves.items() if 0 in leaf["shape"]}
            stored = [name for name in leaves if name not in empty]
            try:
                arrays[item] = read_item(self.directory, step, item, stored) if stored else {}
                for name, leaf in empty.items():
                    arrays[item][name] = np.zeros(leaf["shape"], jax.numpy.dtype(leaf["dtype"]))
            except MemoryError:
                raise
            except Exception as error:
                if "PERMISSION_DENIED" in str(error) or isinstance(error, PermissionError):
                    raise UserError(
                        f"Checkpoint step {step} in {self.directory} may not be read "
                        f"({brief_reason(error)}); change its permissions"
                    ) from error
                raise Damaged(f"item {item!r} cannot be read ({brief_reason(error)})") from error
            for name, found in digests.describe_leaves(arrays[item]).items():
                if any(leaves[name][fact] != value for fact, value in found.items()):
                    raise Damaged(
                        f"item {item!r}, leaf {name!r}: its SHA-256 differs from the one saved"
                    )
            bad = digests.first_non_finite(arrays[item]) if item in FINITE_ITEMS else None
            if bad is not None:  # Nobody saved it so.
                raise Damaged(f"item {item!r}, leaf {bad!r} is not finite")
        return arrays


class Checkpoints(SavedSteps):
    """The checkpoints of the one process, or job of several processes, that trains the run.

    A step appears under its number by one rename, after all its arrays and digests are on disk;
    it is renamed away before it is deleted. A process killed at any instant therefore leaves good
    steps, and rests that are ignored and removed later. Files are synced before older steps are
    deleted, so this holds for a power failure as far as the file system keeps its promises.

    Where several processes train, all of them save together into a folder that all of them see, and
    wait for the disk: Orbax writes global arrays from all, and the first process does the rest.
    """

    def __init__(
        self, directory: str | os.PathLike[str], *, keep_latest: int = 2, keep_best: int = 1
    ):
        """Opens the folder; nothing is created before the first save.

        Args:
            directory: The folder of all steps.
            keep_latest: How many of the newest steps are kept, at least 1.
            keep_best: How many of the steps with the lowest finite validation loss are kept too.
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
        self,
        step: int,
        items: dict[str, PyTree],
        *,
        validation_loss: float,
        metadata: dict[str, Any],
    ) -> None:
        """Copies the arrays to the host, then hashes and writes them in the background.

        Waits for the save before it. A step that exists is left alone if the arrays are equal
        (only its validation loss and metadata are renewed), replaced if it is damaged. Damaged
        steps that `restore` met are set aside as `<step>.damaged`; remove them at will.

        Args:
            step: The training step, not older than the newest good one.
            items: Trees of numeric arrays (JAX or NumPy), such as `encoder`, `decoder` and
                `training`.
            validation_loss: What ranks the steps, lower is better; NaN if unknown.
            metadata: Facts as JSON values.

        Raises:
            UserError: A non-finite leaf of a network, a step out of order, metadata that is not
                JSON, or the failure of the save before it.
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
        loss = float(validation_loss)
        facts = {"step": step, "validation_loss": loss if math.isfinite(loss) else None}
        facts["metadata"] = digests.seal(metadata)["record"]
        if devices.several():
            shared = {item: digests.named_leaves(tree) for item, tree in items.items()}
            self._write(facts, arrays, shared)
        else:
            self._pending = self._writer.submit(self._write, facts, arrays, arrays)

    def wait(self) -> None:
        """Waits until the pending save is on disk.

        Raises:
            UserError: The save failed: where, why, bytes needed and bytes free.
        """
        if self._pending is not None:
            try:
                self._pending.result()
            finally:
                if self._pending.done():  # An interrupt leaves it to the next wait.
                    self._pending = None

    def restore(self, items: dict[str, PyTree], step: int | None = None) -> Restored:
        """Calls `SavedSteps.restore` after waiting for a pending save."""
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
        """Returns whether the step has to be written, and clears its place if so."""
        self._folders.remove_rests()
        if step not in self._rejected and self._renew(step, sealed):
            return False
        self._folders.set_aside(step)  # if it exists, it was found damaged
        return True

    def _settle(self, step: int) -> None:
        self._folders.sync(step)
        self._rejected.discard(step)
        self._retain()

    def _renew(self, step: int, sealed: dict[str, Any]) -> bool:
        """Returns whether the step exists with equal arrays; replaces its record if it differs."""
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
        losses = self.validation_losses()
        keep = steps_to_keep(losses, keep_latest=self._keep_latest, keep_best=self._keep_best)
        for step in self._folders.numbers():
            if step not in losses:
                self._folders.set_aside(step)
                self._rejected.discard(step)
            elif step not in keep:
                self._folders.discard(step)

    def _explain_failure(self, step: int, needed: int, error: Exception) -> str:
        if "oo many open files" in str(error):  # Orbax's errors are of many kinds.
            limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            return (
                f"Step {step} was not saved in {self.directory}: too many files are open; "
                f"the limit is {limit}, raise it with `ulimit -n`"
            )
        try:
            self._folders.remove_rests()
            free = f"{shutil.disk_usage(self.directory).free:,} bytes are free"
        except OSError as second:
            free = f"the folder cannot be used ({second})"
        return (
            f"Step {step} was not saved in {self.directory}: it needs up to {needed:,} bytes and "
            f"{free} there ({brief_reason(error)}); free some space or choose another folder"
        )
