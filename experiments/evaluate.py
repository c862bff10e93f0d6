"""Evaluate a trained model: likelihood and quality of its images, in numbers and pictures.

python -m experiments.evaluate --workdir=runs/faces
python -m experiments.evaluate --workdir=runs/iwae_mnist --samples=5000 --count=1000
python -m experiments.evaluate --workdir=runs/faces --prior=gaussian
python -m experiments.evaluate --workdir=runs/faces --classifier=runs/classifier_faces

Writes index.html, its pictures and results.json to WORKDIR/evaluation. Every figure follows from
(checkpoint, seed, counts). FID needs activations of the Inception network, which is not part of
this package: give your own with --inception=FILE.npz (arrays real and fake, [N, 2048]).
"""

from __future__ import annotations

from absl import flags

from experiments import app, command_line, publish
from experiments.pair_flags import asked_pair
from experiments.prior_flags import asked_prior
from experiments.run_flags import STEP, WORKDIR

_DATA = command_line.data()
_SPLIT = flags.DEFINE_string("split", "test", "Split of the images: test or train.")
_COUNT = command_line.count("count", 0, "Largest number of images; 0 for all.", low=0)
_SAMPLES = command_line.count("samples", 50, "Importance samples per image.", high=100_000)
_GENERATED = command_line.count("generated", 1000, "Largest number of prior samples.", low=8)
_FEATURES = flags.DEFINE_list(
    "features",
    ["encoder_mean", "pixels_8x8"],
    "Spaces in which samples are compared: encoder_mean, pixels_8x8, pixels, classifier.",
)
_CLASSIFIER = flags.DEFINE_string("classifier", "", "Run folder of a classifier: a fixed space.")
_INCEPTION = flags.DEFINE_string("inception", "", "Your Inception activations (.npz); adds fid.")
_SEED = command_line.seed("Seed of samples and choices.")
_BY = flags.DEFINE_enum(
    "by",
    "mean",
    ["mean", "sample"],
    "What of a posterior is decoded.",
)
_SHOWN = command_line.count("shown", 16, "Images in each picture.", high=1000)
_REFERENCE = flags.DEFINE_bool("reference_choice", False, "Choose them as the reference does.")
_OUT = command_line.out_below("evaluation", "index.html")


def main() -> None:
    """Measures, writes the page, and prints its tables."""
    from vae_jax.run import open_run
    from vae_jax.studies import evaluation

    options = evaluation.Options(
        split=_SPLIT.value,
        count=_COUNT.value,
        seed=_SEED.value,
        importance_samples=_SAMPLES.value,
        generated=_GENERATED.value,
        features=tuple(_FEATURES.value),
        classifier=_CLASSIFIER.value,
        inception=_INCEPTION.value,
        decoded=_BY.value,
        shown=_SHOWN.value,
        reference_choice=_REFERENCE.value,
    )
    run = open_run(WORKDIR.value, STEP.value, data=_DATA.value, pair=asked_pair())
    result = evaluation.measure(run, options, asked_prior(run))
    written = publish.publish(evaluation.page(result), result.numbers, _OUT.value)
    command_line.tell(written, "latent_space", workdir=WORKDIR.value)


if __name__ == "__main__":
    app.run(main)
