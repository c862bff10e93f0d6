"""The state that a run carries from step to step, and how it starts."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer

from vae_jax.kl_controller import ControlState, start_control, weight_factor
from vae_jax.memory import require_memory
from vae_jax.models.vae import VAE
from vae_jax.streams import stream_key


class Hyper(NamedTuple):
    """The traced hyperparameters: one compiled program serves all their values.

    Attributes:
        kl_weight: Scalar, in the convention of the objective's reduction.
        learning_rate: Scalar.
        z_mask: `[Z]`, 0 for latent dimensions that a padded member of a sweep lacks; None
            for a run alone.
    """

    kl_weight: jax.Array | float
    learning_rate: jax.Array | float
    z_mask: jax.Array | None = None

    def under(self, control: ControlState | None) -> Hyper:
        """Returns these with the KL weight that a controller of the rate has arrived at."""
        if control is None:
            return self
        return self._replace(kl_weight=self.kl_weight * weight_factor(control))


@flax.struct.dataclass
class TrainState:
    """The state of a run, a tree of arrays.

    Attributes:
        step: int32 scalar, the number of steps taken.
        params: A subtree for each network: `{'encoder': ..., 'decoder': ...}` of a VAE.
        batch_stats: The running statistics, with the same subtrees (empty without norm).
        opt_state: The state of the optimiser.
        skipped: int32 scalar, the number of non-finite steps in a row up to now.
        skipped_total: int32 scalar, the number of non-finite steps of the whole run.
        control: The state of the controller that holds a target rate; None without a target.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    skipped: jax.Array
    skipped_total: jax.Array
    control: ControlState | None = None


def init_variables(model: VAE, key: jax.Array, label_dim: int = 0) -> dict[str, Any]:
    """Makes the parameters and statistics of `model` from the run key.

    Args:
        model: The module.
        key: The run key; initialisation uses the stream `init`.
        label_dim: L, the width of the condition; 0 for none.

    Returns:
        `{'params': ..., 'batch_stats': ...}`, both with subtrees `encoder` and `decoder`.

    Raises:
        UserError: The machine cannot hold a training of them.
    """
    init, program = _initialisers(model, label_dim)
    key = stream_key(key, "init")
    shapes = jax.tree.leaves(init.eval_shape(key))
    needed = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in shapes)
    # A gradient and the optimiser's two moments for each parameter.
    what = f"training {needed // 4:,} parameters"
    require_memory(4 * needed, what, "lower config.model.z_dim or the filters")
    # As a part of a larger program (a trace of its shapes) it has no options of its own.
    variables = (init if isinstance(key, Tracer) else program)(key)
    empty = {"encoder": {}, "decoder": {}}
    return {"params": variables["params"], "batch_stats": empty | variables.get("batch_stats", {})}


@lru_cache(maxsize=32)
def _initialisers(model: VAE, label_dim: int) -> tuple[Any, Any]:
    """Returns what makes the variables of `model` from a key, traced once, and as a program."""
    images = np.zeros((1, *model.image_shape), np.float32)
    labels = np.zeros((1, label_dim), np.float32) if label_dim else None
    init = jax.jit(lambda key: model.init(key, images, False, False, labels))
    # The program runs once. Without optimisation it compiles in a quarter of the time, and uniform
    # kernels keep every bit. The logarithms of normal kernels would not.
    quick = model.style.kernel_init.endswith("uniform")
    options = {"xla_backend_optimization_level": 0} if quick else None
    return init, jax.jit(init, compiler_options=options)


def init_state(
    model: VAE,
    tx: optax.GradientTransformation,
    key: jax.Array,
    label_dim: int = 0,
    controlled: bool = False,
) -> TrainState:
    """Makes the state at step 0, with a controller if `controlled`; see `init_variables`."""
    variables = init_variables(model, key, label_dim)
    state = start_state(variables["params"], variables["batch_stats"], tx)
    return replace(state, control=start_control()) if controlled else state


@partial(jax.jit, static_argnames="tx")  # one program in place of one for every array of zeros
def start_state(params: Any, batch_stats: Any, tx: optax.GradientTransformation) -> TrainState:
    """Makes the state at step 0 of networks with these parameters and statistics."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=batch_stats,
        opt_state=tx.init(params),
        skipped=jnp.zeros((), jnp.int32),
        skipped_total=jnp.zeros((), jnp.int32),
    )


@lru_cache(maxsize=32)  # One object for equal numbers, so that programs are shared.
def make_optimizer(
    b1: float, b2: float, epsilon: float, clip_norm: float
) -> optax.GradientTransformation:
    """Makes Adam (Kingma & Ba 2015) without its learning rate, which the step applies.

    Args:
        b1: The decay of the first moment.
        b2: The decay of the second moment.
        epsilon: What is added to the root of the second moment.
        clip_norm: The largest global norm of the gradient; 0 for no clipping.

    Returns:
        The transformation from gradients to updates of unit learning rate.
    """
    adam = optax.scale_by_adam(b1=b1, b2=b2, eps=epsilon)
    return optax.chain(optax.clip_by_global_norm(clip_norm), adam) if clip_norm else adam
