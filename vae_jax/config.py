"""Validates configs, and converts them to JSON and back."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ml_collections import ConfigDict

from vae_jax.data.inputs import BINARIZE, DROP_VALUES, MASKS, Corruption
from vae_jax.losses import LIKELIHOODS, REDUCTIONS, term_scales
from vae_jax.models.blocks import ACTIVATIONS, DTYPES, KERNEL_INITS, NORMS
from vae_jax.models.told import Pair, Told
from vae_jax.schedules import KL_SCHEDULES, LEARNING_RATE_SCHEDULES
from vae_jax.streams import MAX_SEED
from vae_jax.types import UserError

KINDS = ("run", "sweep", "classifier")
# A config trains a classifier if it has the section `classifier`, in place of these of a VAE.
VAE_SECTIONS = ("model", "loss", "told")

# What a model may be told with every image: the fields of the section `told`.
TOLD = ("kl_weight", "z_dim")
# Sections that a config may leave out, and the fields that may be missing where they are given.
OPTIONAL = {"told": TOLD, "sweep": ("kl_weight", "z_dim", "learning_rate", "seed")}
# The configs that show the sections which configs/default.py has not.
EXAMPLES = {"sweep": "configs/ablation_faces.py", "classifier": "configs/classifier_mnist.py"}

# Words in an attribute's name that mirroring exchanges.
SIDES = {"left", "right"}


@dataclass(frozen=True)
class Field:
    """What a config field may be.

    Attributes:
        kind: int, float, str or bool.
        low: The smallest value allowed.
        high: The largest value allowed.
        above: The value that must be exceeded.
        choices: The strings allowed; empty for any.
        many: Whether the field is a tuple of such values.
    """

    kind: type
    low: float = -math.inf
    high: float = math.inf
    above: float = -math.inf
    choices: tuple[str, ...] = ()
    many: bool = False


def _choice(*choices: str, many: bool = False) -> Field:
    return Field(str, choices=choices, many=many)


def _layers(high: float = math.inf) -> Field:
    return Field(int, low=1, high=high, many=True)


MAX_COUNT = 2**31 - 1
COUNT = Field(int, low=1, high=MAX_COUNT)
COUNT_OR_NONE = Field(int, low=0, high=MAX_COUNT)
FRACTION = Field(float, low=0.0, high=1.0)
PADDINGS = ("same", "valid")
CONVOLUTIONS = ("auto", "xla", "matmul")

FIELDS: dict[str, Field] = {
    "seed": Field(int, low=0, high=MAX_SEED),
    "data.name": _choice("faces", "celeba", "mnist", "cifar10", "folder"),
    "data.path": Field(str),
    "data.digest": Field(str),
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
    "model.encoder.padding": _choice(*PADDINGS, many=True),
    "model.encoder.dense": _layers(),
    "model.decoder.filters": _layers(),
    "model.decoder.kernel_sizes": _layers(),
    "model.decoder.strides": _layers(),
    "model.decoder.padding": _choice(*PADDINGS, many=True),
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
    "model.convolution": _choice(*CONVOLUTIONS),
    "model.remat": Field(bool),
    "model.sample": Field(bool),
    "loss.likelihood": _choice(*LIKELIHOODS),
    "loss.reduction": _choice(*REDUCTIONS),
    "loss.kl_weight": Field(float, low=0.0, high=1e6),
    "loss.target_rate": Field(float, low=0.0, high=1e5),
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
    "optimizer.schedule_epochs": COUNT_OR_NONE,
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
    "told.kl_weight": Field(float, above=0.0, high=1e6, many=True),
    "told.z_dim": Field(int, low=1, many=True),
    "sweep.kl_weight": Field(float, low=0.0, high=1e6, many=True),
    "sweep.z_dim": Field(int, low=1, many=True),
    "sweep.learning_rate": Field(float, above=0.0, high=10.0, many=True),
    "sweep.seed": Field(int, low=0, high=MAX_SEED, many=True),
    "sweep.mode": _choice("grid", "list"),
    "sweep.schedule": _choice("auto", "in_turn", "together", "mixed"),
    "sweep.same_batches": Field(bool),
    "sweep.memory_gib": Field(float, low=0.0),
    "classifier.filters": _layers(),
    "classifier.kernel_sizes": _layers(),
    "classifier.strides": _layers(),
    "classifier.padding": _choice(*PADDINGS, many=True),
    "classifier.dense": _layers(),
    "classifier.norm": _choice(*NORMS),
    "classifier.dropout": Field(float, low=0.0, high=0.99),
    "classifier.convolution": _choice(*CONVOLUTIONS),
}


def _check_field(name: str, value: Any, field: Field) -> None:
    """Raises a UserError unless the value of a field is what the field may be."""
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
        if not abs(value) <= sys.float_info.max:  # NaN, an infinity, or an int of 400 digits
            raise UserError(f"config.{name} is {value!r}, but must be finite")
        if not (field.low <= value <= field.high and value > field.above):
            lower = f"> {field.above:g}" if field.above > -math.inf else f">= {field.low:g}"
            upper = f" and <= {field.high:g}" if field.high < math.inf else ""
            raise UserError(f"config.{name} is {value!r}, but must be {lower}{upper}")


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns a nested mapping as `{'section.field': value}`."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, ConfigDict | dict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def kind_of(config: ConfigDict) -> str:
    """Returns which of `KINDS` a config describes, and so what its folder holds."""
    return next((kind for kind in ("sweep", "classifier") if kind in config), "run")


def is_classifier(config: ConfigDict) -> bool:
    """Returns whether a config is that of a classifier rather than of a VAE."""
    return kind_of(config) == "classifier"


def validate(config: ConfigDict) -> None:
    """Checks every field's presence, type and range, and the rules between fields.

    Args:
        config: The whole config.

    Raises:
        UserError: A field is wrong; names the field, its value and what is allowed.
    """
    flat = flatten(config)
    unused = VAE_SECTIONS if is_classifier(config) else ("classifier",)
    fields = {name: field for name, field in FIELDS.items() if name.split(".")[0] not in unused}
    for name in flat:
        if name not in fields:
            raise UserError(f"config.{name} is not a field; configs/default.py lists them all")
    for name, field in fields.items():
        section, _, own_name = name.partition(".")
        if name in flat:
            _check_field(name, flat[name], field)
        elif section not in OPTIONAL or (section in config and own_name not in OPTIONAL[section]):
            example = EXAMPLES.get(section, "configs/default.py")
            raise UserError(f"config.{name} is missing; {example} shows it")
    _check_across_fields(config)


def _check_across_fields(config: ConfigDict) -> None:
    shape = config.data.image_shape
    if len(shape) != 3 or shape[2] not in (1, 3):
        raise UserError(
            f"config.data.image_shape is {tuple(shape)}, but must be (H, W, C) with C 1 or 3"
        )
    if config.train.batch_size % config.train.accumulate:
        raise UserError(
            f"config.train.accumulate is {config.train.accumulate}, but must divide "
            f"config.train.batch_size, which is {config.train.batch_size}"
        )
    if is_classifier(config):
        _check_stack("classifier", config.classifier, shape)
    else:
        _check_kl_schedule(config.loss)
        _check_target_rate(config)
        _check_told(config)
        _check_stack("model.encoder", config.model.encoder, shape)
        _check_stack("model.decoder", config.model.decoder, shape, extra=1)
    if is_classifier(config) and config.data.condition == "none":
        raise UserError(
            "config.data.condition is 'none'; a classifier needs 'class' or 'attributes'"
        )
    if (config.data.condition == "attributes") != bool(config.data.attributes):
        raise UserError(
            f"config.data.condition is {config.data.condition!r} and config.data.attributes is "
            f"{tuple(config.data.attributes)!r}: 'attributes' needs names, anything else none"
        )

    optimizer = config.optimizer
    if optimizer.schedule == "constant" and optimizer.schedule_epochs:
        raise UserError(
            f"config.optimizer.schedule_epochs is {optimizer.schedule_epochs}, but "
            "config.optimizer.schedule is 'constant', which has no length: set it to 0"
        )
    _check_inputs(config.data)
    if is_classifier(config) and not Corruption(**config.data.corruption).is_off:
        raise UserError(
            "config.data.corruption is of no use here: a classifier is trained on clean images"
        )


def _check_target_rate(config: ConfigDict) -> None:
    """Checks that a controller has a weight to start from, which nothing else moves."""
    loss = config.loss
    if not loss.target_rate:
        return
    for ok, reason in (
        (loss.kl_schedule == "constant", f"loss.kl_schedule 'constant', not {loss.kl_schedule!r}"),
        (loss.kl_weight > 0, "loss.kl_weight above 0 to start from"),
        (not loss.free_bits, "loss.free_bits 0, since they hold up the rate as well"),
        (config.model.sample, "model.sample True, without which there is no rate"),
    ):
        if not ok:
            raise UserError(
                f"config.loss.target_rate is {loss.target_rate:g}, which needs config.{reason}"
            )


def _check_told(config: ConfigDict) -> None:
    """Checks that ranges hold the config's own values, which nothing else moves."""
    told = config.get("told", {})
    weights, sizes = (tuple(told.get(name, ())) for name in TOLD)
    if "told" in config and not weights and not sizes:
        raise UserError("config.told is empty: give told.kl_weight or told.z_dim, or leave it out")
    own_weight, own_size = config.loss.kl_weight, config.model.z_dim
    if weights and not (len(weights) == 2 and weights[0] < weights[1]):
        raise UserError(
            f"config.told.kl_weight is {weights}, but must be two numbers, the smaller one first"
        )
    if weights and not weights[0] <= own_weight <= weights[1]:
        raise UserError(
            f"config.loss.kl_weight is {own_weight:g}, but must lie within config.told.kl_weight, "
            f"from {weights[0]:g} to {weights[1]:g}: it is what the model is asked for by default"
        )
    if sizes and not (len(sizes) > 1 and all(a < b for a, b in itertools.pairwise(sizes))):
        raise UserError(f"config.told.z_dim is {sizes}, but must be two or more rising sizes")
    if sizes and sizes[-1] != own_size:
        raise UserError(
            f"config.told.z_dim ends with {sizes[-1]}, but must end with config.model.z_dim, "
            f"which is {own_size}"
        )
    for name, values in zip(TOLD, (weights, sizes), strict=True):
        if values and config.get("sweep", {}).get(name):
            raise UserError(
                f"config.sweep.{name} lists {tuple(config.sweep[name])}, but the model is told "
                f"{name} (config.told.{name}), so that one training answers for all of them: leave "
                f"config.sweep.{name} empty"
            )
    if weights and config.loss.target_rate:
        raise UserError(
            f"config.loss.target_rate is {config.loss.target_rate:g}, but the model is told its KL "
            "weight (config.told.kl_weight), which no controller can move: set one of them to none"
        )


