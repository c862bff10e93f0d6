"""Times a whole training run, from the start of the process to the last step. `python -m`."""

from __future__ import annotations

import sys
import time

import numpy as np

from vae_jax import config as configs
from vae_jax.throughput.ours import training_calls
from vae_jax.throughput.side import TaskFolder, peak_memory_mib, print_result
from vae_jax.types import ImageSet


def main() -> None:
    """`FOLDER time STARTED COUNT`: the config's epochs of COUNT images, the pool's in turn."""
    folder, _, started, count = sys.argv[1:5]
    tasks = TaskFolder(folder)
    config, images = configs.from_json(tasks.task.config), tasks.images()
    split = ImageSet(images, np.arange(int(count)) % len(images))
    done = sum(training_calls(config, split, config.train.epochs))
    seconds = time.time() - float(started)
    print_result({"images": done, "seconds": seconds, "peak_memory_mib": peak_memory_mib()})


if __name__ == "__main__":
    main()
