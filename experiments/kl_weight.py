"""Convert a KL weight of one library to all others, and to a config of this project.

python -m experiments.kl_weight --weight=0.00025 --convention=pytorch_vae \
    --image_shape=64,64,3 --z_dim=128

Without --weight it is the one that the source uses. --convention=sum, channel_mean and mean are
this project's own; an unknown name lists them all.
"""

from __future__ import annotations

from absl import flags

from experiments import app, command_line
from vae_jax.types import UserError

_WEIGHT = flags.DEFINE_float("weight", None, "The KL weight; that of the source by default.", 0.0)
_CONVENTION = flags.DEFINE_string("convention", None, "Whose weight it is.", required=True)
_SHAPE = flags.DEFINE_list("image_shape", "64,64,3", "Height, width and channels.")
_Z_DIM = command_line.count("z_dim", 128, "Latent dimensions.")
_LIKELIHOOD = flags.DEFINE_enum(
    "likelihood",
    None,
    ("bernoulli", "squared_error"),
    "Likelihood, where a convention has both.",
)
_BATCH = command_line.count("batch_size", 144, "Images per step, where it matters.")
_COUNT = command_line.count("train_count", 162_770, "Training images, where it matters.")


def _image_shape() -> tuple[int, int, int]:
    try:
        height, width, channels = (int(size) for size in _SHAPE.value)
    except ValueError:
        height = width = channels = 0
    if min(height, width, channels) < 1:
        raise UserError(
            f"--image_shape is {','.join(_SHAPE.value)!r}, but must be three whole numbers of at "
            "least 1, such as 64,64,3"
        )
    return height, width, channels


def main() -> None:
    """Converts the weight and prints it."""
    shape = _image_shape()

    from vae_jax.kl_conventions import Setting, describe, get_convention

    convention = get_convention(_CONVENTION.value)
    weight = convention.published if _WEIGHT.value is None else _WEIGHT.value
    likelihood = _LIKELIHOOD.value or convention.likelihoods[0]
    if likelihood not in convention.likelihoods:
        raise UserError(
            f"--likelihood={likelihood} is none of {convention.name}'s: "
            f"{', '.join(convention.likelihoods)}"
        )
    setting = Setting(shape, _Z_DIM.value, _BATCH.value, _COUNT.value)
    print(describe(convention, weight, likelihood, setting))


if __name__ == "__main__":
    app.run(main)
