"""Every field of a config and what it may be."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from vae_jax.data.corruption import DROP_VALUES, MASKS
from vae_jax.data.inputs import BINARIZE
from vae_jax.losses import LIKELIHOODS, REDUCTIONS
from vae_jax.models.blocks import ACTIVATIONS, DTYPES, KERNEL_INITS, NORMS
from vae_jax.schedules import KL_SCHEDULES, LEARNING_RATE_SCHEDULES
from vae_jax.types import UserError


@dataclass(frozen=True)
class Field:
    """What a config field may be.

    Attributes:
        kind: int, float, str or bool.
        low: smallest value allowed.
        high: largest value allowed.
        above: value that must be exceeded.
        choices: allowed strings; empty for any.
        many: the field is a tuple of such values.
        optional: configs that do not use the field's section leave it out.
    """

    kind: type
    low: float = -math.inf
    high: float = math.inf
    above: float = -math.inf
    choices: tuple[str, ...] = ()
    many: bool = False
    optional: bool = False


def _choice(*choices: str, many: bool = False) -> Field:
    return Field(str, choices=choices, many=many)


def _layers(kind: type = int, low: float = 1, **rest: Any) -> Field:
    return Field(kind, low=low, many=True, **rest)


COUNT = Field(int, low=1)
COUNT_OR_NONE = Field(int, low=0)
FRACTION = Field(float, low=0.0, high=1.0)
MAX_SEED = 2**32 - 1
SWEEP_MODES = ("grid", "list")
SWEEP_SCHEDULES = ("auto", "in_turn", "together", "mixed")

FIELDS: dict[str, Field] = {
    "seed": Field(int, low=0, high=MAX_SEED),
    "data.name": _choice("faces", "celeba", "mnist", "cifar10", "folder"),
    "data.path": Field(str),
    "data.image_shape": _layers(high=4096),
    "data.generate_count": Field(int, low=10),
    "data.generate_seed": Field(int, low=0, high=MAX_SEED),
    "data.train_count": COUNT_OR_NONE,
    "data.validation_count": COUNT_OR_NONE,
    "data.test_count": COUNT_OR_NONE,
    "data.condition": _choice("none", "class", "attributes"),
    "data.attributes": Field(str, many=True),
    "data.corruption.grey": Field(bool),
    "data.corruption.gaussian_sigma": Field(float, low=0.0, high=10.0),
    "data.corruption.drop_fraction": FRACTION,
    "data.corruption.drop_value": _choice(*DROP_VALUES),
    "data.corruption.mask": _choice(*MASKS),
    "data.corruption.mask_size": COUNT_OR_NONE,
    "data.augmentation.flip": Field(bool),
    "data.augmentation.shift": COUNT_OR_NONE,
    "data.augmentation.brightness": FRACTION,
    "data.binarize": _choice(*BINARIZE),
    "data.resident": _choice("auto", "always", "never"),
    "data.resident_gib": Field(float, low=0.0),
    "model.z_dim": COUNT,
    "model.encoder.filters": _layers(),
    "model.encoder.kernel_sizes": _layers(),
    "model.encoder.strides": _layers(),
    "model.encoder.padding": _choice("same", "valid", many=True),
    "model.encoder.dense": _layers(),
    "model.decoder.filters": _layers(),
    "model.decoder.kernel_sizes": _layers(),
    "model.decoder.strides": _layers(),
    "model.decoder.padding": _choice("same", "valid", many=True),
    "model.decoder_dense_activation": _choice(*ACTIVATIONS),
    "model.activation": _choice(*ACTIVATIONS),
    "model.negative_slope": FRACTION,
    "model.norm": _choice(*NORMS),
    "model.norm_epsilon": Field(float, above=0.0, high=1.0),
    "model.norm_momentum": FRACTION,
    "model.dropout": Field(float, low=0.0, high=0.99),
    "model.kernel_init": _choice(*KERNEL_INITS),
    "model.conv_bias": Field(bool),
    "model.dtype": _choice(*DTYPES),
    "model.convolution": _choice("auto", "xla", "matmul"),
    "model.remat": Field(bool),
    "loss.likelihood": _choice(*LIKELIHOODS),
    "loss.reduction": _choice(*REDUCTIONS),
    "loss.kl_weight": Field(float, low=0.0, high=1e6),
    "loss.kl_schedule": _choice(*KL_SCHEDULES),
    "loss.kl_schedule_steps": COUNT,
    "loss.kl_cycles": COUNT,
    "loss.kl_cycle_ramp": Field(float, above=0.0, high=1.0),
    "loss.free_bits": Field(float, low=0.0, high=100.0),
    "loss.sigma": Field(float, above=0.0, high=100.0),
    "optimizer.learning_rate": Field(float, above=0.0, high=10.0),
    "optimizer.b1": Field(float, low=0.0, high=0.999999),
    "optimizer.b2": Field(float, low=0.0, high=0.999999),
    "optimizer.epsilon": Field(float, above=0.0, high=1.0),
    "optimizer.schedule": _choice(*LEARNING_RATE_SCHEDULES),
    "optimizer.warmup_steps": COUNT_OR_NONE,
    "optimizer.clip_norm": Field(float, low=0.0),
    "train.batch_size": COUNT,
    "train.epochs": COUNT,
    "train.accumulate": COUNT,
    "train.order_seed": Field(int, low=-1, high=MAX_SEED),
    "train.max_skipped": COUNT,
    "parallel.data": COUNT_OR_NONE,
    "parallel.members": COUNT_OR_NONE,
    "eval.batch_size": COUNT,
    "eval.every_epochs": COUNT,
    "eval.batch_stats": _choice("reestimated", "running"),
    "eval.statistics_batches": COUNT,
    "eval.pictures": COUNT,
    "checkpoint.every_epochs": COUNT,
    "checkpoint.keep_latest": COUNT,
    "checkpoint.keep_best": COUNT_OR_NONE,
    "log.tensorboard": Field(bool),
    "sweep.kl_weight": Field(float, low=0.0, high=1e6, many=True, optional=True),
    "sweep.z_dim": Field(int, low=1, many=True, optional=True),
    "sweep.learning_rate": Field(float, above=0.0, high=10.0, many=True, optional=True),
    "sweep.seed": Field(int, low=0, high=MAX_SEED, many=True, optional=True),
    "sweep.mode": Field(str, choices=SWEEP_MODES, optional=True),
    "sweep.schedule": Field(str, choices=SWEEP_SCHEDULES, optional=True),
    "sweep.same_batches": Field(bool, optional=True),
    "sweep.memory_gib": Field(float, low=0.0, optional=True),
    "classifier.filters": _layers(optional=True),
    "classifier.kernel_sizes": _layers(optional=True),
    "classifier.strides": _layers(optional=True),
    "classifier.padding": Field(str, choices=("same", "valid"), many=True, optional=True),
    "classifier.dense": _layers(optional=True),
    "classifier.norm": Field(str, choices=NORMS, optional=True),
    "classifier.dropout": Field(float, low=0.0, high=0.99, optional=True),
    "classifier.convolution": Field(str, choices=("auto", "xla", "matmul"), optional=True),
}


def check_field(name: str, value: Any, field: Field) -> None:
    """Raise a UserError, one sentence, if the value of a field is not what the field may be."""
    if field.many:
        if not isinstance(value, tuple | list):
            raise UserError(f"config.{name} is {value!r}, but must be a tuple")
        for i, item in enumerate(value):
            _check_value(f"{name}[{i}]", item, field)
    else:
        _check_value(name, value, field)


def _check_value(name: str, value: Any, field: Field) -> None:
    # bool is an int in Python, and an int is a fine float.
    kinds = (int, float) if field.kind is float else (field.kind,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and field.kind is not bool):
        raise UserError(
            f"config.{name} is {value!r} ({type(value).__name__}), "
            f"but must be of type {field.kind.__name__}"
        )
    if field.choices and value not in field.choices:
        raise UserError(f"config.{name} is {value!r}; valid are {', '.join(field.choices)}")
    if field.kind in (int, float):
        if not math.isfinite(value):
            raise UserError(f"config.{name} is {value!r}, but must be finite")
        if not (field.low <= value <= field.high and value > field.above):
            lower = f"> {field.above:g}" if field.above > -math.inf else f">= {field.low:g}"
            upper = f" and <= {field.high:g}" if field.high < math.inf else ""
            raise UserError(f"config.{name} is {value!r}, but must be {lower}{upper}")
