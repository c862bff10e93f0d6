"""Comparisons of training, decoding and preparing images, from config to summary."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from ml_collections import ConfigDict

from vae_jax import config as configs
from vae_jax.data.faces import files as faces
from vae_jax.throughput import layers as shapes
from vae_jax.throughput import tasks
from vae_jax.throughput.rounds import Program, Result, Runner, check_agreement, run_rounds
from vae_jax.throughput.summary import OURS, summarize
from vae_jax.types import UserError

OUR_SIDE = Program(OURS, "vae_jax.throughput.ours")
OUR_PREPARATION = Program(OURS, "vae_jax.throughput.preparing", "96")
MACHINE = Program("machine", "vae_jax.throughput.machine")
PROFILE = Program("profile", "vae_jax.throughput.profile")
DISTINCT_FACES = 500
# Largest relative differences; sums in another order explain no more in float32.
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

    peers: Sequence[Program]
    rounds: int
    seconds: float
    peer_python: str
    real_data: bool = False


@contextmanager
def prepared(config: ConfigDict, what: str, how: Comparison) -> Iterator[tuple[Runner, Result]]:
    """A folder with the task and its data, for as long as the context lasts.

    Args:
        config: the whole config; it is validated here.
        what: 'train' or 'decode'.
        how: seconds, interpreter and data.

    Yields:
        What starts sides on the folder, and the machine's peaks.

    Raises:
        UserError: a config that cannot be measured.
    """
    configs.validate(config)
    config = config.copy_and_resolve_references()
    config.data.path = str(Path(config.data.path).absolute())  # Sides run in another folder.
    if configs.is_classifier(config):
        raise UserError("this is the config of a classifier; give one of a VAE")
    if how.peers:
        tasks.refuse_beyond_peers(config)
    with tempfile.TemporaryDirectory(prefix="throughput-") as folder:
        runner = Runner(Path(folder), how.peer_python)
        runner.require(how.peers)
        machine = runner.run(MACHINE, "time")
        tasks.make_task(config, what, how.seconds).save(runner.folder)
        if what == "train":
            tasks.write_images(config, runner.folder, machine["backend"], how.real_data)
        else:
            tasks.write_latents(runner.folder, config.model.z_dim)
        yield runner, machine


def compare(config: ConfigDict, what: str, how: Comparison) -> dict[str, Any]:
    """Compare training or decoding.

    Args:
        config: the whole config.
        what: 'train' or 'decode'.
        how: with whom and how long.

    Returns:
        Medians and ratios as of `summarize`, the machine, operations and least memory traffic
        per image, and the numbers that the sides agreed on.

    Raises:
        UserError: a config that peers do not cover, a missing library, or sides that disagree.
    """
    with prepared(config, what, how) as (runner, machine):
        agreed = {}
        if how.peers:
            tolerances = TOLERANCES[config.model.dtype]
            agreed = check_agreement(runner, OUR_SIDE, how.peers, tolerances)
        results = run_rounds(runner, (OUR_SIDE, *how.peers), how.rounds)
        machine = best_of(machine, runner.run(MACHINE, "time"))
    facts = {
        "what": what,
        "batch_size": config.train.batch_size,
        "dtype": config.model.dtype,
        "agreed": agreed,
        "machine": machine,
        "config": json.loads(configs.to_json(config)),
    }
    return summarize(results) | limits(config, what, machine) | facts


def limits(config: ConfigDict, what: str, machine: Result) -> dict[str, Any]:
    """What an image costs at least, and what the machine could do, by arithmetic or memory."""
    layers, dtype = shapes.model_layers(config), config.model.dtype
    peaks = machine["matmul_flop_per_second"]
    found = {"peak_flop_per_second": peaks.get(dtype, peaks["float32"])}
    if what == "decode":
        return found | {"flop_per_image": shapes.decoding_flop(layers)}
    least = shapes.training_bytes(layers, config.train.batch_size, jnp.dtype(dtype).itemsize)
    return found | {
        "flop_per_image": shapes.training_flop(layers),
        "bytes_per_image": least,
        "images_per_second_at_bandwidth": machine["copy_bytes_per_second"] / least,
    }


def best_of(first: Result, second: Result) -> Result:
    """The higher peaks of two measurements of one machine, before and after the rounds."""
    peaks, others = first["matmul_flop_per_second"], second["matmul_flop_per_second"]
    bandwidth = "copy_bytes_per_second"
    return first | {
        "matmul_flop_per_second": {name: max(peaks[name], others[name]) for name in peaks},
        bandwidth: max(first[bandwidth], second[bandwidth]),
    }


def compare_preparation(pillow: Program, how: Comparison, count: int) -> dict[str, Any]:
    """Compare preparing JPEGs with a bare Pillow loop on all cores.

    Args:
        pillow: the loop.
        how: rounds.
        count: files; they are links to `DISTINCT_FACES` procedural faces.

    Returns:
        The summary and the machine.
    """
    with tempfile.TemporaryDirectory(prefix="throughput-") as name:
        folder = Path(name)
        runner = Runner(folder, how.peer_python)
        faces.write_faces(folder / "drawn", min(DISTINCT_FACES, count), seed=0)
        drawn = sorted((folder / "drawn" / faces.IMAGE_FOLDER).iterdir())
        jpegs = folder / faces.IMAGE_FOLDER
        jpegs.mkdir()
        for i in range(count):
            os.link(drawn[i % len(drawn)], jpegs / f"{i + 1:06d}.jpg")
        results = run_rounds(runner, (OUR_PREPARATION, pillow), how.rounds)
        machine = runner.run(MACHINE, "time")
    return summarize(results) | {"what": "prepare", "files": count, "machine": machine}


def profile(config: ConfigDict, how: Comparison) -> dict[str, Any]:
    """Where the time of a training step goes; see `vae_jax.throughput.profile`."""
    with prepared(config, "train", how) as (runner, machine):
        return runner.run(PROFILE, "time") | limits(config, "train", machine) | {"machine": machine}
