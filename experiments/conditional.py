"""What a conditional model makes of a condition: pictures, and asked against recognised.

python -m experiments.conditional --workdir=runs/cvae_mnist --classifier=runs/classifier_mnist

Writes WORKDIR/conditional/index.html, the pictures beside it, and conditional.json. With classes:
a row for each class, the same z in every column. With attributes: a row as told, then for each
attribute a row without and one with it, once from N(0, I) and once from encoded test images.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from experiments import app
from vae_jax.data.splits import condition_labels, first_images, open_splits
from vae_jax.evaluate.conditioning import attribute_rates, class_confusion, confusion_table
from vae_jax.latent.conditions import attribute_grid, class_grid
from vae_jax.latent.sampling import decode, encode, prior_latents
from vae_jax.metrics_log import read_rows
from vae_jax.report.page import Section, text_table, write_page
from vae_jax.report.pictures import image_grid, save_png
from vae_jax.types import ImageSet, UserError
from vae_jax.workdir import Run, open_classifier, open_run

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
_STEP = flags.DEFINE_integer("step", None, "Checkpoint step; the newest by default.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the latent points.", lower_bound=0)
_COLUMNS = flags.DEFINE_integer("columns", 12, "Points in the pictures.", lower_bound=1)
_COUNT = flags.DEFINE_integer("count", 1000, "Points judged for each condition.", lower_bound=1)
_CLASSIFIER = flags.DEFINE_string("classifier", None, "Run folder of the classifier that judges.")
_OUT = flags.DEFINE_string("out", None, "Folder to write; WORKDIR/conditional by default.")


def main() -> None:
    """Draw, judge, write the page."""
    run = open_run(_WORKDIR.value, _STEP.value)
    if not run.label_names:
        raise UserError(f"{_WORKDIR.value!r} was trained without condition")
    out = Path(_OUT.value or Path(_WORKDIR.value) / "conditional")
    facts = run.provenance | {"seed": str(_SEED.value)}
    test = open_splits(run.config.data).test
    sections, pictures = [], _pictures(run, test)
    for name, (text, images) in pictures.items():
        picture = image_grid(images, _COLUMNS.value)
        save_png(out / f"{name}.png", picture, facts | {"rows": text})
        sections.append(Section(name.capitalize(), text, f"{name}.png"))
    if _CLASSIFIER.value:
        section, measured = _judged(run, test)
        sections.append(section)
        (out / "conditional.json").write_text(json.dumps(facts | measured, indent=2) + "\n")
        print(f"{section.text}\n{text_table(section.header, section.rows)}")
    write_page(out / "index.html", "What the condition does", facts, sections)
    print(f"wrote {out / 'index.html'}")


def _pictures(run: Run, test: ImageSet) -> dict[str, tuple[str, np.ndarray]]:
    """What the rows are, and the images row by row, by name."""
    names, columns = run.label_names, _COLUMNS.value
    z = prior_latents(_SEED.value, columns, run.model.z_dim)
    if run.config.data.condition == "class":
        images = decode(run.model, run.variables, *class_grid(z, len(names)))
        return {"classes": (f"Rows: {', '.join(names)}; the same z in every column.", images)}
    changes = ", ".join(f"{name} 0, {name} 1" for name in names)
    shown = first_images(test, min(columns, len(test)), "--columns")
    base, pixels = condition_labels(run.config.data, shown), shown.take(np.arange(len(shown)))
    mean, _ = encode(run.model, run.variables, pixels, base)
    drawn = decode(run.model, run.variables, *attribute_grid(z[: len(shown)], base))
    edited = decode(run.model, run.variables, *attribute_grid(mean, base))
    return {
        "attributes": (f"Rows: z of N(0, I) as test images are told; {changes}.", drawn),
        "edited": (
            f"Rows: test images; their reconstructions; {changes}.",
            np.concatenate([pixels.astype(np.float32) / 255, edited]),
        ),
    }


def _judged(run: Run, test: ImageSet) -> tuple[Section, dict[str, Any]]:
    """Asked against recognised, as a table and as numbers."""
    judge = open_classifier(_CLASSIFIER.value)
    rows = [row for row in read_rows(_CLASSIFIER.value) if row["split"] == "test"]
    own = f"The classifier itself is right on {rows[-1]['accuracy']:.2%} of its test images."
    if run.config.data.condition == "class":
        z = prior_latents(_SEED.value, _COUNT.value, run.model.z_dim)
        matrix = class_confusion(run, judge, z)
        right = float(np.trace(matrix) / matrix.sum())
        text = f"{right:.2%} of {matrix.sum():,} decoded N(0, I) points show the asked class. {own}"
        header, table = confusion_table(matrix, run.label_names)
        numbers = {"right": right, "confusion": matrix.tolist()}
        return Section("Asked against recognised", text, header=header, rows=table), numbers
    some = first_images(test, min(_COUNT.value, len(test)), "--count")
    base = condition_labels(run.config.data, some)
    real = (some.take(np.arange(len(some))), base)
    z = prior_latents(_SEED.value, len(some), run.model.z_dim)
    rates = attribute_rates(run, judge, z, base, real)
    text = (
        f"Shares of images in which the attribute is recognised: {len(some):,} decoded N(0, I) "
        f"points with the other attributes of test images, and test images themselves. {own}"
    )
    header = ["attribute", "asked for", "not asked for", "test with it", "test without it"]
    table = [[name, *(f"{share:.1%}" for share in values)] for name, values in rates.items()]
    numbers = {name: values._asdict() for name, values in rates.items()}
    return Section("Asked against recognised", text, header=header, rows=table), numbers


if __name__ == "__main__":
    flags.mark_flag_as_required("workdir")
    app.run(main)
