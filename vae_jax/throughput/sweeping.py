"""A sweep as one command, and its members as runs of their own. `python -m` starts either."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from vae_jax import config as configs
from vae_jax.data.splits import open_splits
from vae_jax.throughput.side import TaskFolder, peak_memory_mib, print_result
from vae_jax.train.sweep import fit_sweep, sweep_members
from vae_jax.train.trainer import fit

TOGETHER = "population"


def main() -> None:
    """`FOLDER ACTION STARTED VARIANT`: the whole sweep, or the member named by VARIANT."""
    folder, _, started, variant = sys.argv[1:5]
    config = configs.from_json(TaskFolder(folder).task.config)
    members = {member.name: member for member in sweep_members(config)}
    count = len(open_splits(config.data).train) * config.train.epochs
    with tempfile.TemporaryDirectory(dir=folder) as workdir:
        if variant == TOGETHER:
            fit_sweep(config, Path(workdir) / "sweep")
            count *= len(members)
        else:
            fit(members[variant].config, Path(workdir) / "run")
        seconds = time.time() - float(started)
    print_result({"images": count, "seconds": seconds, "peak_memory_mib": peak_memory_mib()})


if __name__ == "__main__":
    main()
