"""The plane of a model that is told KL weight and latent size: every pair of them on one page.

python -m experiments.plane --workdir=runs/plane_mnist
python -m experiments.plane --workdir=runs/plane_mnist --against=runs/ablation_mnist
python -m experiments.plane --workdir=runs/plane-s0 --workdir=runs/plane-s1 --out=runs/plane

Writes index.html, its pictures, results.json and results.csv to WORKDIR/plane: rate-distortion
curves, heat maps, samples and reconstructions of every pair. With --against, also the gap to the
members of a sweep that experiments.ablation has measured. Runs that differ in their seed alone
become one page.
"""

from __future__ import annotations

from pathlib import Path

from absl import flags

from experiments import app, command_line, publish

_WORKDIR = flags.DEFINE_multi_string(
    "workdir", None, "Run folder of a told model; give it again for other seeds.", required=True
)
_STEP = command_line.step()
_DATA = command_line.data()
_AGAINST = flags.DEFINE_string("against", "", "Folder of a sweep to compare with.")
_WEIGHTS = flags.DEFINE_list("kl_weights", [], "KL weights to show; five of the range by default.")
_SIZES = flags.DEFINE_list("z_dims", [], "Latent sizes to show; those of the model by default.")
_OUT = command_line.out_below("plane", "the page; needed for several runs")


def main() -> None:
    """Measures every pair and writes the page."""
    weights = tuple(sorted(set(command_line.numbers(_WEIGHTS, float))))
    sizes = tuple(sorted(set(command_line.numbers(_SIZES, int))))

    from vae_jax.files import write_file
    from vae_jax.run import open_plane
    from vae_jax.studies import plane, sweep_results

    options = plane.Options(weights, sizes, _AGAINST.value)
    runs = [open_plane(workdir, _STEP.value, data=_DATA.value) for workdir in _WORKDIR.value]
    result = plane.measure(runs, options)
    table = write_file(Path(_OUT.value, "results.csv"), sweep_results.results_csv(result.cells))
    written = publish.publish(plane.page(result), result.numbers, _OUT.value, tables=False)
    command_line.tell([*written, table], "sample", workdir=_WORKDIR.value[0])


if __name__ == "__main__":
    app.run(main)
