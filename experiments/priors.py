"""Compare the priors of a trained model on one page: N(0, I) and those fitted to its codes.

python -m experiments.priors --workdir=runs/faces
python -m experiments.priors --workdir=runs/faces --kinds=gaussian,flow \
    --classifier=runs/classifier_faces

Kinds that the run does not keep are fitted first, as experiments.fit_prior does. Writes index.html,
its pictures and results.json to WORKDIR/priors_page.
"""

from __future__ import annotations

from absl import flags

from experiments import app, command_line, publish
from experiments.pair_flags import asked_pair
from experiments.run_flags import STEP, WORKDIR

_KINDS = flags.DEFINE_list(
    "kinds", ["gaussian", "mixture", "two_stage", "flow"], "Names of kept priors, or kinds to fit."
)
_DATA = command_line.data()
_POINTS = command_line.count("points", 1000, "Largest number of images per row.", low=8)
_SEEDS = command_line.count("seeds", 5, "Seeds that mean and deviation are taken over.", high=100)
_COLUMNS = command_line.count("columns", 10, "Images of a row that are shown.", high=1000)
_CLASSIFIER = flags.DEFINE_string("classifier", "", "Run folder of a classifier: a fixed space.")
_SEED = command_line.seed("First seed of points and distances.")
_OUT = command_line.out_below("priors_page", "index.html")


def main() -> None:
    """Fits what is missing, measures, and writes the page."""
    from vae_jax.priors.fitted import normal_prior
    from vae_jax.priors.kept import kept_or_fitted
    from vae_jax.run import open_run
    from vae_jax.studies import priors

    run = open_run(WORKDIR.value, STEP.value, data=_DATA.value, pair=asked_pair())
    options = priors.Options(
        _POINTS.value, _SEEDS.value, _SEED.value, _COLUMNS.value, _CLASSIFIER.value
    )
    fitted = [kept_or_fitted(run, name) for name in _KINDS.value]
    first = normal_prior(run.model.z_dim, len(run.label_names))
    result = priors.measure(run, [first, *fitted], options)
    written = publish.publish(priors.page(result), result.numbers, _OUT.value)
    command_line.tell(written, "sample", workdir=WORKDIR.value, prior=_KINDS.value[0])


if __name__ == "__main__":
    app.run(main)
