"""Say what a KL weight of one library is in every other one, and in a config of this project.

python -m experiments.kl_weight --weight=0.00025 --convention=pytorch_vae \
    --image_shape=64,64,3 --z_dim=128

Without --weight it is the one that the source uses. --convention=sum, channel_mean and mean are
this project's own; an unknown name lists them all.
"""

from __future__ import annotations

from absl import flags

from experiments import app
from vae_jax.kl_conventions import Convention, Setting, describe, get_convention
from vae_jax.types import UserError

_WEIGHT = flags.DEFINE_float("weight", None, "The KL weight; by default that of the source.")
_CONVENTION = flags.DEFINE_string("convention", None, "Whose weight it is.", required=True)
_SHAPE = flags.DEFINE_list("image_shape", "64,64,3", "Height, width and channels.")
_Z_DIM = flags.DEFINE_integer("z_dim", 128, "Latent dimensions.", lower_bound=1)
_LIKELIHOOD = flags.DEFINE_string("likelihood", None, "Of a convention that has several.")
_BATCH = flags.DEFINE_integer("batch_size", 144, "For the rows that need it.", lower_bound=1)
_COUNT = flags.DEFINE_integer(
    "train_count", 162_770, "Training images, for the rows that need it.", lower_bound=1
)


def _setting() -> Setting:
    try:
        height, width, channels = (int(size) for size in _SHAPE.value)
    except ValueError:
        raise UserError(
            f"--image_shape={','.join(_SHAPE.value)} must be three numbers, such as 64,64,3"
        ) from None
    if min(height, width, channels) < 1:
        raise UserError(f"--image_shape={','.join(_SHAPE.value)} must be positive")
    return Setting((height, width, channels), _Z_DIM.value, _BATCH.value, _COUNT.value)


def _likelihood(convention: Convention) -> str:
    likelihood = _LIKELIHOOD.value or convention.likelihoods[0]
    if likelihood not in convention.likelihoods:
        raise UserError(
            f"--likelihood={likelihood} is none of {convention.name}'s: "
            f"{', '.join(convention.likelihoods)}"
        )
    return likelihood


def main() -> None:
    """Convert and print."""
    convention = get_convention(_CONVENTION.value)
    weight = convention.published if _WEIGHT.value is None else _WEIGHT.value
    if weight < 0:
        raise UserError(f"--weight={weight:g} must not be negative")
    print(describe(convention, weight, _likelihood(convention), _setting()))


if __name__ == "__main__":
    app.run(main)
