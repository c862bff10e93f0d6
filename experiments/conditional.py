"""Show what a conditional model makes of a condition, and how often a classifier recognises it.

python -m experiments.conditional --workdir=runs/cvae_mnist --classifier=runs/classifier_mnist

Writes index.html, its pictures and results.json to WORKDIR/conditional. With classes: a row for
each class, the same z in every column. With attributes: a row as told, then for each attribute a
row without and one with it, once from N(0, I) and once from encoded test images.
"""

from __future__ import annotations

from absl import flags

from experiments import app, command_line, publish
from experiments.pair_flags import asked_pair
from experiments.run_flags import STEP, WORKDIR

_DATA = command_line.data()
_SEED = command_line.seed("Seed of the latent points.")
_COLUMNS = command_line.count("columns", 12, "Points in each row of the pictures.", high=1000)
_COUNT = command_line.count("count", 1000, "Points that are judged for each condition.")
_CLASSIFIER = flags.DEFINE_string("classifier", None, "Run folder of the classifier that judges.")
_OUT = command_line.out_below("conditional", "the page")


def main() -> None:
    """Draws samples, lets the classifier judge them, and writes the page."""
    from vae_jax.run import open_run
    from vae_jax.studies import conditioning

    options = conditioning.Options(_SEED.value, _COLUMNS.value, _COUNT.value, _CLASSIFIER.value)
    run = open_run(WORKDIR.value, STEP.value, data=_DATA.value, pair=asked_pair())
    result = conditioning.measure(run, options)
    written = publish.publish(conditioning.page(result), result.numbers, _OUT.value)
    command_line.tell(written, "evaluate", workdir=WORKDIR.value)


if __name__ == "__main__":
    app.run(main)
