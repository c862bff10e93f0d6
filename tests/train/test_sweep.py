"""Sweeps: which members there are, how they are grouped, and that each equals its solo run."""

import json
import re
import signal

import numpy as np
import pytest
from ml_collections import ConfigDict

from vae_jax.config import validate
from vae_jax.data.splits import open_splits
from vae_jax.run import open_run
from vae_jax.run_folder import read_rows, write_config
from vae_jax.train import task, trainer
from vae_jax.train.epoch import EpochMeans
from vae_jax.train.sweep import (
    describe_plan,
    fit_sweep,
    make_groups,
    make_plan,
    member_folder,
    member_memory,
    read_record,
    resolve_schedule,
    sweep_members,
)
from vae_jax.train.trainer import fit
from vae_jax.train.validation import Validator
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
    each = member_memory(members[0].config)

    def sizes(schedule, budget=100 * each, ahead=(), members=members):
        positions = {m.name: 5 * (m.name in ahead) for m in members}
        groups = make_groups(members, schedule, budget, positions)
        assert {m.name for g in groups for m in g.members} == {m.name for m in members}
        assert all(group.memory <= budget for group in groups)
        return [len(group.members) for group in groups]

    assert sizes("in_turn") == [1] * 6
    assert sizes("together") == [6]
    assert sizes("together", budget=4 * each + 1) == [4, 2]
    assert sizes("mixed") == [3, 3]
    (divided,) = make_groups(
        members, "together", 100 * each, dict.fromkeys([m.name for m in members], 0), device_count=4
    )
    assert len(divided.members) == 6 and divided.memory == 2 * each  # 2 members on a device
    halfway = {members[0].name, members[5].name}
    assert sizes("together", ahead=halfway) == [2, 4]
    with pytest.raises(UserError, match="raise it, or lower config.train.batch_size"):
        sizes("together", budget=each - 1)
    config.loss.free_bits = 0.1
    assert sizes("together", members=sweep_members(config)) == [3, 3]


def test_a_group_takes_half_of_what_the_container_may_hold(tiny_config, tmp_path, monkeypatch):
    config = with_sweep(tiny_config, seed=(0, 1), schedule="together")
    limit = tmp_path / "memory.max"
    limit.write_text("40000\n")
    monkeypatch.setattr("vae_jax.memory.CONTROL_GROUP_LIMITS", (limit,))
    with pytest.raises(UserError, match="needs about .* but config.sweep.memory_gib allows 0.00"):
        make_plan(config, tmp_path / "sweep", open_splits(config.data))


def test_auto_is_in_turn_on_a_cpu_only():
    assert resolve_schedule("auto", "cpu")[0] == "in_turn"
    assert resolve_schedule("auto", "gpu")[0] == "together"
    assert resolve_schedule("mixed", "cpu") == ("mixed", "as asked")


def test_memory_counts_four_copies_of_the_state_and_every_output(tiny_config):
    assert tiny_config.model.z_dim == 4
    one = member_memory(tiny_config)
    tiny_config.model.z_dim = 5
    two = member_memory(tiny_config)
    # A dimension more: 2 columns of 4*4*8 weights with a bias each, a row of 4*4*8 weights.
    parameters = 2 * (4 * 4 * 8 + 1) + 4 * 4 * 8
    # Its outputs: mean and log_var twice (layer and encoder), z is no module's output.
    values = (two - one) / 4 - 4 * parameters
    assert values % (2 * tiny_config.train.batch_size) == 0
    assert 2 <= values / (2 * tiny_config.train.batch_size) <= 8
    tiny_config.train.batch_size *= 2
    assert two < member_memory(tiny_config) < 2 * two


@pytest.fixture
def sweep_config(tiny_config):
    axes = {"kl_weight": (0.5, 3.0), "z_dim": (2, 4), "seed": (1,)}
    return with_sweep(tiny_config, schedule="in_turn", **axes)


def quiet(*_):
    pass


def test_a_member_in_turn_is_its_solo_run_bit_for_bit(sweep_config, tmp_path, assert_same_run):
    result = fit_sweep(sweep_config, tmp_path / "sweep", quiet)
    assert {outcome.status for outcome in result.outcomes.values()} == {"finished"}
    for member in result.members:
        folder, alone = member_folder(tmp_path / "sweep", member), tmp_path / member.name
        fit(member.config, alone, quiet)
        assert_same_run(member.config, folder, alone)
        assert open_run(folder).model.z_dim == member.config.model.z_dim


def test_a_finished_sweep_is_left_alone_and_a_new_value_trains_only_what_is_new(
    sweep_config, tmp_path, monkeypatch
):
    fit_sweep(sweep_config, tmp_path, quiet)
    said, trained = [], []
    monkeypatch.setattr(
        "vae_jax.train.sweep.train",
        lambda members, *rest: trained.extend(members) or trainer.train(members, *rest),
    )
    result = fit_sweep(sweep_config, tmp_path, said.append)
    assert not trained and "4 done" in said[0]
    assert {outcome.status for outcome in result.outcomes.values()} == {"finished"}
    sweep_config.sweep.kl_weight = (0.5, 1.0, 3.0)
    result = fit_sweep(sweep_config, tmp_path, quiet)
    assert [config.loss.kl_weight for config in trained] == [1.0, 1.0] and len(result.outcomes) == 6
    sweep_config.train.batch_size = 4
    with pytest.raises(UserError, match="config.train.batch_size is 4"):
        fit_sweep(sweep_config, tmp_path, quiet)


