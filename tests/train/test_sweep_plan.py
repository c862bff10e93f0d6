"""Sweeps: which members there are, how they are grouped, what they need."""

import re

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from vae_jax.config import validate
from vae_jax.data.splits import open_splits
from vae_jax.run_folder import write_config
from vae_jax.train.engine import pad_latent, unpad_latent
from vae_jax.train.setup import make_experiment
from vae_jax.train.sweep import (
    make_groups,
    make_plan,
    member_folder,
    member_memory,
    resolve_schedule,
    sweep_members,
)
from vae_jax.types import UserError


def with_sweep(config, **fields):
    empty = {name: () for name in ("kl_weight", "z_dim", "learning_rate", "seed")}
    how = {"mode": "grid", "schedule": "auto", "same_batches": True, "memory_gib": 0.0}
    with config.unlocked():
        config.sweep = ConfigDict(empty | how | fields)
    return config


def test_a_grid_has_all_combinations_and_every_member_is_a_config_of_its_own(tiny_config):
    config = with_sweep(tiny_config, kl_weight=(0.5, 2.0), z_dim=(2, 8), seed=(0, 7))
    members = sweep_members(config)
    assert len({member.name for member in members}) == len(members) == 8
    assert [member.config.model.z_dim for member in members] == [8] * 4 + [2] * 4
    last = members[-1]
    assert last.name == "w2-z2-lr0.001-s7"
    assert last.values() == {"kl_weight": 2.0, "z_dim": 2, "learning_rate": 1e-3, "seed": 7}
    assert "sweep" not in last.config and last.config.train.order_seed == 0
    config.sweep.same_batches = False
    assert sweep_members(config)[-1].config.train.order_seed == -1


def test_a_list_pairs_the_values(tiny_config):
    config = with_sweep(tiny_config, kl_weight=(0.5, 2.0), z_dim=(2, 8), mode="list")
    assert {member.name for member in sweep_members(config)} == {
        "w0.5-z2-lr0.001-s0", "w2-z8-lr0.001-s0",
    }  # fmt: skip
    config.sweep.seed = (1, 2, 3)
    with pytest.raises(UserError, match="their lengths differ"):
        sweep_members(config)


def test_mistakes_are_named(tiny_config):
    with pytest.raises(UserError, match="no section `sweep`"):
        sweep_members(tiny_config)
    with pytest.raises(UserError, match="w1-z4-lr0.001-s0 twice"):
        sweep_members(with_sweep(tiny_config, kl_weight=(1.0, 1.0)))
    with pytest.raises(UserError, match="config.model.z_dim"):
        sweep_members(with_sweep(tiny_config, z_dim=(0,)))


def test_names_tell_values_apart_that_differ_in_the_last_digit(tiny_config):
    weights, seeds = (0.1, 0.10000001), (1234567, 1234568)
    names = {m.name for m in sweep_members(with_sweep(tiny_config, kl_weight=weights, seed=seeds))}
    assert len(names) == 4 and "w0.10000001-z4-lr0.001-s1234568" in names


def test_names_of_members_cannot_leave_the_folder(tiny_config, tmp_path):
    """They are made of checked numbers, so that no value can be a path."""
    extremes = {
        "kl_weight": (0.0, 1e-300, 123456.789), "learning_rate": (1e-30, 10.0), "seed": (2**32 - 1,)
    }  # fmt: skip
    members = sweep_members(with_sweep(tiny_config, **extremes))
    for member in members:
        assert re.fullmatch(r"[a-z0-9.+-]+", member.name)
        assert member_folder(tmp_path, member).resolve().parent == (tmp_path / "members").resolve()
    for name in ("kl_weight", "z_dim", "learning_rate", "seed"):
        for hostile in ("../../x", "/x", float("nan"), float("inf"), -1.0):
            with pytest.raises(UserError, match=f"config.*{name}"):
                validate(with_sweep(tiny_config, **{name: (hostile,)}))


