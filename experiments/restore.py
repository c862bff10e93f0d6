"""How well a denoising, inpainting or recolouring model restores test images.

python -m experiments.restore --workdir=runs/denoise_mnist --classifier=runs/classifier_mnist

Writes index.html, restoration.png and results.json to WORKDIR/restoration: clean, corrupted and
restored test images, and PSNR and SSIM beside what needs no training, with the kept pixels as they
were for all methods alike. Test image i is corrupted as it was in every evaluation of the run.
"""

from __future__ import annotations

from dataclasses import replace

from absl import flags

from experiments import app, as_typed, command_line
from experiments.pair_flags import asked_pair
from experiments.run_flags import STEP, WORKDIR

_DATA = command_line.data()
_COUNT = command_line.count("count", 1000, "Test images; 0 for all.", low=0)
_SHOWN = command_line.count("shown", 16, "Images in the picture.", high=1000)
_CLASSIFIER = flags.DEFINE_string("classifier", None, "Run folder of a classifier of classes.")
_OUT = command_line.out_below("restoration", "the page")


def main() -> None:
    """Restores, compares, writes the page."""
    from vae_jax.report.page import text_table, write_study
    from vae_jax.run import open_run
    from vae_jax.studies import restoration

    options = restoration.Options(_COUNT.value, _SHOWN.value, _CLASSIFIER.value)
    run = open_run(WORKDIR.value, STEP.value, data=_DATA.value, pair=asked_pair())
    result = restoration.measure(run, options)
    page = replace(restoration.page(result), command=as_typed.command())
    print(page.lead)
    for section in page.sections:
        for table in section.tables:
            print(f"\n{section.heading}\n{text_table(table)}")
    written = write_study(_OUT.value, page, result.numbers)
    command_line.tell(written[:1], "evaluate", workdir=WORKDIR.value)


if __name__ == "__main__":
    app.run(main)
