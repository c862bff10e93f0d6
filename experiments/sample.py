"""Draw seeded samples from a trained model: sample i depends on (checkpoint, prior, seed, i) alone.

python -m experiments.sample --workdir=runs/faces --seed=33 --count=64 --out=samples.png \
    --latents=z.npy
python -m experiments.sample --workdir=runs/faces --prior=gaussian --temperature=0.8
python -m experiments.sample --workdir=runs/cvae_mnist --label=7
python -m experiments.sample --workdir=runs/cvae_faces --attributes='Smiling=1,Eyeglasses=0'

A conditional model needs --label or --attributes; attributes left out are 0. Points are those of
N(0, I), or of a prior that experiments.fit_prior fitted to the codes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from absl import flags

from experiments import app, command_line
from experiments.pair_flags import asked_pair
from experiments.prior_flags import asked_prior
from experiments.run_flags import STEP, WORKDIR
from vae_jax.data.conditions import asked_condition
from vae_jax.files import npy_bytes, write_file
from vae_jax.report.pictures import image_grid, save_png, sharpened
from vae_jax.types import UserError

_SEED = command_line.seed("Seed of the latent points.")
_COUNT = command_line.count("count", 64, "Number of samples.")
_COLUMNS = command_line.count("columns", 8, "Images per row.", high=1000)
_OUT = command_line.out_file("samples.png", "the picture.")
_SHARPEN = flags.DEFINE_bool("sharpen", False, "Also write a sharpened picture beside it.")
_LATENTS = command_line.out_file(None, "the latent points [N, Z] as .npy.", "latents")
_LATENTS_IN = flags.DEFINE_string(
    "latents_in", None, "Decode the points of this .npy, or of the explorer's .json, instead."
)
_LABEL = flags.DEFINE_string("label", None, "Class of the samples, for a conditional model.")
_ATTRIBUTES = flags.DEFINE_string("attributes", None, "Their attributes: 'Smiling=1,Eyeglasses=0'.")
_ARRAYS = command_line.out_file(None, "the images [N, H, W, C] float32 as .npy.", "arrays")


def main() -> None:
    """Decodes the points and writes what was asked for."""
    drawn = ("count", "seed", "prior", "temperature")
    if _LATENTS_IN.value and any(flags.FLAGS[name].present for name in drawn):
        raise UserError(
            "--latents_in gives the points: leave out --count and --seed, --prior and --temperature"
        )

    from vae_jax.data.latents import read_latents
    from vae_jax.priors.fitted import draw
    from vae_jax.run import decode, open_run

    run = open_run(WORKDIR.value, STEP.value, networks=("decoder",), pair=asked_pair())
    z_dim, asked = run.model.z_dim, (_LABEL.value, _ATTRIBUTES.value)
    condition = asked_condition(run.config.data.condition, run.label_names, *asked)
    z, count, labels, facts = None, _COUNT.value, None, {}
    if _LATENTS_IN.value:
        z, facts = read_latents(_LATENTS_IN.value, z_dim), {"latents": _LATENTS_IN.value}
        count = len(z)
    if condition is not None:
        labels = np.tile(condition, (count, 1))
        pairs = zip(run.label_names, condition, strict=True)
        facts |= {"condition": ",".join(f"{name}={value:g}" for name, value in pairs)}
    if z is None:
        prior = asked_prior(run)
        z = draw(prior, _SEED.value, count, labels)
        facts |= {"seed": str(_SEED.value)} | prior.provenance
    images = decode(run.model, run.variables, z, labels)
    picture, facts = image_grid(images, _COLUMNS.value), run.provenance | facts
    out = Path(_OUT.value)
    written = [save_png(out, picture, facts)]
    if _SHARPEN.value:
        beside = out.with_stem(out.stem + "-sharpened")
        written.append(save_png(beside, sharpened(picture), facts))
    for flag, array in ((_LATENTS, z), (_ARRAYS, images)):
        if flag.value:
            written.append(write_file(flag.value, npy_bytes(array)))
    command_line.tell(written, "latent_space", workdir=WORKDIR.value)


if __name__ == "__main__":
    app.run(main)
