"""Decode random latent points of one run, or compare several: autoencoder against VAE.

python -m experiments.random_latents --workdir=runs/faces
python -m experiments.random_latents --workdir=runs/autoencoder --workdir=runs/vae --out=random

The reference test (components uniform in (0, b), nine values of b), the symmetric cube, N(0, I),
spheres, and a Gaussian and a Gaussian mixture fitted to the aggregate posterior of the training
images; 1,000 points per row where there are 2,000 real images to compare with, and three seeds.
Writes index.html, its pictures and results.json to WORKDIR/random_latents or to OUT.
"""

from __future__ import annotations

from pathlib import Path

from absl import flags

from experiments import app, command_line, publish
from experiments.pair_flags import asked_pair

_WORKDIR = flags.DEFINE_multi_string(
    "workdir", None, "Folder of a run; give it again for more.", required=True
)
_DATA = command_line.data()
_OUT = command_line.out_below("random_latents", "index.html; needed for several runs")
_POINTS = command_line.count("points", 1000, "Points per row, at most.", low=8)
_SEEDS = command_line.count("seeds", 3, "Seeds that mean and deviation are taken over.", high=100)
_COLUMNS = command_line.count("columns", 10, "Images of a row that are shown.", high=1000)
_PRIORS = flags.DEFINE_list("prior", [], "Names of priors of experiments.fit_prior: more rows.")
_SPLIT = flags.DEFINE_string(
    "split", "test", "Split of real images to compare with: test or train."
)
_FIT_SPLIT = flags.DEFINE_string("fit_split", "train", "Split that densities are fitted to.")
_FIT_COUNT = command_line.count("fit_count", 10_000, "Largest number of such images.", low=20)
_SEED = command_line.seed("First seed of points and distances.")


def main() -> None:
    """Measures every run, then writes the page."""
    from vae_jax.run import open_run
    from vae_jax.studies import random_latents

    options = random_latents.Options(
        points=_POINTS.value,
        seeds=_SEEDS.value,
        seed=_SEED.value,
        columns=_COLUMNS.value,
        split=_SPLIT.value,
        fit_split=_FIT_SPLIT.value,
        fit_count=_FIT_COUNT.value,
        priors=tuple(_PRIORS.value),
    )
    runs = {
        name: open_run(workdir, data=_DATA.value, pair=asked_pair())
        for name, workdir in _run_names(_WORKDIR.value).items()
    }
    results = {name: random_latents.measure(run, options) for name, run in runs.items()}
    numbers = {name: result.numbers for name, result in results.items()}
    written = publish.publish(random_latents.page(results), numbers, _OUT.value)
    command_line.tell(written, "filters", workdir=_WORKDIR.value[0], layer="conv_0")


def _run_names(workdirs: list[str]) -> dict[str, str]:
    """Returns runs by the last part of their path, numbered where those are equal."""
    names: dict[str, str] = {}
    for workdir in workdirs:
        name = Path(workdir).resolve().name
        names[name if name not in names else f"{name}-{len(names) + 1}"] = workdir
    return names


if __name__ == "__main__":
    app.run(main)
