"""Makes the task folder of a config, which the sides read."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from experiments.speed.layers import model_layers
from experiments.speed.side import Task
from vae_jax import config as configs
from vae_jax.data.splits import open_splits
from vae_jax.losses import term_scales
from vae_jax.types import UserError

# Enough images that an epoch has many steps, few enough for any machine.
POOL_BYTES = {"cpu": 2**27}
POOL_BYTES_ACCELERATED = 2**30
MAX_POOL_BATCHES = 256
LATENTS = 1024
# What the peers can do, by field of the config.
PEER_SETTINGS = {
    "data.condition": ("none",),
    "model.dropout": (0.0,),
    "loss.likelihood": ("bernoulli", "squared_error"),
    "loss.kl_schedule": ("constant",),
    "loss.free_bits": (0.0,),
    "optimizer.schedule": ("constant",),
    "optimizer.warmup_steps": (0,),
    "optimizer.clip_norm": (0.0,),
}


def refuse_beyond_peers(config: ConfigDict) -> None:
    """Raises a UserError for settings that the peers do not have."""
    flat = configs.flatten(config)
    for name, values in PEER_SETTINGS.items():
        if flat[name] not in values:
            raise UserError(
                f"config.{name} is {flat[name]!r}, but the peers only have "
                f"{' and '.join(map(repr, values))}; change it, or leave out --against"
            )


def make_task(config: ConfigDict, what: str, seconds: float) -> Task:
    """Returns the task of a config; `what` is 'train' or 'decode'."""
    model, loss, optimizer = config.model, config.loss, config.optimizer
    image_shape = tuple(config.data.image_shape)
    recon_scale, kl_scale = term_scales(loss.reduction, loss.kl_weight, image_shape, model.z_dim)
    return Task(
        what=what,
        seconds=seconds,
        batch_size=config.train.batch_size,
        image_shape=image_shape,
        z_dim=model.z_dim,
        layers={
            network: [layer._asdict() for layer in part]
            for network, part in model_layers(config)._asdict().items()
        },
        negative_slope=model.negative_slope,
        norm_epsilon=model.norm_epsilon,
        norm_momentum=model.norm_momentum,
        likelihood=loss.likelihood,
        scales=(float(recon_scale), float(kl_scale)),
        adam=(optimizer.learning_rate, optimizer.b1, optimizer.b2, optimizer.epsilon),
        dtype=model.dtype,
        config=configs.to_json(config),
    )


def write_images(config: ConfigDict, folder: Path, backend: str, real_data: bool) -> None:
    """Writes a pool of whole batches: random images, or the first ones of the training split.

    Raises:
        UserError: The training split is smaller than a batch, or cannot be opened.
    """
    shape, batch_size = tuple(config.data.image_shape), config.train.batch_size
    limit = POOL_BYTES.get(backend, POOL_BYTES_ACCELERATED)
    batches = max(2, min(MAX_POOL_BATCHES, limit // (batch_size * math.prod(shape))))
    count = batches * batch_size
    if real_data:
        train = open_splits(config.data).train
        if len(train) < batch_size:
            raise UserError(f"the training split has {len(train)} images, not even one batch")
        images = train.take(np.arange(min(count, len(train) // batch_size * batch_size)))
    else:
        rng = np.random.default_rng(config.seed)
        images = rng.integers(0, 256, (count, *shape), np.uint8)
    np.save(folder / "images.npy", images)


def write_latents(folder: Path, z_dim: int) -> None:
    """Writes points of the prior to decode."""
    rng = np.random.default_rng(0)
    np.save(folder / "latents.npy", rng.standard_normal((LATENTS, z_dim), np.float32))
