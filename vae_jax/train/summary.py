"""What a run prints before it starts."""

from __future__ import annotations

import sys
from functools import lru_cache

import jax
import jax.numpy as jnp
from flax.linen.summary import tabulate
from ml_collections import ConfigDict

from vae_jax.config import beta
from vae_jax.data.inputs import CLEAN, make_input_stage
from vae_jax.data.splits import Splits
from vae_jax.devices import data_share
from vae_jax.models.vae import VAE
from vae_jax.streams import make_key


@lru_cache(maxsize=32)
def parameter_tables(model: VAE, label_dim: int = 0) -> str:
    """The layers of encoder and decoder with shapes and parameter counts (`nn.tabulate`)."""
    images = jnp.zeros((1, *model.image_shape))
    z = jnp.zeros((1, model.z_dim))
    labels = jnp.zeros((1, label_dim)) if label_dim else None
    bound = model.bind({})
    key = make_key(0)
    console = {"width": 110, "force_terminal": sys.stdout.isatty()}
    tables = [
        tabulate(network.clone(parent=None), key, depth=1, console_kwargs=console)(
            example, False, labels
        )
        for network, example in ((bound.encoder, images), (bound.decoder, z))
    ]
    return "".join(tables)


def objective_line(config: ConfigDict) -> str:
    """The objective in one line, with its beta."""
    loss, shape = config.loss, tuple(config.data.image_shape)
    weight = beta(loss.reduction, loss.kl_weight, shape, config.model.z_dim)
    parts = [
        f"{loss.likelihood}, {loss.reduction}, kl_weight {loss.kl_weight:g} (beta {weight:g})",
        f"KL schedule {loss.kl_schedule}",
    ]
    if loss.free_bits:
        parts.append(f"free bits {loss.free_bits:g} nats a dimension")
    return "; ".join(parts)


def device_line(config: ConfigDict) -> str:
    """Which devices divide every batch among themselves, and why not more."""
    devices, reason = data_share(config)
    text = f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform})"
    if jax.process_count() > 1:
        text += f" in {jax.process_count()} processes"
    return f"{text}, {reason}" if reason else text


def counts(splits: Splits) -> str:
    """How many images each split has, in words."""
    chosen = f"{len(splits.validation):,} validation" if splits.validation else "no validation"
    return f"{len(splits.train):,} training, {chosen} and {len(splits.test):,} test"


def run_summary(
    config: ConfigDict, model: VAE, splits: Splits, workdir: str, label_dim: int
) -> str:
    """Parameter tables, data, objective and destinations, as text."""
    stage = make_input_stage(config.data)
    size = "x".join(str(n) for n in config.data.image_shape)
    lines = [
        parameter_tables(model, label_dim).rstrip(),
        f"data       {config.data.name}: {counts(splits)} images of {size}, from "
        f"{config.data.path}",
        f"objective  {objective_line(config)}",
        f"device     {device_line(config)}",
        f"evaluation {config.eval.batch_stats} batch statistics",
        f"workdir    {workdir}: config.json, metrics.jsonl, checkpoints/",
    ]
    if stage != CLEAN:
        line = f"inputs     {stage.corruption}; augmentation in training: {stage.augmentation}"
        lines.insert(2, line)
    return "\n".join(lines)
