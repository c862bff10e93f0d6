"""Whole commands of ours as sides: preparing JPEGs, a sweep, and one member of a sweep."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from experiments.speed.side import Call, Result, TaskFolder, peak_memory_mib
from vae_jax import config as configs
from vae_jax.data.faces import files as faces
from vae_jax.data.formats import celeba
from vae_jax.data.splits import open_splits
from vae_jax.train.sweep import fit_sweep, sweep_members
from vae_jax.train.trainer import fit


def prepare(call: Call) -> Result:
    """Prepares the folder's JPEGs, resized to the variant; counts workers' start and writing."""
    with tempfile.TemporaryDirectory(dir=call.folder) as out:
        began = time.monotonic()
        jpegs, size = call.folder / faces.IMAGE_FOLDER, int(call.variant)
        store = celeba.prepare(jpegs, Path(out) / "store", size)
        return {"images_per_second": len(store.images) / (time.monotonic() - began)}


def sweep(call: Call) -> Result:
    """Trains the whole sweep or the member that the variant names; counts from process start."""
    config = configs.from_json(TaskFolder(call.folder).task.config)
    members = {member.name: member for member in sweep_members(config)}
    images = len(open_splits(config.data).train) * config.train.epochs
    with tempfile.TemporaryDirectory(dir=call.folder) as workdir:
        if call.variant:
            fit(members[call.variant].config, Path(workdir) / "run")
        else:
            fit_sweep(config, Path(workdir) / "sweep")
            images *= len(members)
        seconds = call.since_start()
    return {"images": images, "seconds": seconds, "peak_memory_mib": peak_memory_mib()}
