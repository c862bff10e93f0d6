"""The checkpoints of a run that are on disk: listed by number and loss, verified when read."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from vae_jax.checkpoint import digests
from vae_jax.checkpoint.digests import PyTree
from vae_jax.checkpoint.orbax_items import UNFINISHED, brief_reason, read_item
from vae_jax.checkpoint.step_folders import Damaged, StepFolders
from vae_jax.types import UserError

NETWORKS = ("encoder", "decoder")


def network_items(params: Mapping[str, Any], batch_stats: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint item for each network, with its parameters and statistics."""
    return {
        network: {"params": params[network], "batch_stats": batch_stats[network]}
        for network in params
    }


def network_variables(items: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `network_items`."""
    return {
        kind: {network: item[kind] for network, item in items.items()}
        for kind in ("params", "batch_stats")
    }


class Restored(NamedTuple):
    """What `SavedSteps.restore` read.

    Attributes:
        step: the step it was saved at.
        items: a tree for every item that was asked for.
        metadata: the metadata given to `Checkpoints.save`.
        test_loss: the test loss given to `Checkpoints.save`; NaN if it was not finite.
    """

    step: int
    items: dict[str, PyTree]
    metadata: dict[str, Any]
    test_loss: float


class SavedSteps:
    """Checkpoints in `DIRECTORY/<step>/<item>/`, as any number of processes may read them.

    Attributes:
        directory: absolute path of the folder of all steps.
    """

    def __init__(self, directory: str | os.PathLike[str]):
        """`directory` need not exist; nothing is created in it."""
        self._folders = StepFolders(directory, unfinished=UNFINISHED)
        self.directory = self._folders.directory
        self._rejected: set[int] = set()  # found damaged by `restore`

    def test_losses(self) -> dict[int, float]:
        """Test loss of every step on disk with a readable record; NaN if it was not finite."""
        losses = {}
        for step in self._folders.numbers():
            if step not in self._rejected:
                try:
                    losses[step] = _test_loss(self._folders.record(step))
                except Damaged:
                    continue
        return losses

    def steps(self) -> list[int]:
        """Steps on disk with a readable record that `restore` has not rejected, oldest first."""
        return list(self.test_losses())

    def latest_step(self) -> int | None:
        """The newest step, or None."""
        return max(self.steps(), default=None)

    def best_step(self) -> int | None:
        """The step with the lowest finite test loss, or None."""
        losses = {step: loss for step, loss in self.test_losses().items() if math.isfinite(loss)}
        return min(losses, key=lambda step: (losses[step], step), default=None)

    def read_metadata(self, step: int) -> dict[str, Any]:
        """The metadata given to `Checkpoints.save`, without reading any array.

        Raises:
            UserError: the step is missing or its record is damaged.
        """
        try:
            return self._folders.record(step)["metadata"]
        except Damaged as damage:
            raise self._refusal(step, damage) from None

    def restore(self, items: dict[str, PyTree], step: int | None = None) -> Restored:
        """Reads and verifies the named items; no other item is touched.

        Args:
            items: for every item wanted, a tree of `jax.ShapeDtypeStruct` or arrays. Its
                structure, shapes and dtypes must be those saved. Shardings given there are
                followed; otherwise leaves go to the default device. Numpy leaves stay on the
                host, and so do 64-bit leaves without `jax_enable_x64`.
            step: the step to read, or None for the newest good one; damaged steps are then
                skipped with a warning.

        Raises:
            UserError: the step asked for is missing or damaged, no step is good, or the template
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
        return Restored(step, placed, record["metadata"], _test_loss(record))

    def _read_arrays(
        self, step: int, record: dict[str, Any], items: list[str]
    ) -> dict[str, digests.Leaves]:
        """Reads items to the host and compares every leaf with its digest."""
        arrays = {}
        for item in items:
            leaves = record["items"][item]
            stored = [name for name, leaf in leaves.items() if 0 not in leaf["shape"]]
            try:
                arrays[item] = read_item(self.directory, step, item, stored) if stored else {}
            except MemoryError:
                raise
            except Exception as error:
                if "PERMISSION_DENIED" in str(error) or isinstance(error, PermissionError):
                    raise UserError(
                        f"Checkpoint step {step} in {self.directory} may not be read "
                        f"({brief_reason(error)}); change its permissions"
                    ) from error
                raise Damaged(f"item {item!r} cannot be read ({brief_reason(error)})") from error
            for name, leaf in leaves.items():
                if name not in arrays[item]:
                    arrays[item][name] = np.zeros(leaf["shape"], jax.numpy.dtype(leaf["dtype"]))
                if digests.digest(arrays[item][name]) != leaf["sha256"]:
                    raise Damaged(
                        f"item {item!r}, leaf {name!r}: its SHA-256 differs from the one saved"
                    )
        return arrays


def _test_loss(record: dict[str, Any]) -> float:
    loss = record["test_loss"]
    return math.nan if loss is None else loss
