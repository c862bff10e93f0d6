"""Show the latent space of a trained model: its aggregate posterior, and paths through it.

python -m experiments.latent_space --workdir=runs/faces
python -m experiments.latent_space --workdir=runs/faces --attributes=Smiling,Eyeglasses --strength=2

Writes index.html, its pictures and results.json to WORKDIR/posterior and to WORKDIR/paths. Images
come from the test split; everything follows from (checkpoint, seed).
"""

from __future__ import annotations

from pathlib import Path

from absl import flags

from experiments import app, command_line, publish
from experiments.pair_flags import asked_pair
from experiments.run_flags import STEP, WORKDIR

_DATA = command_line.data()
_SPLIT = flags.DEFINE_string("split", "test", "Split of the images: test or train.")
_COUNT = command_line.count("count", 10_000, "Largest number of images; 0 for all.", low=0)
_SEED = command_line.seed("Seed of draws and choices.")
_PAIRS = command_line.count("pairs", 32, "Pairs of images to interpolate.", high=1000)
_STEPS = command_line.count("steps", 10, "Points of a path.", low=3, high=1000)
_GRID = command_line.count("grid", 12, "Images per side of the manifold chart.", low=2, high=100)
_ATTRIBUTES = flags.DEFINE_list("attributes", [], "Names to show; the clearest by default.")
_JOINT = flags.DEFINE_bool("joint", False, "Separate attributes that occur together.")
_STRENGTH = flags.DEFINE_float("strength", 2.0, "Largest multiple of an attribute's vector.")
_OUT = command_line.out_below("", "with posterior/ and paths/ in it")


def main() -> None:
    """Measures paths and posterior, and writes a page of each."""
    from vae_jax.run import open_run
    from vae_jax.studies import paths, posterior

    run = open_run(WORKDIR.value, STEP.value, data=_DATA.value, pair=asked_pair())
    images = {"split": _SPLIT.value, "count": _COUNT.value, "seed": _SEED.value}
    ways = paths.measure(
        run,
        paths.Options(
            **images,
            pairs=_PAIRS.value,
            steps=_STEPS.value,
            attributes=tuple(_ATTRIBUTES.value),
            joint=_JOINT.value,
            strength=_STRENGTH.value,
        ),
    )
    shape = posterior.measure(run, posterior.Options(**images, grid=_GRID.value))
    if ways.numbers["pairs"] < _PAIRS.value:
        print(f"{ways.numbers['pairs']} pairs instead of {_PAIRS.value}: there are no more images")
    for name, page, numbers in (
        ("posterior", posterior.page(shape), shape.numbers),
        ("paths", paths.page(ways), ways.numbers),
    ):
        folder = Path(_OUT.value, name)
        command_line.tell(publish.publish(page, numbers, folder, tables=False))
    command_line.tell((), "random_latents", workdir=WORKDIR.value)


if __name__ == "__main__":
    app.run(main)
