"""How well a denoising, inpainting or recolouring model restores test images.

python -m experiments.restore --workdir=runs/denoise_mnist --classifier=runs/classifier_mnist

Writes WORKDIR/restoration/index.html (clean, corrupted and restored test images, and PSNR and SSIM
beside what needs no training), restoration.png and restoration.json. Test image i is corrupted as
it was in every evaluation of the run.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
from absl import flags

from experiments import app
from experiments.drawing import COLUMNS, evaluated_inputs
from vae_jax.data.corruption import luminance
from vae_jax.data.inputs import make_input_stage
from vae_jax.data.splits import Splits, condition_labels, first_images, open_splits
from vae_jax.evaluate.recognition import predict
from vae_jax.evaluate.restoration import baselines, score
from vae_jax.latent.sampling import decode, encode
from vae_jax.report.page import Section, text_table, write_page
from vae_jax.report.pictures import image_grid, paired_rows, save_png
from vae_jax.report.restoration import restoration_table
from vae_jax.types import ImageSet, UserError
from vae_jax.workdir import Run, open_classifier, open_run

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
_STEP = flags.DEFINE_integer("step", None, "Checkpoint step; the newest by default.")
_COUNT = flags.DEFINE_integer("count", 1000, "Test images; 0 for all.", lower_bound=0)
_SHOWN = flags.DEFINE_integer("shown", 16, "Images in the picture.", lower_bound=1)
_CLASSIFIER = flags.DEFINE_string("classifier", None, "Run folder of a classifier of classes.")
_OUT = flags.DEFINE_string("out", None, "Folder to write; WORKDIR/restoration by default.")
# Images of the training split that the mean image is taken over.
MEAN_OF = 10_000
KEPT = "restored, kept pixels as they were"
LUMINANCE = "restored, luminance as it was"
MIXED = (KEPT, LUMINANCE)


def main() -> None:
    """Restore, compare, write the page."""
    run = open_run(_WORKDIR.value, _STEP.value)
    corruption = make_input_stage(run.config.data).corruption
    if corruption.is_off:
        raise UserError(f"{_WORKDIR.value!r} was trained on clean inputs: nothing is restored")
    splits = open_splits(run.config.data)
    test = first_images(splits.test, min(_COUNT.value, len(splits.test)), "--count")
    results, erased = _results(run, splits, test)
    scores = _scores(results, erased, test)
    out = Path(_OUT.value or Path(_WORKDIR.value) / "restoration")
    facts = run.provenance | {"corruption": str(corruption), "test images": f"{len(test):,}"}
    shown = [name for name in ("clean", "corrupted input", "restored", *MIXED) if name in results]
    rows = [results[name][: _SHOWN.value] for name in shown]
    save_png(out / "restoration.png", image_grid(paired_rows(rows, COLUMNS), COLUMNS), facts)
    known = {
        name: {key: value for key, value in values.items() if not math.isnan(value)}
        for name, values in scores.items()
    }
    (out / "restoration.json").write_text(json.dumps(facts | {"scores": known}, indent=2) + "\n")
    header, table = restoration_table(scores)
    sections = [
        Section("Test images", f"Rows: {'; '.join(shown)}.", "restoration.png"),
        Section("In numbers", "Means over the test images.", header=header, rows=table),
    ]
    write_page(out / "index.html", "Restored test images", facts, sections)
    print(f"{corruption}; {len(test):,} test images\n{text_table(header, table)}")
    print(f"wrote {out / 'index.html'}, restoration.png, restoration.json")


def _results(run: Run, splits: Splits, test: ImageSet) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Images `[N, H, W, C]` by name, and the erased pixels `[N, H, W, 1]`."""
    pixels = test.take(np.arange(len(test)))
    inputs, erased = evaluated_inputs(run.config, pixels)
    labels = condition_labels(run.config.data, test)
    mean, _ = encode(run.model, run.variables, inputs, labels)
    restored = decode(run.model, run.variables, mean, labels)
    results = {"clean": pixels.astype(np.float32) / 255, "restored": restored}
    if erased.any():
        results[KEPT] = np.where(erased, restored, inputs)
    elif make_input_stage(run.config.data).corruption.grey:
        results[LUMINANCE] = np.clip(restored - np.asarray(luminance(restored)) + inputs, 0, 1)
    some = splits.train.take(np.arange(min(MEAN_OF, len(splits.train))))
    mean_image = (some.mean(0, dtype=np.float64) / 255).astype(np.float32)
    return results | baselines(inputs, erased, mean_image), erased


def _scores(
    results: dict[str, np.ndarray], erased: np.ndarray, test: ImageSet
) -> dict[str, dict[str, float]]:
    judge = open_classifier(_CLASSIFIER.value) if _CLASSIFIER.value else None
    scores = {}
    for name, images in results.items():
        scores[name] = score(images, results["clean"], erased)._asdict() | {"recognised": math.nan}
        if judge is not None:
            found = predict(judge, images).argmax(1)
            scores[name]["recognised"] = float(np.mean(found == test.labels))
    return scores


if __name__ == "__main__":
    flags.mark_flag_as_required("workdir")
    app.run(main)
