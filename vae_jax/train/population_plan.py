"""The members of a sweep, and the groups that they are trained in."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from vae_jax import config as configs
from vae_jax.models.vae import make_vae
from vae_jax.streams import make_key
from vae_jax.types import UserError

# Sweep field -> section that holds it (None: the top) and its letter in a member's name.
AXES = {"kl_weight": ("loss", "w"), "z_dim": ("model", "z"), "learning_rate": ("optimizer", "lr"),
        "seed": (None, "s")}  # fmt: skip
# A program that keeps its inputs holds parameters, two moments and the gradient at once.
STATE_COPIES = 4
# Outputs of the layers that are kept forward, and their gradients on the way back.
ACTIVATION_COPIES = 2


class Member(NamedTuple):
    """One model of a sweep.

    Attributes:
        name: of its folder below WORKDIR/members; made of the values that it is swept in.
        config: complete, and the same as that of a run of its own.
    """

    name: str
    config: ConfigDict

    def values(self) -> dict[str, Any]:
        """KL weight, z_dim, learning rate and seed."""
        return {name: _value(self.config, name) for name in AXES}


class Group(NamedTuple):
    """Members that are trained in one go.

    Attributes:
        members: in the order of the sweep.
        together: one program steps all of them at once; else it is a single member.
        memory: estimated bytes on the device, without the images.
    """

    members: tuple[Member, ...]
    together: bool
    memory: int


class Outcome(NamedTuple):
    """How a member stands.

    Attributes:
        status: 'finished', 'interrupted', 'diverged' or 'failed'.
        reason: in words, empty when finished.
        step: of its last checkpoint, 0 without one.
    """

    status: str
    reason: str
    step: int


def sweep_members(config: ConfigDict) -> tuple[Member, ...]:
    """The members of `config.sweep`, largest z_dim first, since it is the slowest to fail.

    In mode 'grid' they are all combinations of the fields' values; in mode 'list' the i-th member
    takes the i-th value of every field. A field without values takes the config's own.

    Args:
        config: the whole config, validated.

    Returns:
        The members.

    Raises:
        UserError: no section `sweep`, lists of different lengths, or a member given twice.
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
                "config.sweep.mode is 'list', where every field gives one value a member, but "
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
    """As many digits as tell a value from every other one: 2 for 2.0, 0.05, 1e-300."""
    return repr(value).removesuffix(".0")


def _value(config: ConfigDict, axis: str) -> Any:
    section = AXES[axis][0]
    return config[axis] if section is None else config[section][axis]


def member_memory(config: ConfigDict, z_dim: int, label_dim: int = 0) -> int:
    """Estimated bytes that the training of one member needs on the device.

    4 copies of the parameters (with two moments and the gradient) and, for each image of a
    micro-batch, 2 copies of every layer's output (itself and its gradient), all in float32.
    Padding to a larger z_dim counts. The images and XLA's workspace are not included.

    Args:
        config: of the member.
        z_dim: Z that it is padded to.
        label_dim: width of the condition.

    Returns:
        Bytes.
    """
    model = make_vae(config.model, config.data.image_shape).clone(z_dim=z_dim)
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
    """What 'auto' means on a machine, and why, in words.

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
    position: Callable[[Member], float],
    label_dim: int = 0,
    devices: int = 1,
) -> tuple[Group, ...]:
    """Divide members into groups that are trained one after the other.

    'in_turn': each member alone. 'together': as many members at once as fit the budget, padded to
    the largest z_dim among them. 'mixed': the same among members of equal z_dim, so that nothing
    is padded. Only members at the same step are put together.

    Args:
        members: of the sweep, those that are not finished.
        schedule: see above.
        budget: bytes that a group may take on a device.
        position: the step that a member is at.
        label_dim: width of the condition.
        devices: that the members of a group are divided among.

    Returns:
        The groups.

    Raises:
        UserError: free bits with padding, which would count missing dimensions, or a member that
            does not fit the budget alone.
    """
    if schedule == "in_turn":
        return tuple(Group((m,), False, _own_memory(m, label_dim)) for m in members)
    alike: dict[tuple[int, float], list[Member]] = {}
    for member in members:
        z_dim, free_bits = member.config.model.z_dim, member.config.loss.free_bits
        # The floor of free bits counts for every dimension, so none may be padded.
        separate = z_dim if schedule == "mixed" or free_bits else 0
        alike.setdefault((separate, position(member)), []).append(member)
    groups = []
    for some in alike.values():
        widest = max(some, key=lambda member: member.config.model.z_dim)
        each = _own_memory(widest, label_dim)
        fitting = budget // each
        if not fitting:
            raise UserError(
                f"one member of z_dim {widest.config.model.z_dim} needs about {each / 2**30:.2f} "
                f"GiB, but config.sweep.memory_gib allows {budget / 2**30:.2f}; raise it, or "
                "lower config.train.batch_size"
            )
        fitting *= devices
        for start in range(0, len(some), fitting):
            chosen = tuple(some[start : start + fitting])
            groups.append(Group(chosen, True, each * len(chosen)))
    return tuple(groups)


def _own_memory(member: Member, label_dim: int) -> int:
    return member_memory(member.config, member.config.model.z_dim, label_dim)
