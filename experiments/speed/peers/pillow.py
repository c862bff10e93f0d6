"""The bare Pillow loop on all cores: the most that preparing images can reach with Pillow.

Every core runs its own process over its share of the files: open, crop, resize, to an array.
Nothing is checked, hashed, ordered or written; the start of the processes is not counted.
"""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path

import numpy as np
from PIL import Image

from experiments.speed.side import Call, Result
from vae_jax.data.workers import available_cores

BOX = (0, 40, 178, 218)


def prepare_share(paths: list[Path], size: int, barrier, results) -> None:
    """Prepares some files; puts start and end time."""
    images = np.zeros((64, size, size, 3), np.uint8)
    barrier.wait()
    began = time.time()
    for i, path in enumerate(paths):
        with Image.open(path) as image:
            small = image.crop(BOX).resize((size, size), Image.Resampling.LANCZOS)
            images[i % len(images)] = np.asarray(small)
    results.put((began, time.time()))


def run(call: Call) -> Result:
    """Resizes the folder's JPEGs to the variant."""
    paths = sorted((call.folder / "img_align_celeba").iterdir())
    cores = available_cores()
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(cores), context.Queue()
    size = int(call.variant)
    workers = [
        context.Process(target=prepare_share, args=(paths[i::cores], size, barrier, results))
        for i in range(cores)
    ]
    for worker in workers:
        worker.start()
    began, ended = zip(*[results.get() for _ in workers], strict=True)
    for worker in workers:
        worker.join()
    return {"images_per_second": len(paths) / (max(ended) - min(began))}