def what_is_told(config: ConfigDict) -> Told | None:
    """Returns what the model of a validated config is told with every image; None for nothing."""
    if "told" not in config:
        return None
    weights, sizes = (tuple(config.told.get(name, ())) for name in TOLD)
    return Told(weights, sizes, config.loss.reduction, tuple(config.data.image_shape))


def told_pair(config: ConfigDict, asked: Pair) -> Pair | None:
    """Returns the pair that a model is opened at.

    Args:
        config: The config of the run.
        asked: The pair asked for; what is None is taken from the config.

    Returns:
        A pair of numbers; None for a model that is told nothing.

    Raises:
        UserError: The model was not trained for the pair; the sentence says for what it was.
    """
    told = what_is_told(config)
    own = Pair(config.loss.kl_weight, config.model.z_dim)
    ranges = Pair() if told is None else Pair(told.kl_weight, told.z_dim)
    for name, value, trained, trained_for in zip(TOLD, asked, own, ranges, strict=True):
        if value is None:
            continue
        if not trained_for:
            raise UserError(
                f"--{name}={value:g}: this model was trained with {name} {trained:g} and answers "
                f"for no other; a told model does, see configs/plane_mnist.py"
            )
        if not trained_for[0] <= value <= trained_for[-1]:
            raise UserError(
                f"--{name}={value:g}: this model was trained for {name} {trained_for[0]:g} to "
                f"{trained_for[-1]:g} and answers for no other"
            )
    if told is None:
        return None
    return Pair(*(mine if value is None else value for value, mine in zip(asked, own, strict=True)))


