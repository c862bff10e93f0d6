"""The task of training a classifier, for the trainer that also trains VAEs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from vae_jax.data.batches import to_unit_range
from vae_jax.data.inputs import InputStage, make_input_stage, training_pair
from vae_jax.data.splits import Splits, condition_labels, condition_names
from vae_jax.losses import weighted_mean
from vae_jax.models.classifier import Classifier, class_logits, make_classifier
from vae_jax.schedules import Schedule, learning_rate_schedule
from vae_jax.streams import make_key, stream_key
from vae_jax.train.evaluation_steps import EvalCarry
from vae_jax.train.state import Hyper, TrainState, make_optimizer, start_state
from vae_jax.train.step import Examples, Metrics, Step, make_update_step
from vae_jax.train.task import Row, Task, layer_table, schedule_steps
from vae_jax.types import Batch, ImageSet

NETWORK = "classifier"


def classification_terms(
    logits: jax.Array,
    targets: jax.Array,
    weights: jax.Array,
    attributes: Sequence[str] = (),
) -> Metrics:
    """Returns cross-entropy and accuracy, as means over the images of a batch.

    Args:
        logits: `[B, L]`.
        targets: `[B, L]`, one-hot classes, or 0 and 1 for each attribute.
        weights: `[B]`, 1 for images and 0 for padding.
        attributes: The L names of independent binary attributes; empty for exclusive classes.

    Returns:
        Scalars: `loss`, nats per image (attributes are summed), `accuracy`, and
        `accuracy_NAME` for each attribute, whose mean `accuracy` is.
    """
    if not attributes:
        nll = optax.softmax_cross_entropy(logits, targets)
        correct = jnp.argmax(logits, axis=-1) == jnp.argmax(targets, axis=-1)
        accuracy = weighted_mean(correct.astype(weights.dtype), weights)
        return {"loss": weighted_mean(nll, weights), "accuracy": accuracy}
    nll = jnp.sum(optax.sigmoid_binary_cross_entropy(logits, targets), axis=-1)
    correct = ((logits > 0) == (targets > 0.5)).astype(weights.dtype)
    each = [weighted_mean(correct[:, i], weights) for i in range(len(attributes))]
    named = {f"accuracy_{name}": value for name, value in zip(attributes, each, strict=True)}
    return {"loss": weighted_mean(nll, weights), "accuracy": sum(each) / len(each)} | named


def classifier_task(config: ConfigDict, splits: Splits) -> Task:
    """Makes the task of the classifier of `config.classifier`.

    Raises:
        UserError: The data has no such labels.
    """
    label_names, shape = condition_names(config.data, splits.train), tuple(config.data.image_shape)
    attributes = label_names if config.data.condition == "attributes" else ()
    model = make_classifier(config.classifier, shape, len(label_names))
    optimizer, steps = config.optimizer, schedule_steps(config, splits)
    tx = make_optimizer(optimizer.b1, optimizer.b2, optimizer.epsilon, optimizer.clip_norm)
    run_key = make_key(config.seed)
    return Task(
        init_state=lambda: _init_state(model, tx, run_key),
        train_step=_make_train_step(
            model,
            attributes,
            tx,
            learning_rate_schedule(optimizer.schedule, optimizer.warmup_steps, steps),
            make_input_stage(config.data),
            config.train.accumulate,
        ),
        eval_step=_make_eval_step(model, attributes),
        statistics_step=None,
        hyper=Hyper(kl_weight=0.0, learning_rate=float(optimizer.learning_rate)),
        run_key=run_key,
        label_names=label_names,
        complete_row=lambda split, means: dict(means),
        describe=_describe,
        layers=lambda: layer_table(model, jnp.zeros((1, *model.image_shape)), False),
        about=(f"predicts   {config.data.condition}: {', '.join(label_names)}",),
    )


def _init_state(
    model: Classifier, tx: optax.GradientTransformation, run_key: jax.Array
) -> TrainState:
    images = jnp.zeros((1, *model.image_shape))
    variables = jax.jit(lambda key: model.init(key, images, False))(stream_key(run_key, "init"))
    stats = variables.get("batch_stats", {})
    return start_state({NETWORK: variables["params"]}, {NETWORK: stats}, tx)


@lru_cache(maxsize=32)
def _make_train_step(
    model: Classifier,
    attributes: Sequence[str],
    tx: optax.GradientTransformation,
    learning_rate_factor: Schedule,
    stage: InputStage,
    accumulate: int,
) -> Step:
    def draw(batch: Batch, key: jax.Array, hyper: Hyper) -> Examples:
        return Examples(*training_pair(stage, key, batch.images), batch.weights, batch.labels)

    def loss_fn(params, batch_stats, examples: Examples, key, step, hyper: Hyper):
        logits, mutated = model.apply(
            {"params": params[NETWORK], "batch_stats": batch_stats[NETWORK]},
            examples.inputs,
            train=True,
            mask=examples.weights > 0,
            rngs={"dropout": stream_key(key, "dropout")},
            mutable=["batch_stats"],
        )
        assert examples.labels is not None  # a classifier has a condition
        metrics = classification_terms(logits, examples.labels, examples.weights, attributes)
        return metrics["loss"], (metrics, {NETWORK: mutated.get("batch_stats", {})})

    momentum = model.style.norm_momentum
    return make_update_step(draw, loss_fn, tx, learning_rate_factor, accumulate, momentum)


@lru_cache(maxsize=32)
def _make_eval_step(model: Classifier, attributes: Sequence[str]) -> Step:
    def eval_step(
        carry: EvalCarry, batch: Batch, key: jax.Array, hyper: Hyper
    ) -> tuple[EvalCarry, Metrics]:
        variables = {kind: tree[NETWORK] for kind, tree in carry.variables.items()}
        logits: Any = class_logits(model, variables, to_unit_range(batch.images))
        assert batch.labels is not None  # a classifier has a condition
        terms = classification_terms(logits, batch.labels, batch.weights, attributes)
        return carry, terms | {"images": jnp.sum(batch.weights)}

    return eval_step


def _describe(row: Row) -> str:
    return f"{row['loss']:.4f}, accuracy {row['accuracy']:.2%}"


def accuracy_table(config: ConfigDict, row: Row, test: ImageSet) -> str:
    """Returns the test accuracy in words, beside the share of the commonest answer.

    Args:
        config: The config of the classifier.
        row: The last `test` row of its run.
        test: The split that was evaluated.

    Returns:
        One line, and one line for each attribute.
    """
    shares = np.asarray(condition_labels(config.data, test)).mean(axis=0)
    if config.data.condition == "class":
        base = [float(shares.max())]
        names = [("accuracy", "test accuracy")]
    else:
        base = [float(share) for share in np.maximum(shares, 1 - shares)]
        base.insert(0, float(np.mean(base)))
        attributes = condition_names(config.data, test)
        names = [("accuracy", f"mean test accuracy of {len(attributes)} attributes")]
        names += [(f"accuracy_{name}", f"  {name}") for name in attributes]
    lines = [
        f"{title} {row[name]:.2%} (always the commonest answer: {share:.2%})"
        for (name, title), share in zip(names, base, strict=True)
    ]
    lines[0] += f" on {len(test):,} images"
    return "\n".join(lines)
