"""Many runs as one: the members of a sweep, each in a folder of its own, as if trained alone.

Members run in turn (sharing data and compiled programs, bit for bit equal to solo runs) or together
(one program steps all of them), see `population_plan`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from vae_jax import config as configs
from vae_jax import devices
from vae_jax import run_folder as folders
from vae_jax.checkpoint.saving import SavedSteps
from vae_jax.data.splits import Splits, open_splits
from vae_jax.run_folder import run_lock
from vae_jax.train.interruption import StopSignals
from vae_jax.train.loop import DivergedError, fit
from vae_jax.train.population_plan import Group, Member, Outcome
from vae_jax.train.population_progress import make_plan, member_folder, plan_mesh, write_record
from vae_jax.train.population_together import GroupTrainer
from vae_jax.train.task import vae_task
from vae_jax.train.validation import Feeds, make_feeds, order_seed


class PopulationResult(NamedTuple):
    """How a sweep ended.

    Attributes:
        members: all of them.
        outcomes: by name.
        interrupted_by: number of the signal that stopped it, or None.
    """

    members: tuple[Member, ...]
    outcomes: dict[str, Outcome]
    interrupted_by: int | None


def fit_population(
    config: ConfigDict, workdir: str | Path, say: Callable[[str], None] = print
) -> PopulationResult:
    """Train all members of `config.sweep` in `workdir`, or go on where they are.

    Each member is a run folder WORKDIR/members/NAME of its own. Finished members are left alone,
    so the same command resumes, and adding a value trains only what is new.

    Args:
        config: the whole config, with a section `sweep`.
        workdir: gets config.json and members/.
        say: prints a line an epoch, and how far the whole sweep is.

    Returns:
        How every member stands; a diverged or failed one does not stop the others.

    Raises:
        UserError: see `make_plan`; bad data, a workdir in use, or a checkpoint that could not be
            written.
    """
    workdir = Path(workdir)
    configs.validate(config)
    splits = devices.first_before_others(lambda: open_splits(config.data))
    say = say if devices.is_first() else lambda text: None
    with devices.held_by_first(run_lock(workdir)), StopSignals() as stop:
        plan = make_plan(config, workdir, splits)
        devices.on_first(lambda: folders.write_config(workdir, plan.config))
        mesh = plan_mesh(plan)
        say(
            f"{len(plan.members)} members: {len(plan.outcomes)} done, the others "
            f"{plan.schedule.replace('_', ' ')} ({plan.reason}) in {len(plan.groups)} groups"
            f" on {1 if mesh is None else mesh.size} of {len(jax.devices())} devices"
        )
        feeds = make_feeds(plan.members[0].config, splits, mesh) if plan.groups else None
        outcomes, began, trained = dict(plan.outcomes), time.monotonic(), 0
        for group in plan.groups:
            if stop.received is not None:
                break
            assert feeds is not None  # as there is a group
            outcomes |= _train_group(group, workdir, splits, feeds, stop, say)
            trained += len(group.members)
            left = sum(len(g.members) for g in plan.groups) - trained
            seconds = time.monotonic() - began
            say(
                f"{len(plan.members) - left}/{len(plan.members)} members, "
                f"{_clock(seconds)} so far, about {_clock(seconds / trained * left)} to go"
            )
        for member in plan.members:
            waiting = Outcome("interrupted", "not started", 0)
            outcomes.setdefault(member.name, waiting)
        return PopulationResult(plan.members, outcomes, stop.received)


def _train_group(
    group: Group,
    workdir: Path,
    splits: Splits,
    feeds: Feeds,
    stop: StopSignals,
    say: Callable[[str], None],
) -> dict[str, Outcome]:
    began, members = time.monotonic(), group.members
    paths = [member_folder(workdir, member) for member in members]
    label = members[0].name if len(members) == 1 else f"{len(members)} together"
    tell = partial(_tell, say, label)
    try:
        if group.together:
            tell(", ".join(member.name for member in members))
            outcomes = GroupTrainer(members, paths, splits, feeds, stop, tell).run()
        else:
            outcomes = [_fit_alone(members[0], paths[0], splits, feeds, stop, tell)]
    except jax.errors.JaxRuntimeError as error:
        if devices.several():
            raise  # The others did not fail in the same way: only a new start helps.
        reason = str(error).splitlines()[0]
        outcomes = [Outcome("failed", reason, 0) for _ in members]
    seconds = (time.monotonic() - began) / len(members)
    for member, path, outcome in zip(members, paths, outcomes, strict=True):
        if outcome.reason:
            say(f"{member.name} {outcome.status}: {outcome.reason}")
        if devices.is_first():
            write_record(path, member, outcome, seconds, len(members))
    return {member.name: outcome for member, outcome in zip(members, outcomes, strict=True)}


def _fit_alone(
    member: Member,
    path: Path,
    splits: Splits,
    feeds: Feeds,
    stop: StopSignals,
    say: Callable[[str], None],
) -> Outcome:
    own = feeds._replace(train=feeds.train.reordered(order_seed(member.config)))
    try:
        result = fit(member.config, path, say, partial(vae_task, feeds=own), splits)
    except DivergedError as error:
        saved = SavedSteps(path / folders.CHECKPOINTS)
        return Outcome("diverged", str(error), saved.latest_step() or 0)
    if result.interrupted_by is not None:
        stop.received = result.interrupted_by
        return Outcome("interrupted", "", result.step)
    return Outcome("finished", "", result.step)


def _tell(say: Callable[[str], None], label: str, text: str) -> None:
    if "\n" not in text:  # The tables of a run's summary would be repeated for every member.
        say(f"{label}: {text}")


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