def _check_kl_schedule(loss: ConfigDict) -> None:
    if loss.kl_schedule == "cyclical" and loss.kl_schedule_steps * loss.kl_cycles >= 2**31:
        raise UserError(
            f"config.loss.kl_schedule_steps is {loss.kl_schedule_steps} and kl_cycles is "
            f"{loss.kl_cycles}, but their product must be below 2^31"
        )


def _check_inputs(data: ConfigDict) -> None:
    """Checks that corruption, augmentation and binarisation fit the images."""
    if data.binarize != "none" and data.image_shape[2] != 1:
        raise UserError(
            f"config.data.binarize is {data.binarize!r}, but only grey images, such as those of "
            "mnist, become black and white"
        )
    corruption, size = data.corruption, min(data.image_shape[:2])
    if corruption.grey and data.image_shape[2] != 3:
        raise UserError("config.data.corruption.grey is True, but the images have no colour")
    if (corruption.mask == "rectangle") != bool(corruption.mask_size):
        raise UserError(
            f"config.data.corruption.mask is {corruption.mask!r} and mask_size is "
            f"{corruption.mask_size}: 'rectangle' needs a side in pixels, any other mask 0"
        )
    if data.augmentation.flip and (changed := _changed_by_mirroring(data)):
        raise UserError(
            f"config.data.augmentation.flip is True, but mirroring changes {changed}, which the "
            "model is told: set it to False, or choose another condition"
        )
    for name, value in (
        ("corruption.mask_size", corruption.mask_size),
        ("augmentation.shift", data.augmentation.shift),
    ):
        if value > size:
            raise UserError(
                f"config.data.{name} is {value} pixels, but the images have only {size}"
            )


