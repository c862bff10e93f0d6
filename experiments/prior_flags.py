"""Flags of the command lines that draw points from a prior that was fitted after training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from absl import flags

if TYPE_CHECKING:
    from vae_jax.priors.fitted import Prior
    from vae_jax.run import Run

PRIOR = flags.DEFINE_string(
    "prior", "normal", "Name of a prior that experiments.fit_prior kept; normal for N(0, I)."
)
TEMPERATURE = flags.DEFINE_float(
    "temperature", 1.0, "Factor of the spread of points about their mean.", 0.0, 100.0
)


def asked_prior(run: Run) -> Prior:
    """Returns the prior of a run that --prior and --temperature ask for."""
    from vae_jax.priors.kept import open_prior

    return open_prior(run, PRIOR.value).at(TEMPERATURE.value)
