"""Likelihood and quality of a trained model, in numbers and pictures.

python -m experiments.evaluate --workdir=runs/faces
python -m experiments.evaluate --workdir=runs/iwae_mnist --samples=5000 --count=1000

Writes WORKDIR/metrics.json and WORKDIR/evaluation.html, which needs no other file. Every figure
follows from (checkpoint, seed, counts). FID needs activations of the Inception network, which is
not part of this package: give your own with --inception=FILE.npz (arrays real and fake, [N, 2048]).
"""

from __future__ import annotations

from pathlib import Path

from absl import flags

from experiments import app
from experiments.run_flags import STEP, WORKDIR
from vae_jax.pages.evaluation import Choices, write_evaluation_page
from vae_jax.run import open_run, open_subject

_SPLIT = flags.DEFINE_string("split", "test", "Images: test or train.")
_COUNT = flags.DEFINE_integer("count", 0, "Images, at most; 0 for all.", lower_bound=0)
_SAMPLES = flags.DEFINE_integer("samples", 50, "Importance samples an image.", lower_bound=1)
_GENERATED = flags.DEFINE_integer("generated", 1000, "Prior samples, at most.", lower_bound=8)
_FEATURES = flags.DEFINE_string("features", "encoder_mean", "Space: encoder_mean or pixels_8x8.")
_INCEPTION = flags.DEFINE_string("inception", None, "Your activations (.npz); adds fid.")
_SEED = flags.DEFINE_integer("seed", 0, "Of samples and choices.", lower_bound=0)
_BY = flags.DEFINE_enum("by", "mean", ["mean", "sample"], "What reconstructions decode.")
_SHOWN = flags.DEFINE_integer("shown", 16, "Images in each picture.", lower_bound=1)
_REFERENCE = flags.DEFINE_bool("reference_choice", False, "Choose them as the reference does.")
_OUT = flags.DEFINE_string("out", None, "Folder to write; WORKDIR by default.")


def main() -> None:
    """Measure, write, and print what was measured."""
    run, out = open_run(WORKDIR.value, STEP.value), Path(_OUT.value or WORKDIR.value)
    choices = Choices(
        seed=_SEED.value,
        importance_samples=_SAMPLES.value,
        generated=_GENERATED.value,
        features=_FEATURES.value,
        inception=_INCEPTION.value,
        decoded=_BY.value,
        shown=_SHOWN.value,
        reference_choice=_REFERENCE.value,
    )
    subject = open_subject(run, _SPLIT.value, _COUNT.value)
    metrics = write_evaluation_page(run, subject, _SPLIT.value, choices, out)
    for name, value in metrics.items():
        if isinstance(value, float | int):
            print(f"{name:28} {value:.6g}")
    for name, value in metrics.get("published_nll", {}).items():
        print(f"published: {name}: {value:.2f} nats; here {-metrics['iw_bound']:.2f}")
    print(f"wrote {out / 'metrics.json'}, {out / 'evaluation.html'}")


if __name__ == "__main__":
    app.run(main)
