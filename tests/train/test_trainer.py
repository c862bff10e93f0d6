"""A run: what it leaves behind, resuming bit for bit, stopping, refusing."""

import errno
import json
import os
import shutil
import signal
from functools import partial

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from stores import write_store

from vae_jax.checkpoint.digests import seal
from vae_jax.checkpoint.orbax_items import write_step
from vae_jax.checkpoint.saving import Checkpoints
from vae_jax.data.splits import open_splits
from vae_jax.run import open_run
from vae_jax.run_folder import read_config, read_rows, write_config
from vae_jax.train import task, trainer
from vae_jax.train.epoch import EpochMeans
from vae_jax.train.sweep import fit_sweep
from vae_jax.train.trainer import fit
from vae_jax.train.validation import Validator
from vae_jax.types import UserError


def quiet(*_):
    pass


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, tiny_store):
    """Two epochs of the tiny config in one go."""
    from configs import tiny

    config = tiny.get_config()
    config.data.name, config.data.path = "celeba", str(tiny_store)
    workdir = tmp_path_factory.mktemp("uninterrupted")
    said = []
    result = fit(config, workdir, said.append)
    return workdir, config, result, said


def test_a_run_leaves_config_metrics_and_checkpoints(uninterrupted):
    workdir, config, result, said = uninterrupted
    assert json.loads((workdir / "config.json").read_text())["loss"]["kl_weight"] == 3.0
    rows = read_rows(workdir)
    assert [(row["split"], row["epoch"], row["step"]) for row in rows] == [
        ("train", 1, 5), ("test", 1, 5), ("train", 2, 10), ("test", 2, 10),
    ]  # fmt: skip
    for row in rows:
        assert row["loss"] == pytest.approx(row["recon"] + row["kl_weighted"], rel=1e-6)
        assert row["elbo"] == -(row["recon_nats"] + row["kl"])
        assert row["beta"] == pytest.approx(9.0)
        assert row["kl_share"] == row["kl_weighted"] / row["loss"]
        assert row["recon_nats"] > row["entropy_floor"] > 0
    assert rows[2]["images"] == 37 and rows[3]["images"] == 11
    assert result.step == 10
    summary = said[0]
    for text in ("encoder in all", "decoder in all", "37 training", "beta 9", str(workdir)):
        assert text in summary
    layers = summary.partition("data ")[0].splitlines()
    assert max(map(len, [*layers, *said[1:]])) <= 80 and said[2].startswith("epoch 2/2  step 10")


@pytest.mark.parametrize(("seconds", "steps"), [(0.0, [5, 10]), (3600.0, [5])])
def test_a_run_is_drawn_after_its_first_epoch_and_then_once_a_while(
    tiny_config, tmp_path, monkeypatch, seconds, steps
):
    monkeypatch.setattr(trainer, "DRAWN_EVERY", seconds)
    tiny_config.train.epochs = 3
    drawn, said = [], []

    def draw(workdir):
        drawn.append(open_run(workdir).step)
        raise UserError("the disk is full")

    assert fit(tiny_config, tmp_path, said.append, draw).step == 15
    assert drawn == steps
    assert said.count("no pictures yet: the disk is full") == len(steps)


def test_a_run_that_ends_far_above_its_start_has_diverged(tiny_config, tmp_path):
    tiny_config.optimizer.learning_rate = 10.0
    said = []
    for _ in range(2):  # A second start finds it so.
        with pytest.raises(UserError, match=r"its test loss is \S+, and \S+ at first; lower"):
            fit(tiny_config, tmp_path, said.append)
    assert not any("finished already" in line for line in said)


@pytest.mark.parametrize(("images", "batch_size"), [(7, 8), (1, 1)])
def test_fewer_images_than_a_batch_are_refused(tiny_config, tmp_path, images, batch_size):
    tiny_config.data.train_count, tiny_config.train.batch_size = images, batch_size
    with pytest.raises(UserError, match=f"only {images} training images"):
        fit(tiny_config, tmp_path, quiet)


