"""What a conditional model makes of a condition: pictures, and asked against recognised.

python -m experiments.conditional --workdir=runs/cvae_mnist --classifier=runs/classifier_mnist

Writes WORKDIR/conditional/index.html, the pictures beside it, and conditional.json. With classes:
a row for each class, the same z in every column. With attributes: a row as told, then for each
attribute a row without and one with it, once from N(0, I) and once from encoded test images.
"""

from __future__ import annotations

import json
from pathlib import Path

from absl import flags

from experiments import app
from experiments.run_flags import STEP, WORKDIR
from vae_jax.data.splits import open_splits
from vae_jax.pages.conditional import asked_against_recognised, condition_pictures
from vae_jax.report.pictures import image_grid, save_png
from vae_jax.report.plain_page import Section, text_table, write_page
from vae_jax.run import open_run
from vae_jax.types import UserError

_SEED = flags.DEFINE_integer("seed", 0, "Seed of the latent points.", lower_bound=0)
_COLUMNS = flags.DEFINE_integer("columns", 12, "Points in the pictures.", lower_bound=1)
_COUNT = flags.DEFINE_integer("count", 1000, "Points judged for each condition.", lower_bound=1)
_CLASSIFIER = flags.DEFINE_string("classifier", None, "Run folder of the classifier that judges.")
_OUT = flags.DEFINE_string("out", None, "Folder to write; WORKDIR/conditional by default.")


def main() -> None:
    """Draw, judge, write the page."""
    run = open_run(WORKDIR.value, STEP.value)
    if not run.label_names:
        raise UserError(f"{WORKDIR.value!r} was trained without condition")
    out = Path(_OUT.value or Path(WORKDIR.value) / "conditional")
    facts = run.provenance | {"seed": str(_SEED.value)}
    test = open_splits(run.config.data).test
    sections = []
    pictures = condition_pictures(run, test, _SEED.value, _COLUMNS.value)
    for name, (text, images) in pictures.items():
        picture = image_grid(images, _COLUMNS.value)
        save_png(out / f"{name}.png", picture, facts | {"rows": text})
        sections.append(Section(name.capitalize(), text, f"{name}.png"))
    if _CLASSIFIER.value:
        section, measured = asked_against_recognised(
            run, test, _CLASSIFIER.value, _SEED.value, _COUNT.value
        )
        sections.append(section)
        (out / "conditional.json").write_text(json.dumps(facts | measured, indent=2) + "\n")
        print(f"{section.text}\n{text_table(section.header, section.rows)}")
    write_page(out / "index.html", "What the condition does", facts, sections)
    print(f"wrote {out / 'index.html'}")


if __name__ == "__main__":
    app.run(main)