def test_members_added_later_follow_the_schedule_of_the_sweep(tiny_config, tmp_path):
    tiny_config.optimizer.schedule, splits = "cosine", open_splits(tiny_config.data)
    config = with_sweep(tiny_config, seed=(0,))
    plan = make_plan(config, tmp_path, splits)
    assert plan.config.optimizer.schedule_epochs == 2
    write_config(tmp_path, plan.config)
    config.sweep.seed, config.train.epochs = (0, 1), 1
    members = make_plan(config, tmp_path, splits).members
    assert [member.config.optimizer.schedule_epochs for member in members] == [2, 2]
    config.train.epochs = 3
    with pytest.raises(UserError, match="schedule_epochs=3 raises it again"):
        make_plan(config, tmp_path, splits)


def test_groups_fit_the_budget_and_mix_only_what_may_be_mixed(tiny_config):
    config = with_sweep(tiny_config, kl_weight=(0.0, 1.0, 2.0), z_dim=(2, 8))
    members = sweep_members(config)
    each = member_memory(config, 8)

    def sizes(schedule, budget=100 * each, position=lambda member: 0, members=members):
        groups = make_groups(members, schedule, budget, position)
        assert {m.name for g in groups for m in g.members} == {m.name for m in members}
        assert all(group.memory <= budget for group in groups)
        return [len(group.members) for group in groups]

    assert sizes("in_turn") == [1] * 6
    assert sizes("together") == [6]
    assert sizes("together", budget=4 * each + 1) == [4, 2]
    assert sizes("mixed") == [3, 3]
    (divided,) = make_groups(members, "together", 100 * each, lambda member: 0, device_count=4)
    assert len(divided.members) == 6 and divided.memory == 2 * each  # 2 members on a device
    halfway = {members[0].name, members[5].name}
    assert sizes("together", position=lambda m: 5 * (m.name in halfway)) == [2, 4]
    with pytest.raises(UserError, match="raise it, or lower config.train.batch_size"):
        sizes("together", budget=each - 1)
    config.loss.free_bits = 0.1
    assert sizes("together", members=sweep_members(config)) == [3, 3]


def test_auto_is_in_turn_on_a_cpu_only():
    assert resolve_schedule("auto", "cpu")[0] == "in_turn"
    assert resolve_schedule("auto", "gpu")[0] == "together"
    assert resolve_schedule("mixed", "cpu") == ("mixed", "as asked")


def test_memory_counts_four_copies_of_the_state_and_every_output(tiny_config):
    one, two = (member_memory(tiny_config, z) for z in (4, 5))
    # A dimension more: 2 columns of 4*4*8 weights with a bias each, a row of 4*4*8 weights.
    parameters = 2 * (4 * 4 * 8 + 1) + 4 * 4 * 8
    # Its outputs: mean and log_var twice (layer and encoder), z is no module's output.
    values = (two - one) / 4 - 4 * parameters
    assert values % (2 * tiny_config.train.batch_size) == 0
    assert 2 <= values / (2 * tiny_config.train.batch_size) <= 8
    tiny_config.train.batch_size *= 2
    assert one < member_memory(tiny_config, 4) < 2 * one


def test_padding_inserts_zeros_behind_the_own_dimensions_and_is_undone(tiny_config):
    rng, states = np.random.default_rng(0), []
    for z_dim in (3, 5):
        tiny_config.model.z_dim = z_dim
        shapes = jax.eval_shape(make_experiment(tiny_config, 10, label_dim=2).init_state)
        states.append(jax.tree.map(lambda s: np.asarray(rng.normal(size=s.shape)), shapes))
    small, large = states
    padded = pad_latent(small, large, 3)
    jax.tree.map(lambda a, b: np.testing.assert_equal(a.shape, b.shape), padded, large)
    kernel = np.asarray(padded.params["decoder"]["dense"]["kernel"])  # [Z + L, features]
    own = np.asarray(small.params["decoder"]["dense"]["kernel"])
    np.testing.assert_array_equal(kernel[:3], own[:3])
    np.testing.assert_array_equal(kernel[3:5], 0)
    np.testing.assert_array_equal(kernel[5:], own[3:])  # The rows of the condition.
    np.testing.assert_array_equal(padded.params["encoder"]["mean"]["kernel"][:, 3:], 0)
    jax.tree.map(np.testing.assert_array_equal, unpad_latent(padded, small, 3), small)
