"""What a run carries from step to step, and how it starts."""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax

from vae_jax.models.vae import VAE
from vae_jax.streams import stream_key


class Hyper(NamedTuple):
    """The traced hyperparameters: one compiled program serves all their values.

    Attributes:
        kl_weight: scalar, in the convention of the objective's reduction.
        learning_rate: scalar.
        z_mask: `[Z]`, 0 for latent dimensions that a padded population member lacks; None
            outside of populations.
    """

    kl_weight: jax.Array | float
    learning_rate: jax.Array | float
    z_mask: jax.Array | None = None


@flax.struct.dataclass
class TrainState:
    """The state of a run, a tree of arrays.

    Attributes:
        step: int32 scalar, batches seen.
        params: `{'encoder': ..., 'decoder': ...}`.
        batch_stats: the running statistics, with the same two subtrees (empty without norm).
        opt_state: of the optimiser.
        skipped: int32 scalar, non-finite steps in a row up to now.
        skipped_total: int32 scalar, non-finite steps of the whole run.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    skipped: jax.Array
    skipped_total: jax.Array


def init_variables(model: VAE, key: jax.Array, label_dim: int = 0) -> dict[str, Any]:
    """Parameters and statistics of `model`, from the run key.

    Args:
        model: the module.
        key: the run key; initialisation uses the stream `init`.
        label_dim: L, width of the condition; 0 for none.

    Returns:
        `{'params': ..., 'batch_stats': ...}`, both with subtrees `encoder` and `decoder`.
    """
    images = jnp.zeros((1, *model.image_shape))
    labels = jnp.zeros((1, label_dim)) if label_dim else None
    init_key = stream_key(key, "init")
    variables = jax.jit(lambda k: model.init(k, images, False, False, labels))(init_key)
    empty = {"encoder": {}, "decoder": {}}
    return {"params": variables["params"], "batch_stats": empty | variables.get("batch_stats", {})}


def init_state(
    model: VAE, tx: optax.GradientTransformation, key: jax.Array, label_dim: int = 0
) -> TrainState:
    """The state at step 0; see `init_variables` for the arguments."""
    variables = init_variables(model, key, label_dim)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        opt_state=tx.init(variables["params"]),
        skipped=jnp.zeros((), jnp.int32),
        skipped_total=jnp.zeros((), jnp.int32),
    )


def make_optimizer(
    b1: float, b2: float, epsilon: float, clip_norm: float
) -> optax.GradientTransformation:
    """Adam (Kingma & Ba 2015) without its learning rate, which the step applies.

    Args:
        b1: decay of the first moment.
        b2: decay of the second moment.
        epsilon: added to the root of the second moment.
        clip_norm: largest global norm of the gradient; 0 for no clipping.

    Returns:
        The transformation from gradients to updates of unit learning rate.
    """
    adam = optax.scale_by_adam(b1=b1, b2=b2, eps=epsilon)
    return optax.chain(optax.clip_by_global_norm(clip_norm), adam) if clip_norm else adam
