"""Trains sweeps: many runs by one command, each in a folder of its own, as if trained alone.

A sweep has one member for each combination of values; a plan says which members are done and how
the others are grouped. The members of a group run in turn (sharing data and compiled programs, bit
for bit equal to solo runs) or together (one program steps all of them).
"""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from vae_jax import config as configs
from vae_jax import devices
from vae_jax import run_folder as folders
from vae_jax.checkpoint.saving import SavedSteps
from vae_jax.data.splits import Splits, condition_names, open_splits
from vae_jax.files import json_bytes, write_file
from vae_jax.memory import machine_bytes
from vae_jax.models.vae import make_vae
from vae_jax.progress import clock
from vae_jax.run_folder import run_lock
from vae_jax.streams import make_key
from vae_jax.train import persistence
from vae_jax.train.engine import Engine, Mapped, Plain
from vae_jax.train.epoch import MAX_STEPS_A_CALL
from vae_jax.train.interruption import StopSignals
from vae_jax.train.resuming import check_resumable, resolved
from vae_jax.train.task import Task, steps_per_epoch, vae_task
from vae_jax.train.trainer import Outcome, Say, train
from vae_jax.train.validation import Feeds, make_feeds, order_seed
from vae_jax.types import UserError

# Sweep field -> the section that holds it (None for the top) and its letters in a member's name.
AXES = {"kl_weight": ("loss", "w"), "z_dim": ("model", "z"), "learning_rate": ("optimizer", "lr"),
        "seed": (None, "s")}  # fmt: skip
# A program that keeps its inputs holds parameters, two moments and the gradient at once.
STATE_COPIES = 4
# The outputs of the layers, which are kept for the backward pass, and their gradients.
ACTIVATION_COPIES = 2

RECORD = "member.json"
# The share of the memory of the machine or the device that a group may take by default.
MEMORY_SHARE = {"cpu": 0.5, "gpu": 0.8, "tpu": 0.8}
# How long the steps of a group are timed for an estimate.
ESTIMATE_SECONDS = 2.0


class Member(NamedTuple):
    """One run of a sweep.

    Attributes:
        name: The name of its folder in WORKDIR/members, made of the values that it is swept in.
        config: Its whole config, the same as that of a run of its own.
    """

    name: str
    config: ConfigDict

    def values(self) -> dict[str, Any]:
        """Returns KL weight, z_dim, learning rate and seed."""
        return {name: _value(self.config, name) for name in AXES}


class Group(NamedTuple):
    """Members that are trained at the same time.

    Attributes:
        members: The members, in the order of the sweep.
        together: Whether one program steps all of them at once; else it is a single member.
        memory: The estimated bytes on each device, without the images.
    """

    members: tuple[Member, ...]
    together: bool
    memory: int


def sweep_members(config: ConfigDict) -> tuple[Member, ...]:
    """Returns the members of `config.sweep`, largest z_dim first, so that a failure comes early.

    In mode 'grid' they are all combinations of the fields' values; in mode 'list' the i-th member
    takes the i-th value of every field. A field without values takes the config's own.

    Args:
        config: The whole config, validated.

    Raises:
        UserError: There is no section `sweep`, lists have different lengths, or a member is given
            twice.
    """
    if "sweep" not in config:
        raise UserError(
            "this config has no section `sweep`; configs/ablation_faces.py shows one to copy"
        )
    given = {name: tuple(config.sweep[name]) for name in AXES if config.sweep.get(name)}
    if config.sweep.mode == "list":
        lengths = {name: len(values) for name, values in given.items()}
        if len(set(lengths.values())) > 1:
            raise UserError(
                "config.sweep.mode is 'list', where every field gives one value per member, but "
                f"their lengths differ: {lengths}; repeat values, or leave a field empty"
            )
        combinations: Iterable[tuple[Any, ...]] = zip(*given.values(), strict=True)
    else:
        combinations = itertools.product(*given.values())
    members = [_member(config, dict(zip(given, values, strict=True))) for values in combinations]
    members = members or [_member(config, {})]
    names = [member.name for member in members]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"config.sweep gives the member {name} twice; name each once")
    return tuple(sorted(members, key=lambda member: -member.config.model.z_dim))


