"""Measure how well a denoising, inpainting or recolouring model restores test images.

python -m experiments.restore --workdir=runs/denoise_mnist --classifier=runs/classifier_mnist

Writes index.html, restoration.png and results.json to WORKDIR/restoration: clean, corrupted and
restored test images, and PSNR and SSIM beside what needs no training, with the kept pixels as they
were for all methods alike. Test image i is corrupted as it was in every evaluation of the run.
"""

from __future__ import annotations

from absl import flags

from experiments import app, command_line, publish
from experiments.pair_flags import asked_pair
from experiments.run_flags import STEP, WORKDIR

_DATA = command_line.data()
_COUNT = command_line.count("count", 1000, "Test images; 0 for all.", low=0)
_SHOWN = command_line.count("shown", 16, "Images in the picture.", high=1000)
_CLASSIFIER = flags.DEFINE_string("classifier", None, "Run folder of a classifier of classes.")
_OUT = command_line.out_below("restoration", "the page")


def main() -> None:
    """Restores the images, compares methods, and writes the page."""
    from vae_jax.run import open_run
    from vae_jax.studies import restoration

    options = restoration.Options(_COUNT.value, _SHOWN.value, _CLASSIFIER.value)
    run = open_run(WORKDIR.value, STEP.value, data=_DATA.value, pair=asked_pair())
    result = restoration.measure(run, options)
    written = publish.publish(restoration.page(result), result.numbers, _OUT.value)
    command_line.tell(written, "evaluate", workdir=WORKDIR.value)


if __name__ == "__main__":
    app.run(main)
