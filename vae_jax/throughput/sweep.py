"""What a sweep saves as one command, start-up and compilation included."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ml_collections import ConfigDict

from vae_jax.data.splits import open_splits
from vae_jax.progress import progress
from vae_jax.throughput.compare import Comparison, prepared
from vae_jax.throughput.rounds import Program, Result, Runner
from vae_jax.throughput.summary import OURS, summarize
from vae_jax.throughput.sweeping import TOGETHER
from vae_jax.train.sweep import sweep_members

ALONE = "one by one"


def compare_sweep(config: ConfigDict, how: Comparison) -> dict[str, Any]:
    """Compare a sweep as one command with a command for each member.

    Every round starts without compiled programs; as on the command line, what one member's run
    compiles is kept for the next one.

    Args:
        config: the whole config, with a section `sweep`.
        how: rounds.

    Returns:
        `summarize`'s medians and ratios for the side 'one by one', in images of all members per
        second of whole processes, with `seconds` by side and `members`.
    """
    members = sweep_members(config)
    open_splits(config.data)  # Draws or prepares what is not there, before the clock runs.
    results: dict[str, list[Result]] = {OURS: [], ALONE: []}
    sides = {OURS: [TOGETHER], ALONE: [member.name for member in members]}
    with (
        prepared(config, "decode", replace(how, peers=())) as (runner, machine),
        progress(how.rounds * (1 + len(members)), "Timing", "processes") as advance,
    ):
        for i in range(how.rounds):
            for side, variants in list(sides.items())[:: 1 - 2 * (i % 2)]:
                results[side].append(_run(runner, f"{side}-{i}".replace(" ", "-"), variants))
                advance(len(variants), note=side)
    return summarize(results) | {
        "what": "ablation",
        "members": len(members),
        "seconds": {
            side: [result["seconds"] for result in found] for side, found in results.items()
        },
        "machine": machine,
    }


def _run(runner: Runner, action: str, variants: Sequence[str]) -> Result:
    """The processes of one side, one after the other."""
    module = "vae_jax.throughput.sweeping"
    found = [runner.run(Program(name, module, name), action) for name in variants]
    images, seconds = (sum(result[name] for result in found) for name in ("images", "seconds"))
    return {
        "images_per_second": images / seconds,
        "seconds": seconds,
        "peak_memory_mib": max(result["peak_memory_mib"] for result in found),
    }
