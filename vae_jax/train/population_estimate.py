"""What a sweep is going to take: members, groups, memory and time, without training anything."""

from __future__ import annotations

import time
from typing import NamedTuple

import jax
import numpy as np

from vae_jax.data.splits import Splits, condition_names
from vae_jax.devices import in_mesh, place
from vae_jax.train.epoch import MAX_STEPS_A_CALL, compiled_steps
from vae_jax.train.population_group import (
    group_feed,
    mapped_steps,
    stack_experiments,
    stack_states,
)
from vae_jax.train.population_plan import Group
from vae_jax.train.population_progress import Plan, plan_mesh
from vae_jax.train.setup import make_experiment
from vae_jax.train.task import schedule_steps
from vae_jax.train.validation import Feeds, make_feeds

# How long steps are timed for.
SECONDS = 2.0


class StepTime(NamedTuple):
    """A measured program.

    Attributes:
        compile_seconds: of the first call.
        step_seconds: of each step after that.
    """

    compile_seconds: float
    step_seconds: float


def measure_group(group: Group, splits: Splits, feeds: Feeds) -> StepTime:
    """Time the training program of a group on its own batches.

    Args:
        group: whose program is timed.
        splits: the data.
        feeds: the batches.

    Returns:
        Seconds for all members of the group at once.
    """
    configs = [member.config for member in group.members]
    label_dim = len(condition_names(configs[0].data, splits.train))
    steps = schedule_steps(configs[0], splits)
    experiments = [make_experiment(config, steps, label_dim) for config in configs]
    feed, axes = group_feed(feeds.train, configs)
    if group.together:
        stacked = stack_experiments(experiments, feed.mesh)
        state = stack_states(stacked, [experiment.init_state() for experiment in experiments])
        program = mapped_steps(stacked.widest.train_step, axes, donate=True)
        key, hyper = stacked.keys, stacked.hyper
    else:
        (experiment,) = experiments
        state, program = experiment.init_state(), compiled_steps(experiment.train_step, donate=True)
        key, hyper = experiment.run_key, experiment.hyper
    segment = next(iter(feed.segments(0)))
    state, key, hyper = place((state, key, hyper), feed.mesh)
    began, compiled, taken = time.monotonic(), 0.0, 0
    available = min(segment.end - segment.first, MAX_STEPS_A_CALL)
    count = 1
    while True:
        with in_mesh(feed.mesh):
            state, _ = program(state, segment, np.int32(0), np.int32(count), key, hyper)
        jax.block_until_ready(state)
        seconds = time.monotonic() - began
        if not compiled:
            compiled, began = seconds, time.monotonic()
            continue
        taken += count
        if seconds >= SECONDS:
            return StepTime(compiled, seconds / taken)
        count = min(2 * count, available)


def describe_plan(plan: Plan, splits: Splits) -> str:
    """Members, groups, memory and estimated time, as text.

    The time of a step is measured for the first group, which has the largest z_dim, and taken for
    all: an upper estimate of training alone.

    Args:
        plan: of the sweep.
        splits: the data.

    Returns:
        Lines for a `--dry_run`.
    """
    lines = [
        f"{len(plan.members)} members of {plan.steps:,} steps, {len(plan.outcomes)} of them done; "
        f"{plan.schedule.replace('_', ' ')}: {plan.reason}"
    ]
    for member in plan.members:
        outcome = plan.outcomes.get(member.name)
        lines.append(f"  {member.name}: {outcome.status if outcome else 'to be trained'}")
    for number, group in enumerate(plan.groups, start=1):
        names = ", ".join(member.name for member in group.members)
        lines.append(f"group {number}, about {group.memory / 2**20:,.1f} MiB: {names}")
    if not plan.groups:
        return "\n".join([*lines, "nothing is left to train"])
    feeds = make_feeds(plan.members[0].config, splits, plan_mesh(plan))
    measured = measure_group(plan.groups[0], splits, feeds)
    programs = len({tuple(m.config.model.z_dim for m in group.members) for group in plan.groups})
    training = len(plan.groups) * plan.steps * measured.step_seconds
    compiling = programs * measured.compile_seconds
    lines.append(
        f"estimated time: {(training + compiling) / 60:.1f} min = {training / 60:.1f} min of steps "
        f"+ {compiling / 60:.1f} min to compile {programs} programs, from "
        f"{1e3 * measured.step_seconds:.1f} ms a step and {measured.compile_seconds:.1f} s to "
        "compile, measured now on group 1; evaluation is not counted"
    )
    return "\n".join(lines)
