"""Fit a prior to the codes of a trained model, to draw better samples than those of N(0, I).

python -m experiments.fit_prior --workdir=runs/faces --kind=gaussian
python -m experiments.fit_prior --workdir=runs/faces --kind=flow --name=flow-seed1 --seed=1
python -m experiments.sample --workdir=runs/faces --prior=flow-seed1

Kinds: gaussian; mixture, of 1 to 10 Gaussians; two_stage, a small VAE of the codes; flow, a flow
from N(0, I). They are fitted to draws of the posteriors of training images; components and steps
are chosen by validation images, or by a tenth of the codes where there are none. The prior is kept
in WORKDIR/priors/NAME.npz and belongs to this checkpoint. For a conditional model the mean of the
codes depends on the label, and the shape around it does not; a told model is fitted at the KL
weight and latent size that are asked for.
"""

from __future__ import annotations

from absl import flags

from experiments import app, command_line
from experiments.pair_flags import asked_pair
from experiments.run_flags import STEP, WORKDIR

_KINDS = ["gaussian", "mixture", "two_stage", "flow"]
_KIND = flags.DEFINE_enum("kind", None, _KINDS, "What to fit.", required=True)
_NAME = flags.DEFINE_string("name", None, "Name of the prior, for --prior; its kind by default.")
_DATA = command_line.data()
_SEED = command_line.seed("Seed of the fit.")
_COUNT = command_line.count("count", 10_000, "Largest number of training images.", low=4)


def main() -> None:
    """Fits the prior and keeps it."""
    from vae_jax.priors.fitted import fit_to_run
    from vae_jax.priors.kept import check_name, keep_prior
    from vae_jax.run import open_run

    name = _NAME.value or _KIND.value
    check_name(name)
    run = open_run(WORKDIR.value, STEP.value, data=_DATA.value, pair=asked_pair())
    prior = fit_to_run(run, _KIND.value, _SEED.value, _COUNT.value, name)
    for fact, value in prior.facts.items():
        print(f"{fact.replace('_', ' ')}: {value}")
    written = keep_prior(run, prior)
    command_line.tell([written], "sample", workdir=WORKDIR.value, prior=name)


if __name__ == "__main__":
    app.run(main)
