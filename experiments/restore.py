"""How well a denoising, inpainting or recolouring model restores test images.

python -m experiments.restore --workdir=runs/denoise_mnist --classifier=runs/classifier_mnist

Writes WORKDIR/restoration/index.html (clean, corrupted and restored test images, and PSNR and SSIM
beside what needs no training), restoration.png and restoration.json. Test image i is corrupted as
it was in every evaluation of the run.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from absl import flags

from experiments import app
from experiments.run_flags import STEP, WORKDIR
from vae_jax.evaluate.restoration import KEPT, LUMINANCE, restore, scores
from vae_jax.report.restoration import write_restoration
from vae_jax.run import open_classifier, open_run, open_subject
from vae_jax.types import UserError

_COUNT = flags.DEFINE_integer("count", 1000, "Test images; 0 for all.", lower_bound=0)
_SHOWN = flags.DEFINE_integer("shown", 16, "Images in the picture.", lower_bound=1)
_CLASSIFIER = flags.DEFINE_string("classifier", None, "Run folder of a classifier of classes.")
_OUT = flags.DEFINE_string("out", None, "Folder to write; WORKDIR/restoration by default.")
# Images of the training split that the mean image is taken over.
MEAN_OF = 10_000


def main() -> None:
    """Restore, compare, write the page."""
    run = open_run(WORKDIR.value, STEP.value)
    subject = open_subject(run, "test", _COUNT.value)
    corruption = subject.stage.corruption
    if corruption.is_off:
        raise UserError(f"{WORKDIR.value!r} was trained on clean inputs: nothing is restored")
    some = open_subject(run, "train", MEAN_OF).images
    restored = restore(subject, (some.mean(0, dtype=np.float64) / 255).astype(np.float32))
    judge = open_classifier(_CLASSIFIER.value) if _CLASSIFIER.value else None
    found = scores(restored, judge, subject.split.labels)
    names = ("clean", "corrupted input", "restored", KEPT, LUMINANCE)
    images = restored.images
    shown = {name: images[name][: _SHOWN.value] for name in names if name in images}
    count = f"{len(subject.images):,}"
    facts = run.provenance | {"corruption": str(corruption), "test images": count}
    out = Path(_OUT.value or Path(WORKDIR.value) / "restoration")
    table = write_restoration(out, facts, shown, found)
    print(f"{corruption}; {count} test images\n{table}")
    print(f"wrote {out / 'index.html'}, restoration.png, restoration.json")


if __name__ == "__main__":
    app.run(main)
