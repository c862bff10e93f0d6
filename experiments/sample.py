"""Draw seeded samples from a trained model: sample i depends on (checkpoint, seed, i) alone.

python -m experiments.sample --workdir=runs/faces --seed=33 --count=64 --out=samples.png \
    --latents=z.npy
python -m experiments.sample --workdir=runs/cvae_mnist --label=7
python -m experiments.sample --workdir=runs/cvae_faces --attributes='Smiling=1,Eyeglasses=0'

A conditional model needs --label or --attributes; attributes left out are 0.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from absl import flags

from experiments import app
from experiments.run_flags import STEP, WORKDIR
from vae_jax.data.conditions import asked_condition
from vae_jax.report.pictures import image_grid, save_png, sharpened
from vae_jax.run import decode, open_run, prior_latents, read_latents

_SEED = flags.DEFINE_integer("seed", 0, "Seed of the latent points.", lower_bound=0)
_COUNT = flags.DEFINE_integer("count", 64, "Number of samples.", lower_bound=1)
_COLUMNS = flags.DEFINE_integer("columns", 8, "Images a row.", lower_bound=1)
_OUT = flags.DEFINE_string("out", "samples.png", "Picture to write.")
_SHARPEN = flags.DEFINE_bool("sharpen", False, "Also write a sharpened picture beside it.")
_LATENTS = flags.DEFINE_string("latents", None, "Keep the latent points [N, Z] in this .npy.")
_LATENTS_IN = flags.DEFINE_string("latents_in", None, "Decode the points of this .npy instead.")
_LABEL = flags.DEFINE_string("label", None, "Class to ask a conditional model for.")
_ATTRIBUTES = flags.DEFINE_string("attributes", None, "Asked for: 'Smiling=1,Eyeglasses=0'.")
_ARRAYS = flags.DEFINE_string("arrays", None, "Keep the images [N, H, W, C] float32 in this .npy.")


def main() -> None:
    """Decode the points and write what was asked for."""
    run = open_run(WORKDIR.value, STEP.value, networks=("decoder",))
    z_dim, asked = run.model.z_dim, (_LABEL.value, _ATTRIBUTES.value)
    condition = asked_condition(run.config.data.condition, run.label_names, *asked)
    if _LATENTS_IN.value:
        z, facts = read_latents(_LATENTS_IN.value, z_dim), {"latents": _LATENTS_IN.value}
    else:
        z, facts = prior_latents(_SEED.value, _COUNT.value, z_dim), {"seed": str(_SEED.value)}
    labels = None
    if condition is not None:
        labels = np.tile(condition, (len(z), 1))
        pairs = zip(run.label_names, condition, strict=True)
        facts |= {"condition": ",".join(f"{name}={value:g}" for name, value in pairs)}
    images = decode(run.model, run.variables, z, labels)
    picture, facts = image_grid(images, _COLUMNS.value), run.provenance | facts
    out = Path(_OUT.value)
    written = {out: lambda path: save_png(path, picture, facts)}
    if _SHARPEN.value:
        beside = out.with_stem(out.stem + "-sharpened")
        written[beside] = lambda path: save_png(path, sharpened(picture), facts)
    if _LATENTS.value:
        written[Path(_LATENTS.value)] = lambda path: np.save(path, z)
    if _ARRAYS.value:
        written[Path(_ARRAYS.value)] = lambda path: np.save(path, images)
    for path, write in written.items():
        write(path)
        print(f"wrote {path}")


if __name__ == "__main__":
    app.run(main)