def _member(config: ConfigDict, values: dict[str, Any]) -> Member:
    own = config.copy_and_resolve_references()
    with own.unlocked():
        del own["sweep"]
    for name, value in values.items():
        section = AXES[name][0]
        target = own if section is None else own[section]
        target[name] = float(value) if isinstance(target[name], float) else value
    if config.sweep.same_batches and own.train.order_seed < 0:
        own.train.order_seed = config.seed
    configs.validate(own)
    name = "-".join(letter + _digits(_value(own, axis)) for axis, (_, letter) in AXES.items())
    return Member(name, own)


def _digits(value: float) -> str:
    """Writes enough digits to tell a value from every other one: 2 for 2.0, 0.05, 1e-300."""
    return repr(value).removesuffix(".0")


def _value(config: ConfigDict, axis: str) -> Any:
    section = AXES[axis][0]
    return config[axis] if section is None else config[section][axis]


def member_memory(config: ConfigDict, label_dim: int = 0) -> int:
    """Returns an estimate of the bytes that the training of one member needs on the device.

    4 copies of the parameters (with two moments and the gradient) and, for each image of a
    micro-batch, 2 copies of every layer's output (itself and its gradient), all in float32. The
    images and XLA's workspace are not included.

    Args:
        config: The config of the member; in a group, of the one with the largest z_dim.
        label_dim: The width of the condition.
    """
    model = make_vae(config.model, config.data.image_shape, configs.what_is_told(config))
    batch = config.train.batch_size // config.train.accumulate

    def trace(key: jax.Array) -> Any:
        images = jnp.zeros((batch, *model.image_shape))
        labels = jnp.zeros((batch, label_dim)) if label_dim else None
        return model.init(key, images, False, False, labels, capture_intermediates=True)

    shapes = jax.eval_shape(trace, make_key(0))
    state, outputs = (
        sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes[kind]))
        for kind in ("params", "intermediates")
    )
    return 4 * (STATE_COPIES * state + ACTIVATION_COPIES * outputs)


def resolve_schedule(schedule: str, backend: str) -> tuple[str, str]:
    """Returns what a schedule means on a machine, 'auto' above all, and why.

    Args:
        schedule: `config.sweep.schedule`.
        backend: 'cpu', 'gpu' or 'tpu'.

    Returns:
        'in_turn', 'together' or 'mixed', and the reason.
    """
    if schedule != "auto":
        return schedule, "as asked"
    if backend == "cpu":
        return "in_turn", "a CPU gains nothing from vmap, and shares the compiled program in turn"
    return "together", f"one small model leaves a {backend} idle"


