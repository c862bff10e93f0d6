"""Validation of a config, its JSON form, and the conversions between KL-weight conventions."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from vae_jax.config_fields import FIELDS, Field, check_field
from vae_jax.data.corruption import make_corruption
from vae_jax.losses import term_scales
from vae_jax.types import UserError

# A config trains a classifier if it has the section `classifier`, in place of these of a VAE.
VAE_SECTIONS = ("model", "loss")

# Fields that a resumed run may change: they do not touch the trajectory that is under way.
RESUMABLE = ("train.epochs", "train.max_skipped", "data.path", "data.resident", "data.resident_gib")
RESUMABLE_SECTIONS = ("eval", "checkpoint", "log", "parallel")
# Words in an attribute's name that mirroring exchanges.
SIDES = {"left", "right"}
# What runs from before a field existed did.
BEFORE = {"train.accumulate": 1}


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mapping to `{'section.field': value}`."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, ConfigDict | dict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def is_classifier(config: ConfigDict) -> bool:
    """Whether a config, of a run say, is that of a classifier rather than of a VAE."""
    return "classifier" in config


def validate(config: ConfigDict, fields: Mapping[str, Field] = FIELDS) -> None:
    """Check every field's presence, type and range, and the rules between fields.

    Args:
        config: the whole config.
        fields: what each field may be.

    Raises:
        UserError: one sentence naming the field, its value and what is allowed.
    """
    flat = flatten(config)
    unused = VAE_SECTIONS if is_classifier(config) else ("classifier",)
    fields = {name: field for name, field in fields.items() if name.split(".")[0] not in unused}
    for name in flat:
        if name not in fields:
            raise UserError(f"config.{name} is not a field; configs/default.py lists them all")
    for name, field in fields.items():
        if name not in flat and field.optional and not name.startswith("classifier."):
            continue
        if name not in flat:
            raise UserError(f"config.{name} is missing; configs/default.py gives its default")
        check_field(name, flat[name], field)
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
        _check_stack("classifier", config.classifier)
    else:
        _check_stack("model.encoder", config.model.encoder)
        _check_stack("model.decoder", config.model.decoder, extra=1)
    if is_classifier(config) and config.data.condition == "none":
        raise UserError(
            "config.data.condition is 'none'; a classifier needs 'class' or 'attributes'"
        )
    if (config.data.condition == "attributes") != bool(config.data.attributes):
        raise UserError(
            f"config.data.condition is {config.data.condition!r} and config.data.attributes is "
            f"{tuple(config.data.attributes)!r}: 'attributes' needs names, anything else none"
        )

    _check_inputs(config.data)
    if is_classifier(config) and not make_corruption(config.data).is_off:
        raise UserError(
            "config.data.corruption is of no use here: a classifier is trained on clean images"
        )


def _check_inputs(data: ConfigDict) -> None:
    """Corruption, augmentation and binarisation must fit the images."""
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
    """The part of the condition that mirroring left and right changes; empty for none."""
    if data.condition == "class":
        return "digits" if data.name == "mnist" else ""
    sided = [n for n in data.attributes if SIDES & set(re.findall("[a-z]+", n.lower()))]
    return ", ".join(sided)


def _check_stack(section: str, stack: ConfigDict, extra: int = 0) -> None:
    """One entry for each layer; `extra` layers are not listed in `filters`."""
    layers = len(stack.filters) + extra
    for name in ("kernel_sizes", "strides", "padding"):
        if len(stack[name]) != layers:
            raise UserError(
                f"config.{section}.{name} has {len(stack[name])} entries, but the "
                f"{section.split('.')[-1]} has {layers} layers: give one entry for each"
            )
    if not layers:
        raise UserError(f"config.{section}.filters is empty; give at least one layer")


def to_json(config: ConfigDict) -> str:
    """The resolved config as JSON text, keys sorted."""
    return json.dumps(config.to_dict(), indent=2, sort_keys=True) + "\n"


def from_json(text: str) -> ConfigDict:
    """The config of a JSON text; lists become the tuples that they were."""
    return ConfigDict(_lists_to_tuples(json.loads(text)))


def _lists_to_tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _lists_to_tuples(item) for name, item in value.items()}
    return tuple(value) if isinstance(value, list) else value


def digest(config: ConfigDict) -> str:
    """First 16 hexadecimal digits of the SHA-256 of the config's JSON text.

    The section `parallel` does not count: it says where a run computes, not what.
    """
    counted = {name: value for name, value in config.to_dict().items() if name != "parallel"}
    return hashlib.sha256(to_json(ConfigDict(counted)).encode()).hexdigest()[:16]


def check_resumable(saved: ConfigDict, config: ConfigDict) -> None:
    """Raise UserError, showing both values, where a resumed run would change its trajectory."""
    before, now = flatten(saved), flatten(config)
    for name in sorted(before.keys() | now.keys()):
        if name in RESUMABLE or name.split(".")[0] in RESUMABLE_SECTIONS:
            continue
        old, new = (flat.get(name, BEFORE.get(name, "absent")) for flat in (before, now))
        if old != new and not (isinstance(old, tuple) and list(old) == list(new)):
            raise UserError(
                f"config.{name} is {new!r}, but this workdir was trained with {old!r}; "
                "use the old value or another workdir"
            )


def beta(reduction: str, kl_weight: float, image_shape: tuple[int, int, int], z_dim: int) -> float:
    """The weight of K against R, both in nats per image, that `kl_weight` means."""
    recon_scale, kl_scale = term_scales(reduction, kl_weight, image_shape, z_dim)
    return float(kl_scale / recon_scale)


def convert_kl_weight(
    kl_weight: float,
    source: str,
    target: str,
    image_shape: tuple[int, int, int],
    z_dim: int,
) -> float:
    """The KL weight under reduction `target` whose beta is that of `kl_weight` under `source`.

    For example `w_channel_mean = w_mean * 2 H W / Z`, and the losses differ by the factor H W.
    """
    per_unit = beta(target, 1.0, image_shape, z_dim)
    return beta(source, kl_weight, image_shape, z_dim) / per_unit
