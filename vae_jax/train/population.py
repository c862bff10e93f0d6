"""Many runs as one: the members of a sweep, each in a folder of its own, as if trained alone.

Members run in turn (sharing data and compiled programs, bit for bit equal to solo runs) or together
(one program steps all of them), see `population_plan`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from vae_jax import config as configs
from vae_jax import processes
from vae_jax import workdir as folders
from vae_jax.checkpoint.saved_steps import SavedSteps
from vae_jax.data.splits import Splits, condition_names, open_splits
from vae_jax.run_lock import run_lock
from vae_jax.train import persistence
from vae_jax.train.interruption import StopSignals
from vae_jax.train.loop import DivergedError, fit
from vae_jax.train.population_plan import (
    Group,
    Member,
    Outcome,
    make_groups,
    resolve_schedule,
    sweep_members,
)
from vae_jax.train.population_together import GroupTrainer
from vae_jax.train.sharding import data_mesh, members_mesh, members_share
from vae_jax.train.task import total_steps, vae_task
from vae_jax.train.validation import Feeds, make_feeds, order_seed

MEMBERS = "members"
RECORD = "member.json"
# Of the memory that the machine or the device has, when config.sweep.memory_gib is 0.
MEMORY_SHARE = {"cpu": 0.5, "gpu": 0.8, "tpu": 0.8}


class Plan(NamedTuple):
    """What a sweep is going to do.

    Attributes:
        members: all of them.
        outcomes: of those that need no more training, by name.
        groups: of the others.
        schedule: 'in_turn', 'together' or 'mixed'.
        reason: why this one.
        steps: of a whole run.
    """

    members: tuple[Member, ...]
    outcomes: dict[str, Outcome]
    groups: tuple[Group, ...]
    schedule: str
    reason: str
    steps: int


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


def member_folder(workdir: str | Path, member: Member) -> Path:
    """The run folder of a member."""
    return Path(workdir) / MEMBERS / member.name


def make_plan(config: ConfigDict, workdir: str | Path, splits: Splits) -> Plan:
    """Which members a sweep has, which are done, and how the others are grouped.

    Args:
        config: the whole config, with a section `sweep`.
        workdir: of the sweep.
        splits: the data.

    Returns:
        The plan.

    Raises:
        UserError: see `sweep_members` and `make_groups`; a member's folder was trained with
            another config.
    """
    configs.validate(config)
    members = sweep_members(config)
    steps = total_steps(config, splits)
    outcomes, position = {}, {}
    for member in members:
        folder = member_folder(workdir, member)
        if (folder / folders.CONFIG_FILE).exists():
            configs.check_resumable(folders.read_config(folder), member.config)
        step, untested = _position(folder, steps // config.train.epochs)
        position[member.name] = step - 0.5 * untested  # put together with its like only
        record = read_record(folder)
        if step >= steps and not untested:
            outcomes[member.name] = Outcome("finished", "", step)
        elif record.get("status") == "diverged" and record["config_digest"] == configs.digest(
            member.config
        ):
            outcomes[member.name] = Outcome("diverged", record["reason"], step)
    backend = jax.default_backend()
    schedule, reason = resolve_schedule(config.sweep.schedule, backend)
    groups = make_groups(
        [member for member in members if member.name not in outcomes],
        schedule,
        int(config.sweep.memory_gib * 2**30) or processes.on_first(lambda: memory_budget(backend)),
        lambda member: position[member.name],
        len(condition_names(config.data, splits.train)),
        len(members_share(config.parallel.members, len(members)).devices),
    )
    return Plan(members, outcomes, groups, schedule, reason, steps)


def _position(folder: Path, steps_per_epoch: int) -> tuple[int, bool]:
    """The last step of a member, and whether the epoch that ends there is still to be evaluated."""
    saved = SavedSteps(folder / folders.CHECKPOINTS)
    step = saved.latest_step()
    if step is None:
        return 0, False
    facts = persistence.Facts(**saved.read_metadata(step))
    return step, facts.untested(step, steps_per_epoch)


def plan_mesh(plan: Plan) -> Mesh | None:
    """The devices that the members of each group, or the batches of one member, are divided among.

    Returns:
        None for a single device.
    """
    config = plan.members[0].config
    together = [len(group.members) for group in plan.groups if group.together]
    if together:
        return members_mesh(config.parallel.members, max(together))
    return data_mesh(config)


def memory_budget(backend: str) -> int:
    """Bytes that a group may take when `config.sweep.memory_gib` is 0."""
    stats = jax.local_devices()[0].memory_stats() or {}
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return int(MEMORY_SHARE.get(backend, 0.5) * stats.get("bytes_limit", physical))


def read_record(folder: Path) -> dict[str, Any]:
    """What is known of a member's training: status, reason, seconds; empty if nothing is."""
    path = folder / RECORD
    return json.loads(path.read_text()) if path.exists() else {}


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
    splits = processes.first_before_others(lambda: open_splits(config.data))
    say = say if processes.is_first() else lambda text: None
    with processes.held_by_first(run_lock(workdir)), StopSignals() as stop:
        plan = make_plan(config, workdir, splits)
        processes.on_first(lambda: folders.write_config(workdir, config))
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
        if processes.several():
            raise  # The others did not fail in the same way: only a new start helps.
        reason = str(error).splitlines()[0]
        outcomes = [Outcome("failed", reason, 0) for _ in members]
    seconds = (time.monotonic() - began) / len(members)
    for member, path, outcome in zip(members, paths, outcomes, strict=True):
        if outcome.reason:
            say(f"{member.name} {outcome.status}: {outcome.reason}")
        if processes.is_first():
            _write_record(path, member, outcome, seconds, len(members))
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


def _write_record(
    path: Path, member: Member, outcome: Outcome, seconds: float, together: int
) -> None:
    record = outcome._asdict() | {
        "config_digest": configs.digest(member.config),
        "seconds": read_record(path).get("seconds", 0.0) + seconds,
        "together": together,
    }
    path.mkdir(parents=True, exist_ok=True)
    temporary = path / (RECORD + ".tmp")
    temporary.write_text(json.dumps(record, indent=2) + "\n")
    temporary.replace(path / RECORD)


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