def test_interrupted_and_resumed_equals_uninterrupted_bit_for_bit(
    uninterrupted, tiny_config, tmp_path, monkeypatch, assert_same_run
):
    """Stopped in the middle of each epoch, at a step that no checkpoint schedule would choose."""
    reference, _, _, _ = uninterrupted
    for stop_after in (3, 4):
        stop_in_calls(monkeypatch, stop_after)
        result = fit(tiny_config, tmp_path, quiet)
        assert result.interrupted_by == signal.SIGTERM
    monkeypatch.undo()
    assert 0 < result.step < 10
    assert fit(tiny_config, tmp_path, quiet).step == 10
    assert_same_run(tiny_config, reference, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("resident", ["always", "never"])
def test_stopped_at_every_step_of_two_epochs_equals_uninterrupted(
    uninterrupted, tiny_config, tmp_path, monkeypatch, resident, assert_same_run
):
    reference, _, _, _ = uninterrupted
    tiny_config.data.resident = resident
    for stop_after in range(1, 10):
        workdir = tmp_path / str(stop_after)
        stop_in_calls(monkeypatch, stop_after)
        assert fit(tiny_config, workdir, quiet).step == stop_after
        monkeypatch.undo()
        assert fit(tiny_config, workdir, quiet).step == 10
        assert_same_run(tiny_config, reference, workdir)


@pytest.mark.parametrize("killed", [False, True])
def test_an_evaluation_that_is_stopped_is_made_up_for(
    uninterrupted, tiny_config, tmp_path, monkeypatch, killed, assert_same_run
):
    """Also if that is killed after its rows are logged and before they are acknowledged."""
    reference, _, _, _ = uninterrupted
    evaluate = Validator.evaluate

    def signalled(self, state, stopped):
        if int(state.step) == step:
            signal.raise_signal(signal.SIGTERM)
        return evaluate(self, state, stopped)

    for step in (5, 10):
        monkeypatch.setattr(Validator, "evaluate", signalled)
        result = fit(tiny_config, tmp_path, quiet)
        monkeypatch.undo()
        assert (result.step, result.interrupted_by) == (step, signal.SIGTERM)
        assert [row["step"] for row in read_rows(tmp_path)] == [5, 5] * (step == 10)
        if killed:
            monkeypatch.setattr("vae_jax.train.persistence.save", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                fit(tiny_config, tmp_path, quiet)
            monkeypatch.undo()
            assert read_rows(tmp_path)[-1]["step"] == step
    assert fit(tiny_config, tmp_path, quiet).step == 10
    assert_same_run(tiny_config, reference, tmp_path)


def test_the_best_step_is_that_of_the_validation_split(tiny_config, tmp_path):
    """Rows of both splits are logged; the test split chooses nothing."""
    tiny_config.data.validation_count, tiny_config.train.epochs = 5, 3  # 5 of 37 training images
    tiny_config.checkpoint.keep_latest = 1
    fit(tiny_config, tmp_path, quiet)
    rows = read_rows(tmp_path)
    assert [row["split"] for row in rows] == ["train", "validation", "test"] * 3
    assert [row["images"] for row in rows[:3]] == [32, 5, 11]
    losses = {row["step"]: row["loss"] for row in rows if row["split"] == "validation"}
    assert losses != {row["step"]: row["loss"] for row in rows if row["split"] == "test"}
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        kept = checkpoints.validation_losses()
    assert kept == {step: losses[step] for step in {12, min(losses, key=losses.__getitem__)}}


def test_a_last_save_that_fails_is_an_error_and_the_step_before_it_restores(
    tiny_config, tmp_path, monkeypatch, final_state
):
    def full(directory, step, items, record):
        if step == 10:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_step(directory, step, items, record)

    monkeypatch.setattr("vae_jax.checkpoint.saving.write_step", full)
    with pytest.raises(UserError, match=r"Step 10 .*needs up to [\d,]+ bytes and [\d,]+ bytes are"):
        fit(tiny_config, tmp_path, quiet)
    monkeypatch.undo()
    assert int(final_state(tiny_config, tmp_path).step) == 5
    assert fit(tiny_config, tmp_path, quiet).step == 10


def stop_in_calls(monkeypatch, steps):
    """Raise SIGTERM in this process once `steps` more steps are done; one step a call."""
    seen = 0
    add = EpochMeans.add

    def counting(self, metrics):
        nonlocal seen
        if "finite" in metrics:  # Training, not evaluation.
            seen += len(metrics["finite"])
            if seen == steps:
                signal.raise_signal(signal.SIGTERM)
        add(self, metrics)

    monkeypatch.setattr(EpochMeans, "add", counting)
    monkeypatch.setattr("vae_jax.train.epoch.Pace.count", lambda self, remaining: 1)


def test_more_epochs_train_on(uninterrupted, tiny_config, tmp_path, assert_same_run):
    reference, _, _, _ = uninterrupted
    tiny_config.train.epochs = 1
    assert fit(tiny_config, tmp_path, quiet).step == 5
    said = []
    assert fit(tiny_config, tmp_path, said.append).step == 5
    assert "finished already at step 5" in said[-1]
    tiny_config.train.epochs = 2
    assert fit(tiny_config, tmp_path, quiet).step == 10
    assert_same_run(tiny_config, reference, tmp_path)


def test_a_finished_run_keeps_its_config(uninterrupted, tiny_config):
    workdir, _, _, _ = uninterrupted
    before, said = (workdir / "config.json").read_bytes(), []
    tiny_config.train.epochs = 1
    assert fit(tiny_config, workdir, said.append).step == 10
    assert "finished already at step 10" in said[-1]
    assert (workdir / "config.json").read_bytes() == before


def test_what_was_altered_or_lost_in_a_run_folder_is_named(uninterrupted, tiny_config, tmp_path):
    workdir = shutil.copytree(uninterrupted[0], tmp_path / "run")
    shutil.rmtree(workdir / "checkpoints" / "5")
    path = workdir / "checkpoints" / "10" / "record" / "metadata"
    for facts, who, sentence in (
        ({"label_names": 3}, open_run, "step 10 .* altered: its label_names are 3"),
        ({"label_names": []}, partial(fit, tiny_config), "step 10 .* altered: its facts"),
    ):
        record = json.loads(path.read_text())["record"] | {"metadata": facts}
        path.write_text(json.dumps(seal(record)))
        with pytest.raises(UserError, match=sentence):
            who(workdir)
    shutil.rmtree(workdir / "checkpoints")
    with pytest.raises(UserError, match="rows up to step 10, but .*checkpoints is gone"):
        fit(tiny_config, workdir, quiet)
    assert len(read_rows(workdir)) == 4


def test_runs_and_sweeps_leave_each_others_folders_alone(uninterrupted, tiny_config, tmp_path):
    workdir, config, _, _ = uninterrupted
    before = (workdir / "config.json").read_bytes()
    with tiny_config.unlocked():
        tiny_config.sweep = ConfigDict({"seed": (0, 1), "mode": "grid", "schedule": "in_turn",
                                        "same_batches": False, "memory_gib": 0.0})  # fmt: skip
    with pytest.raises(UserError, match="holds a run, but a sweep is needed here"):
        fit_sweep(tiny_config, workdir, quiet)
    assert (workdir / "config.json").read_bytes() == before
    write_config(tmp_path, tiny_config)
    for command in (partial(fit, config), open_run):
        with pytest.raises(UserError, match="holds a sweep, but a run .*members/NAME"):
            command(tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.name[0] != "."] == ["config.json"]


def test_more_epochs_under_a_cosine_are_refused_until_it_is_stretched(tiny_config, tmp_path):
    """Stopped and resumed it is the cosine of the first start; rows say which epochs had which."""
    tiny_config.optimizer.schedule = "cosine"
    fit(tiny_config, tmp_path, quiet)
    tiny_config.train.epochs = 3
    with pytest.raises(UserError, match=r"schedule_epochs=3 raises it again"):
        fit(tiny_config, tmp_path, quiet)
    tiny_config.optimizer.schedule_epochs = 3
    assert fit(tiny_config, tmp_path, quiet).step == 15
    rows = [row for row in read_rows(tmp_path) if row["split"] == "train"]
    assert [row["schedule_epochs"] for row in rows] == [2, 2, 3]
    steps = np.arange(15)
    rates = 0.5e-3 * (1 + np.cos(np.pi * steps / np.where(steps < 10, 10, 15)))
    images = np.tile([8, 8, 8, 8, 5], 3)  # Means over an epoch count images.
    for row, rate, count in zip(rows, rates.reshape(3, 5), images.reshape(3, 5), strict=True):
        assert row["learning_rate"] == pytest.approx(np.average(rate, weights=count), rel=1e-4)


def test_a_warm_up_longer_than_the_run_is_refused(tiny_config, tmp_path):
    tiny_config.optimizer.warmup_steps = 11
    with pytest.raises(UserError, match="warmup_steps is 11, but the run has only 10 steps"):
        fit(tiny_config, tmp_path, quiet)


def test_streaming_and_resident_runs_are_equal_bit_for_bit(
    uninterrupted, tiny_config, tmp_path, assert_same_run
):
    reference, _, _, _ = uninterrupted
    tiny_config.data.resident = "never"
    fit(tiny_config, tmp_path, quiet)
    assert_same_run(tiny_config, reference, tmp_path)
    assert 0 <= read_rows(tmp_path)[0]["share_waiting"] <= 1


def test_networks_open_on_their_own(uninterrupted):
    workdir, _, _, _ = uninterrupted
    both = open_run(workdir)
    assert both.step == 10 and both.label_names == ()
    for network in ("encoder", "decoder"):
        alone = open_run(workdir, networks=(network,))
        assert alone.variables["params"].keys() == {network}
        jax.tree.map(
            np.testing.assert_array_equal,
            alone.variables["params"][network],
            both.variables["params"][network],
        )


def test_opening_nothing_says_so(tmp_path):
    with pytest.raises(UserError, match="is not a run folder"):
        open_run(tmp_path)


def test_other_images_in_the_same_workdir_are_refused(uninterrupted, tmp_path):
    """A run goes on where its images have been moved to, and not on others."""
    workdir, config = shutil.copytree(uninterrupted[0], tmp_path / "run"), uninterrupted[1]
    saved, other = read_config(workdir), config.copy_and_resolve_references()
    moved = shutil.copytree(config.data.path, tmp_path / "moved")
    other.data.path = str(moved)
    assert open_splits(other.data).digest == saved.data.digest
    fit(other, workdir, quiet)
    write_store(tmp_path / "other", np.zeros((3, 16, 16, 3), np.uint8), [0, 0, 2])
    other.data.path = str(tmp_path / "other")
    with pytest.raises(UserError, match="other are not those that this run was trained on"):
        fit(other, workdir, quiet)


def test_another_objective_in_the_same_workdir_is_refused(uninterrupted):
    workdir, config, _, _ = uninterrupted
    other = config.copy_and_resolve_references()
    other.loss.kl_weight = 5.0
    with pytest.raises(UserError, match="config.loss.kl_weight is 5.0.*3.0"):
        fit(other, workdir, quiet)


def test_ten_non_finite_steps_in_a_row_stop_the_run_and_keep_the_last_good_checkpoint(
    tiny_config, tmp_path, final_state
):
    tiny_config.train.epochs = 1
    fit(tiny_config, tmp_path, quiet)
    tiny_config.train.epochs, tiny_config.train.max_skipped = 9, 10
    said = []
    original = task.make_experiment

    def poisoned(*args):
        setup = original(*args)
        return setup._replace(hyper=setup.hyper._replace(kl_weight=float("inf")))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task, "make_experiment", poisoned)
        with pytest.raises(UserError, match="the last 1[0-9] steps up to step .* were not finite"):
            fit(tiny_config, tmp_path, said.append)
    assert any("step 5 is not finite and was skipped" in line for line in said)
    state = final_state(tiny_config, tmp_path)  # at most of the epoch within which it stopped
    assert state.step == 10 and state.skipped == 5
    assert np.isfinite(state.params["encoder"]["mean"]["bias"]).all()
