"""Encode images with a trained model: posterior mean and log-variance per image.

python -m experiments.encode --workdir=runs/faces --images=DIR_OR_STORE --out=latents.npz

Images are encoded as they are. A model that was told attributes needs a store that holds them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from absl import flags

from experiments import app, command_line
from experiments.pair_flags import asked_pair
from experiments.run_flags import STEP, WORKDIR
from vae_jax.data.formats import folder
from vae_jax.data.splits import condition_labels
from vae_jax.data.store.reading import MANIFEST, Store, open_store, store_beside
from vae_jax.files import npz_bytes, write_file
from vae_jax.types import ImageSet, UserError

if TYPE_CHECKING:
    from vae_jax.run import Run

_IMAGES = flags.DEFINE_string(
    "images", None, "Prepared store, or a folder of JPEG and PNG files.", required=True
)
_OUT = command_line.out_file("latents.npz", "arrays mean, log_var [N, Z] and files [N].")


def main() -> None:
    """Encodes every image of the store or folder."""
    from vae_jax.run import encode, open_run

    run = open_run(WORKDIR.value, STEP.value, networks=("encoder",), pair=asked_pair())
    source = Path(_IMAGES.value)
    height, width, _ = run.model.image_shape
    if (source / MANIFEST).exists():
        images = open_store(source)
    else:
        prepared = store_beside(source, height)
        images = folder.prepare(source, prepared, height)
        print(f"prepared {source} in {prepared}")
    if images.images.shape[1:] != run.model.image_shape:
        raise UserError(
            f"--images={source} holds images of {images.images.shape[1:]}, but this model "
            f"encodes {run.model.image_shape}"
        )
    mean, log_var = encode(run.model, run.variables, images.images, _labels(run, images))
    arrays = {"mean": mean, "log_var": log_var, "files": np.array(images.file_names)}
    print(f"mean and log_var of {mean.shape[0]:,} images, {mean.shape[1]} dimensions")
    written = write_file(_OUT.value, npz_bytes(**arrays))
    command_line.tell([written], "latent_space", workdir=WORKDIR.value)


def _labels(run: Run, images: Store) -> np.ndarray | None:
    """Returns what the model is told about every image of the store."""
    if run.label_names and images.labels is None:
        raise UserError(
            f"--images={_IMAGES.value} has no labels, but this model was told "
            f"{', '.join(run.label_names)}: give a prepared store that holds them"
        )
    rows = np.arange(len(images.images))
    every = ImageSet(images.images, rows, images.labels, images.label_names)
    return condition_labels(dict(run.config.data) | {"name": _IMAGES.value}, every)


if __name__ == "__main__":
    app.run(main)
