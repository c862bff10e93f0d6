"""Training the classifier with the same loop, step and checkpoints as a VAE."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.linen.summary import tabulate
from ml_collections import ConfigDict

from vae_jax.config import is_classifier
from vae_jax.data.batches import to_unit_range
from vae_jax.data.inputs import InputStage, make_input_stage, training_pair
from vae_jax.data.splits import Splits, condition_labels, condition_names
from vae_jax.devices import data_mesh
from vae_jax.losses import weighted_mean
from vae_jax.models.classifier import Classifier, class_logits, make_classifier
from vae_jax.schedules import learning_rate_schedule
from vae_jax.streams import make_key, stream_key
from vae_jax.train.epoch import EpochMeans, Pace, make_run_steps, run_epoch
from vae_jax.train.state import Hyper, TrainState, make_optimizer, start_state
from vae_jax.train.step import Draw, Examples, LossFn, Metrics, Step, make_update_step
from vae_jax.train.summary import counts
from vae_jax.train.task import Row, Task, schedule_steps
from vae_jax.train.validation import Feeds, make_feeds
from vae_jax.types import Batch, ImageSet, UserError

NETWORK = "classifier"


def classification_terms(
    logits: jax.Array,
    targets: jax.Array,
    weights: jax.Array,
    attributes: Sequence[str] = (),
) -> Metrics:
    """Cross-entropy and accuracy, as means over the images of the batch.

    Args:
        logits: `[B, L]`.
        targets: `[B, L]`, one-hot classes, or 0 and 1 for each attribute.
        weights: `[B]`, 1 for images and 0 for padding.
        attributes: L names of independent binary attributes; empty for exclusive classes.

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


def classifier_task(config: ConfigDict, splits: Splits, workdir: str) -> Task:
    """The classifier of `config.classifier`, for `fit(..., make_task=classifier_task)`.

    Raises:
        UserError: the config is not that of a classifier, or the data has no such labels.
    """
    if not is_classifier(config):
        raise UserError(
            "this config has no section `classifier`; configs/classifier_mnist.py has one"
        )
    label_names = condition_names(config.data, splits.train)
    attributes = label_names if config.data.condition == "attributes" else ()
    model = make_classifier(config.classifier, config.data.image_shape, len(label_names))
    optimizer = config.optimizer
    tx = make_optimizer(optimizer.b1, optimizer.b2, optimizer.epsilon, optimizer.clip_norm)
    learning_rate_factor = learning_rate_schedule(
        optimizer.schedule, optimizer.warmup_steps, schedule_steps(config, splits)
    )
    run_key = make_key(config.seed)
    feeds = make_feeds(config, splits, data_mesh(config))
    return Task(
        init_state=partial(_init_state, model, tx, run_key),
        train_step=make_update_step(
            _make_draw(make_input_stage(config.data)),
            _make_loss(model, attributes),
            tx,
            learning_rate_factor,
            config.train.accumulate,
            model.style.norm_momentum,
        ),
        hyper=_hyper(config),
        run_key=run_key,
        feeds=feeds,
        validator=_Validator(config, model, attributes, feeds),
        label_names=label_names,
        summary=_summary(config, model, splits, workdir, label_names),
        complete_row=dict,
        describe=_describe,
    )


def accuracy_table(config: ConfigDict, row: Row, test: ImageSet) -> str:
    """The test accuracy in words, beside the share of the commonest answer.

    Args:
        config: of the classifier.
        row: the last `test` row of its run.
        test: the split that was evaluated.

    Returns:
        One line, and a line for each attribute.
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


def _hyper(config: ConfigDict) -> Hyper:
    return Hyper(kl_weight=0.0, learning_rate=float(config.optimizer.learning_rate))


def _init_state(
    model: Classifier, tx: optax.GradientTransformation, run_key: jax.Array
) -> TrainState:
    images = jnp.zeros((1, *model.image_shape))
    variables = jax.jit(lambda key: model.init(key, images, False))(stream_key(run_key, "init"))
    stats = variables.get("batch_stats", {})
    return start_state({NETWORK: variables["params"]}, {NETWORK: stats}, tx)


def _make_draw(stage: InputStage) -> Draw:
    def draw(batch: Batch, key: jax.Array) -> Examples:
        return Examples(*training_pair(stage, key, batch.images), batch.weights, batch.labels)

    return draw


def _make_loss(model: Classifier, attributes: Sequence[str]) -> LossFn:
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

    return loss_fn


def _make_eval_step(model: Classifier, attributes: Sequence[str]) -> Step:
    def eval_step(
        variables: Any, batch: Batch, key: jax.Array, hyper: Hyper
    ) -> tuple[Any, Metrics]:
        logits = class_logits(model, variables, to_unit_range(batch.images))
        assert batch.labels is not None  # a classifier has a condition
        terms = classification_terms(logits, batch.labels, batch.weights, attributes)
        return variables, terms | {"images": jnp.sum(batch.weights)}

    return eval_step


class _Validator:
    """Loss and accuracy on the held-out splits."""

    def __init__(
        self, config: ConfigDict, model: Classifier, attributes: Sequence[str], feeds: Feeds
    ) -> None:
        self._feeds, self._hyper, self._pace = feeds.held_out, _hyper(config), Pace()
        self._key = stream_key(make_key(config.seed), "evaluation")
        self._program = jax.jit(make_run_steps(_make_eval_step(model, attributes)))

    def batch_stats(self, state: TrainState) -> Any:
        return state.batch_stats

    def evaluate(
        self, state: TrainState, stopped: Callable[[], bool] = lambda: False
    ) -> dict[str, dict[str, float]] | None:
        variables = {
            "params": state.params[NETWORK],
            "batch_stats": state.batch_stats[NETWORK],
        }
        found = {}
        for split, feed in self._feeds.items():
            means = EpochMeans()
            calls = run_epoch(self._program, variables, feed, self._key, self._hyper, self._pace)
            for _, metrics in calls:
                means.add(metrics)
                if stopped():
                    return None
            found[split] = means.means()
        return found


def _summary(
    config: ConfigDict,
    model: Classifier,
    splits: Splits,
    workdir: str,
    label_names: tuple[str, ...],
) -> str:
    console = {"width": 110, "force_terminal": sys.stdout.isatty()}
    table = tabulate(model, make_key(0), depth=1, console_kwargs=console)(
        jnp.zeros((1, *model.image_shape)), False
    )
    lines = [
        table.rstrip(),
        f"data       {config.data.name}: {counts(splits)} images, from {config.data.path}",
        f"predicts   {config.data.condition}: {', '.join(label_names)}",
        f"workdir    {workdir}: config.json, metrics.jsonl, checkpoints/",
    ]
    return "\n".join(lines)


def _describe(row: Row) -> str:
    return f"loss {row['loss']:.4f} accuracy {row['accuracy']:.2%}"
