"""How far a sweep is, by what lies in its folder, and what is left to do."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from vae_jax import config as configs
from vae_jax import devices
from vae_jax import run_folder as folders
from vae_jax.checkpoint.saving import SavedSteps
from vae_jax.data.splits import Splits, condition_names
from vae_jax.devices import data_mesh, members_mesh, members_share
from vae_jax.train import persistence
from vae_jax.train.population_plan import (
    Group,
    Member,
    Outcome,
    make_groups,
    resolve_schedule,
    sweep_members,
)
from vae_jax.train.task import total_steps
from vae_jax.train.validation import order_seed

MEMBERS = "members"
RECORD = "member.json"
# Of the memory that the machine or the device has, when config.sweep.memory_gib is 0.
MEMORY_SHARE = {"cpu": 0.5, "gpu": 0.8, "tpu": 0.8}


class Plan(NamedTuple):
    """What a sweep is going to do.

    Attributes:
        config: of the sweep, as it is kept.
        members: all of them.
        outcomes: of those that need no more training, by name.
        groups: of the others.
        schedule: 'in_turn', 'together' or 'mixed'.
        reason: why this one.
        steps: of a whole run.
    """

    config: ConfigDict
    members: tuple[Member, ...]
    outcomes: dict[str, Outcome]
    groups: tuple[Group, ...]
    schedule: str
    reason: str
    steps: int


def member_folder(workdir: str | Path, member: Member) -> Path:
    """The run folder of a member."""
    return Path(workdir) / MEMBERS / member.name


def read_record(folder: Path) -> dict[str, Any]:
    """What is known of a member's training: status, reason, seconds; empty if nothing is."""
    path = folder / RECORD
    return json.loads(path.read_text()) if path.exists() else {}


def write_record(
    folder: Path, member: Member, outcome: Outcome, seconds: float, together: int
) -> None:
    """Keep how a member's training ended.

    Args:
        folder: the member's.
        member: which one.
        outcome: how it ended.
        seconds: of this start; those of earlier starts are added.
        together: how many members were trained at once.
    """
    record = outcome._asdict() | {
        "config_digest": configs.digest(member.config),
        "order_seed": order_seed(member.config),
        "seconds": read_record(folder).get("seconds", 0.0) + seconds,
        "together": together,
    }
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / (RECORD + ".tmp")
    temporary.write_text(json.dumps(record, indent=2) + "\n")
    temporary.replace(folder / RECORD)


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
    saved = None
    if (Path(workdir) / folders.CONFIG_FILE).exists():
        saved = folders.read_config(workdir)
    config = configs.resolved(config, saved)  # One schedule, also for members that come later.
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
        int(config.sweep.memory_gib * 2**30) or devices.on_first(lambda: memory_budget(backend)),
        lambda member: position[member.name],
        len(condition_names(config.data, splits.train)),
        len(members_share(config.parallel.members, len(members)).devices),
    )
    return Plan(config, members, outcomes, groups, schedule, reason, steps)


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