@pytest.mark.parametrize(
    "schedules",
    [
        ("in_turn", "in_turn"),
        pytest.param(("together", "together"), marks=pytest.mark.slow),
        pytest.param(("in_turn", "together"), marks=pytest.mark.slow),
    ],
)
def test_an_evaluation_that_is_stopped_is_made_up_for(
    sweep_config, tmp_path, monkeypatch, schedules
):
    """That of the last epoch, after which there is nothing to train."""
    sweep_config.sweep.schedule, sweep_config.sweep.z_dim = schedules[0], (4,)
    evaluate = Validator.evaluate

    def stopping(self, state, stopped):
        if np.max(state.step) == 10:
            signal.raise_signal(signal.SIGTERM)
        return evaluate(self, state, stopped)

    monkeypatch.setattr(Validator, "evaluate", stopping)
    result = fit_sweep(sweep_config, tmp_path, quiet)
    monkeypatch.undo()
    assert {outcome.status for outcome in result.outcomes.values()} == {"interrupted"}
    sweep_config.sweep.schedule = schedules[1]
    result = fit_sweep(sweep_config, tmp_path, quiet)
    assert {outcome.status for outcome in result.outcomes.values()} == {"finished"}
    assert [outcome.step for outcome in result.outcomes.values()] == [10, 10]
    for member in result.members:
        rows = read_rows(member_folder(tmp_path, member))
        assert [(row["split"], row["step"]) for row in rows] == [
            ("train", 5), ("test", 5), ("train", 10), ("test", 10),
        ]  # fmt: skip
    assert not make_plan(sweep_config, tmp_path, open_splits(sweep_config.data)).groups


@pytest.mark.parametrize("schedule", [pytest.param("in_turn", marks=pytest.mark.slow), "together"])
def test_an_interrupted_sweep_resumes(
    sweep_config, tmp_path, monkeypatch, schedule, assert_same_run
):
    sweep_config.sweep.schedule = schedule
    reference = fit_sweep(sweep_config, tmp_path / "reference", quiet)
    seen = 0
    add = EpochMeans.add

    def stopping(self, metrics):
        nonlocal seen
        if "finite" in metrics:
            seen += 1
            if seen == 7:
                signal.raise_signal(signal.SIGTERM)
        add(self, metrics)

    monkeypatch.setattr(EpochMeans, "add", stopping)
    result = fit_sweep(sweep_config, tmp_path / "cut", quiet)
    assert result.interrupted_by == signal.SIGTERM
    assert "interrupted" in {outcome.status for outcome in result.outcomes.values()}
    monkeypatch.undo()
    result = fit_sweep(sweep_config, tmp_path / "cut", quiet)
    assert result.interrupted_by is None
    assert {outcome.status for outcome in result.outcomes.values()} == {"finished"}
    for member in reference.members:
        folders = [member_folder(tmp_path / name, member) for name in ("reference", "cut")]
        assert_same_run(member.config, *folders)


@pytest.mark.parametrize("schedule", [pytest.param("in_turn", marks=pytest.mark.slow), "together"])
def test_a_diverged_member_is_reported_and_the_others_finish(
    sweep_config, tmp_path, monkeypatch, schedule
):
    sweep_config.sweep.schedule, sweep_config.train.max_skipped = schedule, 3
    original = task.make_experiment

    def poisoned(config, *rest):
        experiment = original(config, *rest)
        if config.loss.kl_weight == 0.5 and config.model.z_dim == 2:
            hyper = experiment.hyper._replace(kl_weight=float("inf"))
            return experiment._replace(hyper=hyper)
        return experiment

    monkeypatch.setattr(task, "make_experiment", poisoned)
    said = []
    result = fit_sweep(sweep_config, tmp_path, said.append)
    ends = {name: outcome.status for name, outcome in result.outcomes.items()}
    assert sorted(ends.values()) == ["diverged", "finished", "finished", "finished"]
    bad = result.outcomes["w0.5-z2-lr0.001-s1"]
    assert bad.status == "diverged" and "were not finite" in bad.reason
    assert any("w0.5-z2-lr0.001-s1 diverged" in line for line in said)
    record = json.loads((tmp_path / "members" / "w0.5-z2-lr0.001-s1" / "member.json").read_text())
    assert record["status"] == "diverged" and record["seconds"] > 0
    for broken in (b"{", b"{}", b"[]", b"\xff", b'{"seconds": "x", "status": "finished"}'):
        (tmp_path / "member.json").write_bytes(broken)
        with pytest.raises(UserError, match="member.json is damaged; remove it"):
            read_record(tmp_path)
    # It is not tried again, and not forgotten.
    assert fit_sweep(sweep_config, tmp_path, quiet).outcomes == result.outcomes


def test_a_dry_run_tells_members_groups_memory_and_time_and_leaves_nothing(sweep_config, tmp_path):
    for schedule, groups in (("in_turn", 4), ("together", 1)):
        sweep_config.sweep.schedule = schedule
        splits = open_splits(sweep_config.data)
        text = describe_plan(make_plan(sweep_config, tmp_path, splits), splits)
        assert "4 members of 10 steps, 0 of them done" in text
        assert text.count("\ngroup ") == groups and "MiB on each device: w0.5-z4" in text
        assert "estimated time: " in text and "ms per step" in text
    assert not list(tmp_path.iterdir())