def make_groups(
    members: Sequence[Member],
    schedule: str,
    budget: int,
    positions: Mapping[str, float],
    label_dim: int = 0,
    device_count: int = 1,
) -> tuple[Group, ...]:
    """Divides members into groups that are trained one after the other.

    'in_turn': each member alone. 'together': as many members at once as fit the budget, padded to
    the largest z_dim among them. 'mixed': the same among members of equal z_dim, so that nothing
    is padded. Only members at the same step are put together.

    Args:
        members: The members of the sweep that are not finished.
        schedule: See above.
        budget: The bytes that a group may take on a device.
        positions: The step that each member is at, by name.
        label_dim: The width of the condition.
        device_count: The number of devices that the members of a group are divided among.

    Raises:
        UserError: A single member does not fit the budget.
    """
    if schedule == "in_turn":
        return tuple(Group((m,), False, member_memory(m.config, label_dim)) for m in members)
    alike: dict[tuple[int, float], list[Member]] = {}
    for member in members:
        z_dim, free_bits = member.config.model.z_dim, member.config.loss.free_bits
        # The floor of free bits counts for every dimension, so none may be padded.
        separate = z_dim if schedule == "mixed" or free_bits else 0
        alike.setdefault((separate, positions[member.name]), []).append(member)
    groups = []
    for some in alike.values():
        widest = max((member.config for member in some), key=lambda config: config.model.z_dim)
        each = member_memory(widest, label_dim)
        fitting = budget // each
        if not fitting:
            raise UserError(
                f"one member of z_dim {widest.model.z_dim} needs about {each / 2**30:.2f} "
                f"GiB, but config.sweep.memory_gib allows {budget / 2**30:.2f}; raise it, or "
                "lower config.train.batch_size"
            )
        fitting *= device_count
        for start in range(0, len(some), fitting):
            chosen = tuple(some[start : start + fitting])
            groups.append(Group(chosen, True, each * -(-len(chosen) // device_count)))
    return tuple(groups)


class Plan(NamedTuple):
    """What a sweep is going to do.

    Attributes:
        config: The config of the sweep, as its folder keeps it.
        members: All members.
        outcomes: The outcomes of the members that need no more training, by name.
        groups: The groups of the others.
        schedule: 'in_turn', 'together' or 'mixed'.
        reason: Why this schedule.
        steps: The number of steps of a whole run.
    """

    config: ConfigDict
    members: tuple[Member, ...]
    outcomes: dict[str, Outcome]
    groups: tuple[Group, ...]
    schedule: str
    reason: str
    steps: int


def member_folder(workdir: str | Path, member: Member) -> Path:
    """Returns the run folder of a member."""
    return Path(workdir) / folders.MEMBERS / member.name


def read_record(folder: Path) -> dict[str, Any]:
    """Returns the record of a member's training: status, reason, seconds; empty if there is none.

    Raises:
        UserError: The file is damaged.
    """
    path = folder / RECORD
    if not path.exists():
        return {}
    try:
        record = json.loads(path.read_bytes())
        if isinstance(record["seconds"], int | float) and isinstance(record["status"], str):
            return record
    except (ValueError, LookupError, TypeError, RecursionError):
        pass
    raise UserError(f"{path} is damaged; remove it, the member's checkpoints stay")


def write_record(
    folder: Path, member: Member, outcome: Outcome, seconds: float, together: int
) -> None:
    """Writes how a member's training ended.

    Args:
        folder: The folder of the member.
        member: The member.
        outcome: How it ended.
        seconds: How long it was trained since this start; earlier starts are added.
        together: The number of members that were trained at once.
    """
    record = outcome._asdict() | {
        "config_digest": configs.digest(member.config),
        "order_seed": order_seed(member.config),
        "seconds": read_record(folder).get("seconds", 0.0) + seconds,
        "together": together,
    }
    write_file(folder / RECORD, json_bytes(record))


def make_plan(config: ConfigDict, workdir: str | Path, splits: Splits) -> Plan:
    """Returns which members a sweep has, which are done, and how the others are grouped.

    Args:
        config: The whole config, validated, with a section `sweep`.
        workdir: The folder of the sweep.
        splits: The data.

    Raises:
        UserError: See `sweep_members` and `make_groups`; a member's folder was trained with
            another config.
    """
    saved = folders.saved_config(workdir, "sweep")
    config = resolved(config, saved)  # One schedule, also for members that come later.
    members = sweep_members(config)
    per_epoch = steps_per_epoch(config, splits)
    steps = per_epoch * config.train.epochs
    outcomes, positions = {}, {}
    for member in members:
        folder = member_folder(workdir, member)
        if (own := folders.saved_config(folder, "run")) is not None:
            check_resumable(own, member.config)
        step, untested = _position(folder, per_epoch)
        positions[member.name] = step - 0.5 * untested  # put together with its like only
        record = read_record(folder)
        same = record.get("config_digest") == configs.digest(member.config)
        if same and record.get("status") == "diverged":
            outcomes[member.name] = Outcome("diverged", str(record.get("reason")), step)
        elif step >= steps and not untested:
            outcomes[member.name] = Outcome("finished", "", step)
    backend = jax.default_backend()
    schedule, reason = resolve_schedule(config.sweep.schedule, backend)
    groups = make_groups(
        [member for member in members if member.name not in outcomes],
        schedule,
        int(config.sweep.memory_gib * 2**30) or devices.on_first(lambda: _memory_budget(backend)),
        positions,
        len(condition_names(config.data, splits.train)),
        len(devices.members_devices(config.parallel.members, len(members))),
    )
    return Plan(config, members, outcomes, groups, schedule, reason, steps)


def _position(folder: Path, steps_per_epoch: int) -> tuple[int, bool]:
    """Returns a member's last step, and whether the epoch that ends there is still to be tested."""
    saved = SavedSteps(folder / folders.CHECKPOINTS)
    step = saved.latest_step()
    if step is None:
        return 0, False
    facts = persistence.Facts(**saved.read_metadata(step))
    return step, facts.untested(step, steps_per_epoch)


def _plan_mesh(plan: Plan) -> Mesh | None:
    """Returns the mesh that divides the members of each group, or the batches of one member."""
    config = plan.members[0].config
    together = [len(group.members) for group in plan.groups if group.together]
    if together:
        return devices.members_mesh(config.parallel.members, max(together))
    return devices.data_mesh(config)


def _memory_budget(backend: str) -> int:
    """Returns the bytes that a group may take when `config.sweep.memory_gib` is 0."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return int(MEMORY_SHARE.get(backend, 0.5) * stats.get("bytes_limit", machine_bytes()))


class SweepResult(NamedTuple):
    """How a sweep ended.

    Attributes:
        members: All members.
        outcomes: Their outcomes, by name.
        interrupted_by: The number of the signal that stopped it, or None.
    """

    members: tuple[Member, ...]
    outcomes: dict[str, Outcome]
    interrupted_by: int | None


def fit_sweep(config: ConfigDict, workdir: str | Path, say: Say = print) -> SweepResult:
    """Trains all members of `config.sweep` in `workdir`, or goes on where they are.

    Each member is a run folder WORKDIR/members/NAME of its own. Finished members are left alone,
    so the same command resumes, and adding a value trains only what is new.

    Args:
        config: The whole config, with a section `sweep`; it is validated here.
        workdir: The folder of the sweep; gets config.json and members/.
        say: Prints a line for each epoch, and how far the whole sweep is.

    Returns:
        How every member stands; one that diverges or fails does not stop the others.

    Raises:
        UserError: See `make_plan`; or the data cannot be used, the workdir is in use, or a
            checkpoint could not be written.
    """
    workdir = Path(workdir)
    configs.validate(config)
    # Mistakes and folders of another kind are refused before images are prepared.
    sweep_members(config)
    folders.saved_config(workdir, "sweep")
    splits = devices.first_before_others(lambda: open_splits(config.data))
    config = config.copy_and_resolve_references()
    config.data.digest = splits.digest
    say = say if devices.is_first() else lambda text: None
    with devices.held_by_first(run_lock(workdir)), StopSignals() as stop, ExitStack() as stack:
        plan = make_plan(config, workdir, splits)
        if plan.groups:  # A sweep with nothing to train keeps its config.
            devices.on_first(lambda: folders.write_config(workdir, plan.config))
        mesh = _plan_mesh(plan)
        say(
            f"{len(plan.members)} members: {len(plan.outcomes)} done, the others "
            f"{plan.schedule.replace('_', ' ')} ({plan.reason}) in {len(plan.groups)} groups"
            f" on {1 if mesh is None else mesh.size} of {len(jax.devices())} devices"
        )
        feeds = make_feeds(plan.members[0].config, splits, mesh) if plan.groups else None
        outcomes, began, trained = dict(plan.outcomes), time.monotonic(), 0
        show = stack.enter_context(
            devices.progress(len(plan.members), "Sweep", "models", start=len(plan.outcomes))
        )
        for group in plan.groups:
            if stop.received is not None:
                break
            assert feeds is not None  # as there is a group
            outcomes |= _train_group(group, workdir, splits, feeds, stop, say)
            show(len(group.members))
            trained += len(group.members)
            left = sum(len(g.members) for g in plan.groups) - trained
            seconds = time.monotonic() - began
            say(
                f"{len(plan.members) - left}/{len(plan.members)} members, "
                f"{clock(seconds)} so far, about {clock(seconds / trained * left)} to go"
            )
        for member in plan.members:
            outcomes.setdefault(member.name, Outcome("interrupted", "not started", 0))
        return SweepResult(plan.members, outcomes, stop.received)


def _train_group(
    group: Group, workdir: Path, splits: Splits, feeds: Feeds, stop: StopSignals, say: Say
) -> dict[str, Outcome]:
    began, members = time.monotonic(), group.members
    paths = [member_folder(workdir, member) for member in members]
    label = members[0].name if len(members) == 1 else f"{len(members)} together"
    if len(members) > 1:
        say(f"{label}: {', '.join(member.name for member in members)}")
    try:
        with ExitStack() as stack:
            for path in paths:
                stack.enter_context(devices.held_by_first(run_lock(path)))
            own_configs = [member.config for member in members]
            tasks = [vae_task(config, splits) for config in own_configs]
            engine = _group_engine(group, tasks, feeds)
            outcomes = train(
                *(own_configs, paths, tasks, engine, feeds, stop),
                lambda text: say(f"{label}: {text}"),
            )
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


def _group_engine(group: Group, tasks: Sequence[Task], feeds: Feeds) -> Engine:
    return Mapped(tasks, feeds.train.mesh) if group.together else Plain(*tasks)


def _measure_group(group: Group, splits: Splits, feeds: Feeds) -> tuple[float, float]:
    """Returns the seconds to compile a group's program, and those of each of its steps."""
    own_configs = [member.config for member in group.members]
    tasks = [vae_task(config, splits) for config in own_configs]
    engine = _group_engine(group, tasks, feeds)
    state = engine.pack([task.init_state() for task in tasks])
    feed, program = engine.training(feeds.train, [order_seed(config) for config in own_configs])
    segment = next(iter(feed.segments(0)))
    state, key, hyper = devices.place((state, engine.key, engine.hyper), feed.mesh)
    began, compiled, taken = time.monotonic(), 0.0, 0
    available = min(segment.end - segment.first, MAX_STEPS_A_CALL)
    count = 1
    while True:
        with devices.in_mesh(feed.mesh):
            state, _ = program(state, segment, np.int32(0), np.int32(count), key, hyper)
        jax.block_until_ready(state)
        seconds = time.monotonic() - began
        if not compiled:
            compiled, began = seconds, time.monotonic()
            continue
        taken += count
        if seconds >= ESTIMATE_SECONDS:
            return compiled, seconds / taken
        count = min(2 * count, available)


def describe_plan(plan: Plan, splits: Splits) -> str:
    """Returns members, groups, memory and estimated time, as the text of a dry run.

    The time of a step is measured for the first group, which has the largest z_dim, and taken for
    all, which overestimates the time of training.
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
        lines.append(
            f"group {number}, about {group.memory / 2**20:,.1f} MiB on each device: {names}"
        )
    if not plan.groups:
        return "\n".join([*lines, "nothing is left to train"])
    feeds = make_feeds(plan.members[0].config, splits, _plan_mesh(plan))
    compile_seconds, step_seconds = _measure_group(plan.groups[0], splits, feeds)
    programs = len({tuple(m.config.model.z_dim for m in group.members) for group in plan.groups})
    training = len(plan.groups) * plan.steps * step_seconds
    compiling = programs * compile_seconds
    lines.append(
        f"estimated time: {(training + compiling) / 60:.1f} min = {training / 60:.1f} min of steps "
        f"+ {compiling / 60:.1f} min to compile {programs} programs, from "
        f"{1e3 * step_seconds:.1f} ms per step and {compile_seconds:.1f} s to "
        "compile, measured now on group 1; evaluation is not counted"
    )
    return "\n".join(lines)
