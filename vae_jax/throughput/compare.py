"""Comparisons of training, decoding and preparing: what is measured, from config to summary."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from vae_jax import config as configs
from vae_jax.data import faces
from vae_jax.data.splits import open_splits
from vae_jax.losses import term_scales
from vae_jax.throughput import layers as shapes
from vae_jax.throughput.rounds import Program, Runner, check_agreement, run_rounds
from vae_jax.throughput.side import Task
from vae_jax.throughput.summary import OURS, summarize
from vae_jax.types import UserError

MACHINE = Program("machine", "vae_jax.throughput.machine", needs_extra=False)
OUR_SIDE = Program(OURS, "vae_jax.throughput.ours", needs_extra=False)
OUR_PREPARATION = Program(OURS, "vae_jax.throughput.preparing", "96", needs_extra=False)
# Synthetic images: enough that every epoch has many steps, little enough for any machine.
POOL_BYTES = {"cpu": 2**27}
POOL_BYTES_ACCELERATED = 2**30
MAX_POOL_BATCHES = 256
LATENTS = 1024
TOLERANCES = {
    "float32": {"loss": 1e-4, "grad_norm": 1e-3, "pixel_std": 1e-4},
    "bfloat16": {"loss": 5e-3, "grad_norm": 0.1, "pixel_std": 2e-2},
}


@dataclass(frozen=True)
class Comparison:
    """How to compare.

    Attributes:
        peers: what to compare with; may be empty.
        rounds: how often each side is timed.
        seconds: how long each time, besides start, compilation and warm-up.
        peer_python: interpreter of peers that need the extra `benchmark`.
        real_data: take the images of `config.data`, not random ones.
    """

    peers: Sequence[Program] = ()
    rounds: int = 1
    seconds: float = 10.0
    peer_python: str = "python"
    real_data: bool = False


def compare(config: ConfigDict, what: str, how: Comparison) -> dict[str, Any]:
    """Compare training or decoding.

    Args:
        config: the whole config.
        what: 'train' or 'decode'.
        how: with whom and how long.

    Returns:
        The summary of `summary.summarize` with the machine and its peaks, `flop_per_image` and
        the numbers that the sides agreed on.

    Raises:
        UserError: a config that peers do not cover, a missing library, or sides that disagree.
    """
    configs.validate(config)
    if configs.is_classifier(config):
        raise UserError("the config is one of a classifier; give one of a VAE")
    if how.peers:
        refuse_beyond_peers(config)
    layers = shapes.model_layers(config)
    flop = shapes.training_flop(layers) if what == "train" else shapes.decoding_flop(layers)
    with tempfile.TemporaryDirectory(prefix="throughput-") as folder:
        runner = Runner(Path(folder), how.peer_python)
        machine = runner.run(MACHINE, "time")
        make_task(config, what, how.seconds, layers).save(runner.folder)
        if what == "train":
            write_images(config, runner.folder, machine["backend"], how.real_data)
        else:
            write_latents(runner.folder, config.model.z_dim)
        agreed = {}
        if how.peers:
            tolerances = TOLERANCES[config.model.dtype]
            agreed = check_agreement(runner, OUR_SIDE, how.peers, tolerances)
        results = run_rounds(runner, (OUR_SIDE, *how.peers), how.rounds)
        machine = best_of(machine, runner.run(MACHINE, "time"))
    peaks = machine["matmul_flop_per_second"]
    return summarize(results) | {
        "what": what,
        "batch_size": config.train.batch_size,
        "dtype": config.model.dtype,
        "flop_per_image": flop,
        "peak_flop_per_second": peaks.get(config.model.dtype, peaks["float32"]),
        "agreed": agreed,
        "machine": machine,
        "config": json.loads(configs.to_json(config)),
    }


def best_of(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """The higher peaks of two measurements of one machine, before and after the rounds."""
    peaks, others = first["matmul_flop_per_second"], second["matmul_flop_per_second"]
    bandwidth = "copy_bytes_per_second"
    return first | {
        "matmul_flop_per_second": {name: max(peaks[name], others[name]) for name in peaks},
        bandwidth: max(first[bandwidth], second[bandwidth]),
    }


def refuse_beyond_peers(config: ConfigDict) -> None:
    """Raise UserError for settings that the peers do not have."""
    expected = {
        "data.condition": ("none",),
        "model.dropout": (0.0,),
        "loss.likelihood": ("bernoulli", "squared_error"),
        "loss.kl_schedule": ("constant",),
        "loss.free_bits": (0.0,),
        "optimizer.clip_norm": (0.0,),
    }
    flat = configs.flatten(config)
    for name, values in expected.items():
        if flat[name] not in values:
            raise UserError(
                f"config.{name} is {flat[name]!r}, but the peers only have "
                f"{' and '.join(map(repr, values))}; change it, or leave out --against"
            )


def make_task(config: ConfigDict, what: str, seconds: float, layers: shapes.Layers) -> Task:
    """What the sides are told."""
    model, loss, optimizer = config.model, config.loss, config.optimizer
    image_shape = tuple(config.data.image_shape)
    rate = (optimizer.learning_rate, optimizer.b1, optimizer.b2, optimizer.epsilon)
    return Task(
        what=what,
        seconds=seconds,
        batch_size=config.train.batch_size,
        image_shape=image_shape,
        z_dim=model.z_dim,
        layers={
            network: [layer._asdict() for layer in part]
            for network, part in layers._asdict().items()
        },
        negative_slope=model.negative_slope,
        norm_epsilon=model.norm_epsilon,
        norm_momentum=model.norm_momentum,
        likelihood=loss.likelihood,
        scales=term_scales(loss.reduction, loss.kl_weight, image_shape, model.z_dim),
        adam=rate,
        dtype=model.dtype,
        config=configs.to_json(config),
    )


def write_images(config: ConfigDict, folder: Path, backend: str, real_data: bool) -> None:
    """Write a pool of whole batches: random images, or the first ones of the training split."""
    shape, batch_size = tuple(config.data.image_shape), config.train.batch_size
    limit = POOL_BYTES.get(backend, POOL_BYTES_ACCELERATED)
    batches = max(2, min(MAX_POOL_BATCHES, limit // (batch_size * math.prod(shape))))
    count = batches * batch_size
    if real_data:
        train = open_splits(config.data).train
        if len(train) < batch_size:
            raise UserError(f"the training split has {len(train)} images, not even one batch")
        count = min(count, len(train) // batch_size * batch_size)
        images = train.take(np.arange(count))
    else:
        rng = np.random.default_rng(config.seed)
        images = rng.integers(0, 256, (count, *shape), np.uint8)
    np.save(folder / "images.npy", images)


def write_latents(folder: Path, z_dim: int) -> None:
    """Write points of the prior to decode."""
    rng = np.random.default_rng(0)
    np.save(folder / "latents.npy", rng.standard_normal((LATENTS, z_dim), np.float32))


def compare_preparation(
    pillow: Program, how: Comparison, distinct: int, count: int
) -> dict[str, Any]:
    """Compare preparing JPEGs with a bare Pillow loop on all cores.

    Args:
        pillow: the loop.
        how: rounds and interpreter.
        distinct: procedural faces to draw.
        count: files, links to these in turn.

    Returns:
        The summary and the machine.
    """
    with tempfile.TemporaryDirectory(prefix="throughput-") as name:
        folder = Path(name)
        runner = Runner(folder, how.peer_python)
        faces.write_faces(folder / "drawn", distinct, seed=0)
        drawn = sorted((folder / "drawn" / faces.IMAGE_FOLDER).iterdir())
        jpegs = folder / faces.IMAGE_FOLDER
        jpegs.mkdir()
        for i in range(count):
            os.link(drawn[i % len(drawn)], jpegs / f"{i + 1:06d}.jpg")
        results = run_rounds(runner, (OUR_PREPARATION, pillow), how.rounds)
        machine = runner.run(MACHINE, "time")
    return summarize(results) | {"what": "prepare", "files": count, "machine": machine}
