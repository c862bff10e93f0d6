"""Flags of the command lines that open a told model at one KL weight and one latent size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from absl import flags

if TYPE_CHECKING:
    from vae_jax.models.told import Pair

_ASKED = "at which to open a told model; that of its config by default."
_KL_WEIGHT = flags.DEFINE_float("kl_weight", None, f"KL weight {_ASKED}")
_Z_DIM = flags.DEFINE_integer("z_dim", None, f"Latent size {_ASKED}")


def asked_pair() -> Pair:
    """Returns the pair of --kl_weight and --z_dim; None for what was not asked for."""
    from vae_jax.models.told import Pair

    return Pair(_KL_WEIGHT.value, _Z_DIM.value)
