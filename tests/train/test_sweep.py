"""A whole sweep: resumes, adds, reports what failed; a member is what it would be alone."""

import json
import signal

import numpy as np
import pytest
from ml_collections import ConfigDict

from vae_jax.data.splits import open_splits
from vae_jax.run import open_run
from vae_jax.run_folder import read_rows
from vae_jax.train import task, trainer
from vae_jax.train.epoch import EpochMeans
from vae_jax.train.sweep import describe_plan, fit_sweep, make_plan, member_folder
from vae_jax.train.trainer import fit
from vae_jax.train.validation import Validator
from vae_jax.types import UserError

SPEED = ("images_per_second", "share_waiting")


@pytest.fixture
def sweep_config(tiny_config):
    with tiny_config.unlocked():
        tiny_config.sweep = ConfigDict(
            {"kl_weight": (0.5, 3.0), "z_dim": (2, 4), "learning_rate": (), "seed": (1,),
             "mode": "grid", "schedule": "in_turn", "same_batches": True, "memory_gib": 0.0}
        )  # fmt: skip
    return tiny_config


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
        ("together", "together"),
        pytest.param(("in_turn", "in_turn"), marks=pytest.mark.slow),
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


@pytest.mark.parametrize("schedule", ["in_turn", "together"])
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


@pytest.mark.parametrize("schedule", ["in_turn", "together"])
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
    # It is not tried again, and not forgotten.
    assert fit_sweep(sweep_config, tmp_path, quiet).outcomes == result.outcomes


def test_a_dry_run_tells_members_groups_memory_and_time_and_leaves_nothing(sweep_config, tmp_path):
    for schedule, groups in (("in_turn", 4), ("together", 1)):
        sweep_config.sweep.schedule = schedule
        splits = open_splits(sweep_config.data)
        text = describe_plan(make_plan(sweep_config, tmp_path, splits), splits)
        assert "4 members of 10 steps, 0 of them done" in text
        assert text.count("\ngroup ") == groups and "MiB on each device: w0.5-z4" in text
        assert "estimated time: " in text and "ms a step" in text
    assert not list(tmp_path.iterdir())
