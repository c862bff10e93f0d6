"""Compares speeds: of training, of decoding, of preparing images and of sweeps."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from ml_collections import ConfigDict

from experiments.speed import layers as shapes
from experiments.speed import programs, tasks
from experiments.speed.programs import OURS, Program
from experiments.speed.rounds import Runner, check_agreement, run_rounds
from experiments.speed.side import Result
from experiments.speed.summary import summarize
from vae_jax import config as configs
from vae_jax.data.faces import files as faces
from vae_jax.data.splits import open_splits
from vae_jax.progress import progress
from vae_jax.train.sweep import sweep_members
from vae_jax.types import UserError

DISTINCT_FACES = 500
REFERENCE_IMAGES = 170_000  # of a whole run
BATCH_FACTORS = (2, 4, 8, 16)
ALONE = "one by one"
# Largest relative differences; sums in another order explain no more in float32.
TOLERANCES = {
    "float32": {"loss": 1e-4, "grad_norm": 1e-3, "pixel_std": 1e-4},
    "bfloat16": {"loss": 5e-3, "grad_norm": 0.1, "pixel_std": 2e-2},
}


@dataclass(frozen=True)
class Comparison:
    """How to compare.

    Attributes:
        peers: The programs to compare with; may be empty.
        rounds: How often each side is timed.
        seconds: How long each time, besides start, compilation and warm-up.
        peer_python: The interpreter of peers that need the extra `benchmark`.
        real_data: Whether to take the images of `config.data`, not random ones.
    """

    peers: Sequence[Program]
    rounds: int
    seconds: float
    peer_python: str
    real_data: bool = False


@contextmanager
def prepared(config: ConfigDict, what: str, how: Comparison) -> Iterator[tuple[Runner, Result]]:
    """Yields a folder with the task and its data, for as long as the context lasts.

    Args:
        config: The whole config; it is validated here.
        what: 'train' or 'decode'.
        how: Its seconds, interpreter and data are used.

    Yields:
        The runner of sides on the folder, and the facts of the machine.

    Raises:
        UserError: The config cannot be measured.
    """
    configs.validate(config)
    config = config.copy_and_resolve_references()
    config.data.path = str(Path(config.data.path).absolute())  # Sides run in another folder.
    if configs.is_classifier(config):
        raise UserError("this is the config of a classifier; give one of a VAE")
    if how.peers:
        tasks.refuse_beyond_peers(config)
    with tempfile.TemporaryDirectory(prefix="speed-") as folder:
        runner = Runner(Path(folder), how.peer_python)
        runner.require(how.peers)
        machine = runner.run(programs.MACHINE, "time")
        tasks.make_task(config, what, how.seconds).save(runner.folder)
        if what == "train":
            tasks.write_images(config, runner.folder, machine["backend"], how.real_data)
        else:
            tasks.write_latents(runner.folder, config.model.z_dim)
        yield runner, machine


def compare(config: ConfigDict, what: str, how: Comparison) -> dict[str, Any]:
    """Compares training or decoding.

    Args:
        config: The whole config.
        what: 'train' or 'decode'.
        how: How to compare.

    Returns:
        Medians and ratios as of `summarize`, the machine, operations and least memory traffic
        per image, and the numbers that the sides agreed on.

    Raises:
        UserError: Peers do not cover the config, a library is missing, or sides disagree.
    """
    ours = programs.TRAIN if what == "train" else programs.DECODE
    with prepared(config, what, how) as (runner, machine):
        agreed = {}
        if how.peers:
            tolerances = TOLERANCES[config.model.dtype]
            agreed = check_agreement(runner, ours, how.peers, tolerances)
        results = run_rounds(runner, (ours, *how.peers), how.rounds)
        machine = best_of(machine, runner.run(programs.MACHINE, "time"))
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
    """Returns the least cost of an image, and the speed that the machine could reach with it."""
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
    """Returns the higher peaks of two measurements of one machine, before and after the rounds."""
    peaks, others = first["matmul_flop_per_second"], second["matmul_flop_per_second"]
    bandwidth = "copy_bytes_per_second"
    return first | {
        "matmul_flop_per_second": {name: max(peaks[name], others[name]) for name in peaks},
        bandwidth: max(first[bandwidth], second[bandwidth]),
    }


def compare_preparation(how: Comparison, count: int) -> dict[str, Any]:
    """Compares preparing JPEGs with a bare Pillow loop on all cores.

    Args:
        how: Its rounds are used.
        count: The number of files, which are links to `DISTINCT_FACES` procedural faces.

    Returns:
        Medians and ratios as of `summarize`, and the machine.
    """
    with tempfile.TemporaryDirectory(prefix="speed-") as name:
        folder = Path(name)
        runner = Runner(folder, how.peer_python)
        faces.write_faces(folder / "drawn", min(DISTINCT_FACES, count), seed=0)
        drawn = sorted((folder / "drawn" / faces.IMAGE_FOLDER).iterdir())
        jpegs = folder / faces.IMAGE_FOLDER
        jpegs.mkdir()
        for i in range(count):
            os.link(drawn[i % len(drawn)], jpegs / f"{i + 1:06d}.jpg")
        results = run_rounds(runner, (programs.PREPARE, programs.PILLOW), how.rounds)
        machine = runner.run(programs.MACHINE, "time")
    return summarize(results) | {"what": "prepare", "files": count, "machine": machine}


def profile(config: ConfigDict, how: Comparison) -> dict[str, Any]:
    """Measures where the time of a training step goes; see `experiments.speed.profile`."""
    with prepared(config, "train", how) as (runner, machine):
        found = runner.run(programs.PROFILE, "time")
    return found | limits(config, "train", machine) | {"machine": machine}


def compare_sweep(config: ConfigDict, how: Comparison) -> dict[str, Any]:
    """Compares a sweep as one command with a command for each member.

    Every round starts without compiled programs; as on the command line, what one member's run
    compiles is kept for the next one.

    Args:
        config: The whole config, with a section `sweep`.
        how: Its rounds are used.

    Returns:
        Medians and ratios as of `summarize` for the side 'one by one', in images of all members
        per second of whole processes, with `seconds` by side and the number of `members`.
    """
    members = sweep_members(config)
    open_splits(config.data)  # Draws or prepares what is missing before the clock starts.
    results: dict[str, list[Result]] = {OURS: [], ALONE: []}
    sides = {OURS: [""], ALONE: [member.name for member in members]}
    with (
        prepared(config, "decode", replace(how, peers=())) as (runner, machine),
        progress(how.rounds * (1 + len(members)), "Timing", "processes") as advance,
    ):
        for i in range(how.rounds):
            for side, names in list(sides.items())[:: 1 - 2 * (i % 2)]:
                results[side].append(_run_commands(runner, f"{side}-{i}".replace(" ", "-"), names))
                advance(len(names), note=side)
    return summarize(results) | {
        "what": "sweep",
        "members": len(members),
        "seconds": {
            side: [result["seconds"] for result in found] for side, found in results.items()
        },
        "machine": machine,
    }


def _run_commands(runner: Runner, action: str, members: Sequence[str]) -> Result:
    """Runs the processes of one side, one after the other."""
    found = [runner.run(programs.sweep(member), action) for member in members]
    images, seconds = (sum(result[name] for result in found) for name in ("images", "seconds"))
    return {
        "images_per_second": images / seconds,
        "seconds": seconds,
        "peak_memory_mib": max(result["peak_memory_mib"] for result in found),
    }


def report(
    config: ConfigDict, how: Comparison, show: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Compares at the config's batch size and at the best one, and times a whole run at each.

    Args:
        config: The whole config; its `data.train_count` images (0: 170,000) and `train.epochs`
            are those of the whole run.
        how: How to compare; larger batches are tried for one round without peers.
        show: Called with each comparison with peers as soon as it is measured.

    Returns:
        The comparison at the config's batch size, with `batch_sizes` (images/s by batch size),
        `best_batch` (the comparison there) and `whole_runs` (seconds by batch size).
    """
    own = config.train.batch_size
    first = compare(config, "train", how)
    show(first)
    speeds = {own: first["images_per_second"]}
    for factor in BATCH_FACTORS:
        larger = with_batch(config, factor * own)
        alone = compare(larger, "train", replace(how, peers=(), rounds=1))
        speeds[factor * own] = alone["images_per_second"]
    best = max(speeds, key=speeds.__getitem__)
    at_best = first
    if best != own:
        at_best = compare(with_batch(config, best), "train", how)
        show(at_best)
    runs = {str(size): whole_run(with_batch(config, size), how) for size in sorted({own, best})}
    return first | {
        "what": "report",
        "batch_sizes": {str(size): speed for size, speed in speeds.items()},
        "best_batch": at_best,
        "whole_runs": runs,
    }


def with_batch(config: ConfigDict, batch_size: int) -> ConfigDict:
    """Returns a copy of the config with another batch size."""
    other = config.copy_and_resolve_references()
    other.train.batch_size = batch_size
    return other


def whole_run(config: ConfigDict, how: Comparison) -> dict[str, Any]:
    """Returns the seconds of all epochs on resident data, start and compilation included."""
    count = config.data.train_count or REFERENCE_IMAGES
    with prepared(config, "train", replace(how, peers=())) as (runner, _):
        found = runner.run(programs.whole_run(count), "time")
    return found | {"count": count, "epochs": config.train.epochs}
