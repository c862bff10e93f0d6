"""Move in the latent space of a trained model: one HTML file that holds the decoder.

python -m experiments.explore --workdir=runs/faces --out=explorer.html

The file opens from disk in any browser of today; it loads nothing and needs no server. Directions
come from codes of the test split. Random points are those of N(0, I) and of the Gaussians and
mixtures that experiments.fit_prior kept; without one a Gaussian is fitted to codes of training
images. --data says where the images lie if they have been moved.
"""

from __future__ import annotations

from absl import flags

from experiments import app, command_line, publish
from experiments.pair_flags import asked_pair
from experiments.run_flags import STEP, WORKDIR

_DATA = command_line.data()
_SPLIT = flags.DEFINE_string("split", "test", "Split of the images: test or train.")
_COUNT = command_line.count("count", 10_000, "Largest number of images; 0 for all.", low=0)
_SEED = command_line.seed("Seed of the choice of images on the shelf.")
_OUT = command_line.out_file("explorer.html", "the page.")


def main() -> None:
    """Collects the decoder and the directions, and writes the page."""
    from vae_jax.run import open_plane, run_at
    from vae_jax.studies.explorer.explorer import Options, measure, write_explorer

    pair = asked_pair()
    plane = open_plane(WORKDIR.value, STEP.value, data=_DATA.value, asked=pair)
    run = run_at(plane, pair)
    result = measure(run, Options(_SPLIT.value, _COUNT.value, _SEED.value), plane)
    path = write_explorer(_OUT.value, result, publish.command())
    print(f"wrote {path} ({path.stat().st_size:,} bytes); open it in a browser")
    command_line.tell((), "sample", workdir=WORKDIR.value)


if __name__ == "__main__":
    app.run(main)
