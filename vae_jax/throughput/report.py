"""Everything that the owner of an accelerator wants to know, one measurement after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ml_collections import ConfigDict

from vae_jax.throughput.compare import Comparison, compare, prepared
from vae_jax.throughput.rounds import Program

REFERENCE_IMAGES = 170_000
BATCH_FACTORS = (2, 4, 8, 16)


def report(
    config: ConfigDict, how: Comparison, show: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Compare at the config's batch size and at the best one, and time a whole run at each.

    Args:
        config: the whole config; its `data.train_count` images (0: 170,000) and `train.epochs`
            are those of the whole run.
        how: with whom and how long; larger batches are tried for one round without peers.
        show: is handed each comparison with peers as soon as it is there.

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
    """A copy of the config with another batch size."""
    other = config.copy_and_resolve_references()
    other.train.batch_size = batch_size
    return other


def whole_run(config: ConfigDict, how: Comparison) -> dict[str, Any]:
    """Seconds of all epochs on resident data, start and compilation included."""
    count = config.data.train_count or REFERENCE_IMAGES
    program = Program("whole run", "vae_jax.throughput.whole_run", str(count))
    with prepared(config, "train", replace(how, peers=())) as (runner, _):
        found = runner.run(program, "time")
    return found | {"count": count, "epochs": config.train.epochs}
