"""Decode random latent points of one run, or compare several: autoencoder against VAE.

python -m experiments.random_latents --workdir=runs/ae --workdir=runs/faces --out=random_latents

The reference test (components uniform in (0, b), nine values of b, 100 points each), the symmetric
cube, N(0, I), spheres, and a Gaussian and a Gaussian mixture fitted to the aggregate posterior of
the training images. Writes OUT/index.html, a picture for each run, and OUT/random_latents.json.
"""

from __future__ import annotations

import json
from pathlib import Path

from absl import flags

from experiments import app
from vae_jax.pages.random_latents import measure_rows
from vae_jax.report.evaluation import embedded
from vae_jax.report.pictures import save_png
from vae_jax.report.plain_page import Section, text_table, write_page
from vae_jax.report.random_latents import labelled_sheet, radius_chart, rows_table
from vae_jax.run import open_run, open_subject

_WORKDIR = flags.DEFINE_multi_string("workdir", None, "Folder of a run; give it again for more.")
_OUT = flags.DEFINE_string("out", "random_latents", "Folder to write.")
_POINTS = flags.DEFINE_integer("points", 100, "Points a row.", lower_bound=8)
_COLUMNS = flags.DEFINE_integer("columns", 10, "Images of a row that are shown.", lower_bound=1)
_SPLIT = flags.DEFINE_string("split", "test", "Real images to compare with: test or train.")
_FIT_SPLIT = flags.DEFINE_string("fit_split", "train", "Images that densities are fitted to.")
_FIT_COUNT = flags.DEFINE_integer("fit_count", 10_000, "How many of them.", lower_bound=20)
_SEED = flags.DEFINE_integer("seed", 0, "Of points and distances.", lower_bound=0)


def main() -> None:
    """Measure every row of every run, then write the page."""
    names = _run_names(_WORKDIR.value)
    figures, floors, sections, facts, out = {}, {}, [], {}, Path(_OUT.value)
    out.mkdir(parents=True, exist_ok=True)
    for name, workdir in names.items():
        run = open_run(workdir)
        subject = open_subject(run, _SPLIT.value)
        fit_to = open_subject(run, _FIT_SPLIT.value, _FIT_COUNT.value)
        weight = run.config.loss.kl_weight
        found = measure_rows(name, subject, fit_to, weight, _POINTS.value, _SEED.value)
        figures[name], floors[name] = found.figures, found.floor
        sheet = labelled_sheet(found.shown, _COLUMNS.value)
        save_png(out / f"{name}.png", sheet, run.provenance | {"seed": str(_SEED.value)})
        sections.append(Section(name, found.text, picture=embedded(sheet)))
        facts |= {f"{name}, {key}": value for key, value in run.provenance.items()}
    chart = radius_chart(figures, floors)
    save_png(out / "radius.png", chart, facts)
    header, table = rows_table(figures, floors)
    summary = [
        Section("Quality against radius", picture=embedded(chart)),
        Section("In numbers", header=header, rows=table),
    ]
    write_page(out / "index.html", "Decoded random points", facts, summary + sections)
    result = {"facts": facts, "points": _POINTS.value, "floors": floors, "rows": figures}
    (out / "random_latents.json").write_text(json.dumps(result, indent=2) + "\n")
    print(f"{text_table(header, table)}\nwrote {out / 'index.html'}, random_latents.json, PNGs")


def _run_names(workdirs: list[str]) -> dict[str, str]:
    """Runs by the last part of their path, numbered where those are equal."""
    names: dict[str, str] = {}
    for workdir in workdirs:
        name = Path(workdir).resolve().name
        names[name if name not in names else f"{name}-{len(names) + 1}"] = workdir
    return names


if __name__ == "__main__":
    flags.mark_flag_as_required("workdir")
    app.run(main)