def _changed_by_mirroring(data: ConfigDict) -> str:
    """Returns what mirroring left to right changes in the condition; empty for nothing."""
    if data.condition == "class":
        return "digits" if data.name == "mnist" else ""
    sided = [n for n in data.attributes if SIDES & set(re.findall("[a-z]+", n.lower()))]
    return ", ".join(sided)


def _check_stack(
    section: str, stack: ConfigDict, image_shape: Sequence[int], extra: int = 0
) -> None:
    """Checks that a stack has one entry per layer; `extra` layers are not listed in `filters`."""
    layers = len(stack.filters) + extra
    for name in ("kernel_sizes", "strides", "padding"):
        if len(stack[name]) != layers:
            raise UserError(
                f"config.{section}.{name} has {len(stack[name])} entries, but the "
                f"{section.split('.')[-1]} has {layers} layers: give one entry for each"
            )
    if not layers:
        raise UserError(f"config.{section}.filters is empty; give at least one layer")
    for i, size in enumerate(stack.kernel_sizes):
        if size > max(image_shape[:2]):
            raise UserError(
                f"config.{section}.kernel_sizes[{i}] is {size}, but the images have only "
                f"{image_shape[0]}x{image_shape[1]} pixels"
            )


def to_json(config: ConfigDict) -> str:
    """Returns the resolved config as JSON text, keys sorted."""
    return json.dumps(config.to_dict(), indent=2, sort_keys=True) + "\n"


def from_json(text: str) -> ConfigDict:
    """Returns the config of a JSON text, with lists as the tuples that they were."""
    values = json.loads(text)
    if not isinstance(values, dict):
        raise ValueError("no object in braces")
    return ConfigDict(_lists_to_tuples(values))


def _lists_to_tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _lists_to_tuples(item) for name, item in value.items()}
    return tuple(value) if isinstance(value, list) else value


def digest(config: ConfigDict) -> str:
    """Returns the first 16 hexadecimal digits of the SHA-256 of the config's JSON text.

    The section `parallel` does not count: it says where a run computes, not what.
    """
    counted = {name: value for name, value in config.to_dict().items() if name != "parallel"}
    return hashlib.sha256(to_json(ConfigDict(counted)).encode()).hexdigest()[:16]


def beta(reduction: str, kl_weight: float, image_shape: tuple[int, int, int], z_dim: int) -> float:
    """Returns the weight of K against R, both in nats per image, that `kl_weight` means."""
    recon_scale, kl_scale = term_scales(reduction, kl_weight, image_shape, z_dim)
    return float(kl_scale / recon_scale)
