"""One step: explicit value-and-grad of reconstruction plus KL, as a pure function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from vae_jax import losses
from vae_jax.data.inputs import CLEAN, InputStage, training_pair
from vae_jax.kl_controller import next_control
from vae_jax.losses import Objective, weighted_mean
from vae_jax.models.told import Pair
from vae_jax.models.vae import VAE
from vae_jax.schedules import Schedule
from vae_jax.streams import step_key, stream_key
from vae_jax.train.accumulation import accumulated
from vae_jax.train.state import Hyper, TrainState
from vae_jax.types import Batch, VAEOutput

Metrics = dict[str, jax.Array]
# (carry, batch, run key, hyper) -> (carry, metrics): training, validation and statistics alike.
Step = Callable[[Any, Batch, jax.Array, Hyper], tuple[Any, Metrics]]
LossFn = Callable[..., tuple[jax.Array, tuple[Metrics, Any]]]


class Examples(NamedTuple):
    """A batch after everything random but dropout was drawn; images lie along the first axis.

    Attributes:
        inputs: `[B, H, W, C]` in [0, 1].
        targets: `[B, H, W, C]` in [0, 1].
        weights: `[B]`, 1 for images and 0 for padding.
        labels: `[B, L]`, or None.
        noise: `[B, Z]` of the posterior samples, or None for the model to draw it.
        pair: `[B]` KL weights and latent sizes that the model is told; None if it is told nothing.
    """

    inputs: jax.Array
    targets: jax.Array
    weights: jax.Array
    labels: jax.Array | None
    noise: jax.Array | None = None
    pair: Pair | None = None


# (batch, key of the step, hyper) -> examples
Draw = Callable[[Batch, jax.Array, Hyper], Examples]


def objective_terms(
    objective: Objective,
    output: VAEOutput,
    targets: jax.Array,
    weights: jax.Array,
    kl_weight: jax.Array | float,
    z_mask: jax.Array | None = None,
) -> Metrics:
    """Returns the loss and its parts, as means over the images of the batch.

    Args:
        objective: The likelihood, the reduction and the free bits.
        output: What the model returned.
        targets: `[B, H, W, C]` in [0, 1].
        weights: `[B]`, 1 for images and 0 for padding.
        kl_weight: The weight w in the convention of the reduction, a scalar or `[B]`.
        z_mask: `[Z]` or `[B, Z]`, 0 for dimensions that do not exist, or None.

    Returns:
        Scalars: `loss == recon + kl_weighted` in units of the loss; `recon_nats` (R), `kl` (K)
        and, for the Bernoulli likelihood, `entropy_floor`, in nats per image. Where beta differs
        from image to image, also the means `kl_weight` and `beta`.
    """
    z_dim = output.mean.shape[-1] if z_mask is None else jnp.sum(z_mask, axis=-1)
    recon_scale, kl_scale = losses.term_scales(
        objective.reduction, kl_weight, targets.shape[1:], z_dim
    )
    nll = losses.reconstruction_nll(objective, output.logits, targets, weights)
    kl_per_dimension = losses.gaussian_kl_per_dimension(output.mean, output.log_var)
    if z_mask is not None:
        z_mask = z_mask if z_mask.ndim == 2 else z_mask[None, :]
        kl_per_dimension = kl_per_dimension * z_mask
    kl = jnp.sum(kl_per_dimension, axis=-1)
    penalty = kl
    if objective.free_bits:
        penalty = losses.free_bits_kl(kl_per_dimension, objective.free_bits, weights, z_mask)
    recon = recon_scale * weighted_mean(nll, weights)
    differing = {}
    if isinstance(kl_scale, jax.Array) and kl_scale.ndim == 1:
        kl_weighted = weighted_mean(kl_scale * penalty, weights)
        differing["beta"] = weighted_mean(kl_scale, weights) / recon_scale
        each = jnp.broadcast_to(kl_weight, weights.shape)
        differing["kl_weight"] = weighted_mean(each, weights)
    else:
        kl_weighted = kl_scale * weighted_mean(penalty, weights)
    terms = {
        "loss": recon + kl_weighted,
        "recon": recon,
        "kl_weighted": kl_weighted,
        "recon_nats": weighted_mean(nll, weights),
        "kl": weighted_mean(kl, weights),
    }
    if objective.likelihood == "bernoulli":
        terms["entropy_floor"] = weighted_mean(losses.bernoulli_entropy(targets), weights)
    return terms | differing


def make_update_step(
    draw: Draw,
    loss_fn: LossFn,
    tx: optax.GradientTransformation,
    learning_rate_factor: Schedule,
    accumulate: int = 1,
    norm_momentum: float = 0.0,
) -> Step:
    """Builds the pure step that follows the gradient of a loss, whatever is trained.

    A step whose loss or gradient is not finite leaves parameters, moments and statistics as they
    were, bit for bit, and is counted.

    Args:
        draw: Makes the examples of a batch.
        loss_fn: `(params, batch_stats, examples, key, step, hyper) -> (loss, (metrics,
            batch_stats))` with the key of this step.
        tx: The optimiser without its learning rate.
        learning_rate_factor: step -> factor of the learning rate.
        accumulate: The number of micro-batches that the gradient is computed in, see `accumulated`.
        norm_momentum: The momentum of the running statistics, which `accumulated` needs to know.

    Returns:
        `train_step(state, batch, run_key, hyper) -> (state, metrics)`, where metrics are those of
        the loss plus `images`, their count, `grad_norm`, `finite` and `learning_rate`.
    """

    def train_step(state: TrainState, batch: Batch, run_key: jax.Array, hyper: Hyper):
        key = step_key(run_key, state.step)
        gradient = jax.value_and_grad(loss_fn, has_aux=True)
        if accumulate > 1:
            gradient = accumulated(gradient, accumulate, norm_momentum)
        (loss, (metrics, batch_stats)), grads = gradient(
            state.params, state.batch_stats, draw(batch, key, hyper), key, state.step, hyper
        )
        grad_norm = optax.tree.norm(grads)
        finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
        directions, opt_state = tx.update(grads, state.opt_state, state.params)
        learning_rate = hyper.learning_rate * learning_rate_factor(state.step)
        updates = jax.tree.map(lambda d: -learning_rate * d, directions)
        moved = (optax.apply_updates(state.params, updates), batch_stats, opt_state)
        stayed = (state.params, state.batch_stats, state.opt_state)
        kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), moved, stayed)
        skip = 1 - finite.astype(jnp.int32)
        metrics |= {"grad_norm": grad_norm, "images": jnp.sum(batch.weights), "finite": finite}
        metrics["learning_rate"] = jnp.asarray(learning_rate, jnp.float32)
        params, batch_stats, opt_state = kept
        skipped, skipped_total = (state.skipped + 1) * skip, state.skipped_total + skip
        state = TrainState(
            state.step + 1, params, batch_stats, opt_state, skipped, skipped_total, state.control
        )
        return state, metrics

    return train_step


def controlled(step: Step, target_rate: float) -> Step:
    """Returns the step of a run whose KL weight follows its rate, see `kl_controller`.

    Args:
        step: A training step of a VAE; its state has a `control`.
        target_rate: K to hold, nats per image.
    """

    def train_step(state: TrainState, batch: Batch, run_key: jax.Array, hyper: Hyper):
        before = state.control
        assert before is not None
        moved, metrics = step(state, batch, run_key, hyper.under(before))
        after = next_control(before, metrics["kl"], target_rate)
        kept = jax.tree.map(lambda new, old: jnp.where(metrics["finite"], new, old), after, before)
        return replace(moved, control=kept), metrics

    return train_step


def drawn_pair(model: VAE, key: jax.Array, count: int, hyper: Hyper) -> Pair | None:
    """Draws what the model is told with each of `count` images; None if it is told nothing."""
    if model.told is None:
        return None
    return model.told.draw(key, count, Pair(hyper.kl_weight, model.z_dim))


def asked_of(
    model: VAE, pair: Pair | None, hyper: Hyper
) -> tuple[jax.Array | float, jax.Array | None]:
    """Returns the KL weight of each image and its mask of latent dimensions.

    Args:
        model: The module.
        pair: `[B]` each, what it is told; None if it is told nothing.
        hyper: What holds for all images where nothing is told.

    Returns:
        Scalar or `[B]`; `[Z]`, `[B, Z]` or None.
    """
    if model.told is None or pair is None:
        return hyper.kl_weight, hyper.z_mask
    z_mask = model.told.z_mask(pair) if model.told.z_dim else hyper.z_mask
    return pair.kl_weight, z_mask


@lru_cache(maxsize=32)
def make_train_step(
    model: VAE,
    objective: Objective,
    tx: optax.GradientTransformation,
    kl_factor: Schedule,
    learning_rate_factor: Schedule,
    stage: InputStage = CLEAN,
    accumulate: int = 1,
    target_rate: float = 0.0,
) -> Step:
    """Builds the pure training step of a VAE; the caller applies `jit`, `scan` or `vmap`.

    Args:
        model: The module.
        objective: The static part of the objective.
        tx: The optimiser without its learning rate.
        kl_factor: step -> factor of the KL weight.
        learning_rate_factor: step -> factor of the learning rate.
        stage: How inputs and targets are made of images; the loss compares with the targets.
        accumulate: The number of micro-batches; latent noise and inputs are those of the batch.
        target_rate: The rate (nats per image) that a controller of the KL weight holds; 0 for none.

    Returns:
        See `make_update_step`; the metrics are `objective_terms` and `kl_weight`.
    """

    def draw(batch: Batch, key: jax.Array, hyper: Hyper) -> Examples:
        pair = drawn_pair(model, stream_key(key, "told"), len(batch.images), hyper)
        examples = Examples(
            *training_pair(stage, key, batch.images), batch.weights, batch.labels, pair=pair
        )
        if accumulate == 1:
            return examples
        count, dtype = len(batch.images), examples.inputs.dtype
        rngs = {"latent": stream_key(key, "latent")}
        noise = model.apply({}, count, dtype, method="draw_noise", rngs=rngs)
        return examples._replace(noise=noise)

    def loss_fn(params, batch_stats, examples: Examples, key, step, hyper: Hyper):
        asked_weight, z_mask = asked_of(model, examples.pair, hyper)
        kl_weight = asked_weight * kl_factor(step)
        output, mutated = model.apply(
            {"params": params, "batch_stats": batch_stats},
            examples.inputs,
            train=True,
            sample=model.sample,
            labels=examples.labels,
            mask=examples.weights > 0,
            z_mask=z_mask,
            noise=examples.noise,
            pair=examples.pair,
            rngs={name: stream_key(key, name) for name in ("latent", "dropout")},
            mutable=["batch_stats"],
        )
        metrics = objective_terms(
            objective, output, examples.targets, examples.weights, kl_weight, z_mask
        )
        loss = metrics["loss"]
        metrics.setdefault("kl_weight", jnp.asarray(kl_weight, jnp.float32))
        return loss, (metrics, batch_stats | mutated.get("batch_stats", {}))

    momentum = model.style.norm_momentum
    step = make_update_step(draw, loss_fn, tx, learning_rate_factor, accumulate, momentum)
    return controlled(step, target_rate) if target_rate else step
