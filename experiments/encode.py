"""Encode images with a trained model: posterior mean and log-variance per image.

python -m experiments.encode --workdir=runs/faces --images=DIR_OR_STORE --out=latents.npz
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from absl import flags

from experiments import app
from vae_jax.data import celeba, store
from vae_jax.latent.sampling import encode
from vae_jax.types import UserError
from vae_jax.workdir import open_run

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
_STEP = flags.DEFINE_integer("step", None, "Checkpoint step; the newest by default.")
_IMAGES = flags.DEFINE_string("images", None, "Prepared store, or a folder of JPEG and PNG files.")
_OUT = flags.DEFINE_string("out", "latents.npz", "Arrays mean, log_var [N, Z] and files [N].")


def main() -> None:
    """Encode every image of the store or folder."""
    run = open_run(_WORKDIR.value, _STEP.value, networks=("encoder",))
    source = Path(_IMAGES.value)
    height, width, _ = run.model.image_shape
    if (source / store.MANIFEST).exists():
        images = store.open_store(source)
    else:
        prepared = source.with_name(f"{source.name}-{height}")
        images = celeba.prepare_folder(source, prepared, height)
        print(f"prepared {source} in {prepared}")
    if images.images.shape[1:] != run.model.image_shape:
        raise UserError(
            f"--images={source} holds images of {images.images.shape[1:]}, but this model "
            f"encodes {run.model.image_shape}"
        )
    mean, log_var = encode(run.model, run.variables, images.images)
    np.savez(_OUT.value, mean=mean, log_var=log_var, files=np.array(images.file_names))
    print(f"wrote {_OUT.value}: mean and log_var {mean.shape}")


if __name__ == "__main__":
    flags.mark_flags_as_required(["workdir", "images"])
    app.run(main)
