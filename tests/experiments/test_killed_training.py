"""Real trainings under kill -9: what was acknowledged is there, and nothing else is ever read."""

from __future__ import annotations

import random
import signal
from collections import Counter
from pathlib import Path

import forks
import jax
import numpy as np
import pytest

from configs import tiny
from vae_jax.checkpoint.saving import Checkpoints, network_items
from vae_jax.run_folder import read_rows
from vae_jax.train.persistence import _training_item
from vae_jax.train.setup import make_experiment
from vae_jax.train.trainer import fit

EPOCHS, STEPS = 8, 5  # of a run, of an epoch


def config_of(store, keep_latest):
    config = tiny.get_config()
    config.data.name, config.data.path = "celeba", str(store)
    config.train.epochs, config.checkpoint.keep_latest = EPOCHS, keep_latest
    return config


def states_of(workdir, config):
    """step -> bytes of every leaf: parameters, statistics, moments, counters. All are verified."""
    shapes = jax.eval_shape(make_experiment(config, EPOCHS * STEPS).init_state)
    items = network_items(shapes.params, shapes.batch_stats) | {"training": _training_item(shapes)}
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        found = {step: checkpoints.restore(items, step).items for step in checkpoints.steps()}
    return {
        step: [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]
        for step, tree in found.items()
    }


def rows_of(workdir):
    """The rows of metrics.jsonl without the two figures that depend on the clock."""
    clock = ("images_per_second", "share_waiting")
    return [{k: v for k, v in row.items() if k not in clock} for row in read_rows(workdir)]


def bytes_of(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def uninterrupted(tiny_store, tmp_path_factory):
    """Config of the runs to kill; states, rows and bytes a step of the run that is left alone."""
    workdir = tmp_path_factory.mktemp("uninterrupted")
    fit(config_of(tiny_store, keep_latest=EPOCHS), workdir, lambda line: None)
    config = config_of(tiny_store, keep_latest=1)
    states = states_of(workdir, config)
    assert list(states) == [STEPS * epoch for epoch in range(1, EPOCHS + 1)]
    largest = max(bytes_of(workdir / "checkpoints" / str(step)) for step in states)
    return config, states, rows_of(workdir), largest


def live(workdir, config, phase, event, seconds):
    """One process from start to death (or the end): the steps it acknowledged, where it died."""
    done = forks.run(
        Path(__file__).with_name("train_and_die.py"), phase, event, seconds,
        "--config=configs/tiny.py", f"--workdir={workdir}",
        f"--config.data.name={config.data.name}", f"--config.data.path={config.data.path}",
        f"--config.train.epochs={EPOCHS}", "--config.checkpoint.keep_latest=1",
    )  # fmt: skip
    said = [line.split() for line in done.stdout.splitlines()]
    died = [words[1] for words in said if words[:1] == ["dies"]]
    assert done.returncode == (-signal.SIGKILL if died else 0), done.stdout + done.stderr
    assert "damaged" not in done.stderr  # nothing that a kill left was taken for a checkpoint
    return [int(words[1]) for words in said if words[:1] == ["saved"]], "".join(died)


def check(workdir, acknowledged, uninterrupted):
    """What lies in the workdir after a kill, or after the end."""
    config, states, rows, largest = uninterrupted
    found = states_of(workdir, config)
    assert max(found, default=0) >= acknowledged  # kept ...
    for step, state in found.items():
        assert state == states[step], step  # ... and each is the uninterrupted run's, bit for bit
    logged = rows_of(workdir)
    assert logged == rows[: len(logged)]  # none doubled, none out of order
    assert len(logged) >= 2 * max(found, default=0) // STEPS  # none missing
    # The newest, the best, one that is being written and one that is being deleted.
    assert bytes_of(workdir) < 4 * largest + 100_000
    return max(found, default=0)


def check_end(workdir, swept, uninterrupted):
    _, _, rows, _ = uninterrupted
    assert check(workdir, EPOCHS * STEPS, uninterrupted) == EPOCHS * STEPS
    assert rows_of(workdir) == rows
    if not swept:
        return  # killed after the last save: what was to be deleted lies there until the next one
    left = {path.name for path in (workdir / "checkpoints").iterdir()}
    best = min((row["loss"], row["step"]) for row in rows if row["split"] == "test")[1]
    assert left == {str(best), str(EPOCHS * STEPS)}


def kill_again_and_again(plan, folder, uninterrupted):
    """Lives of one run after the other until the plan is through; returns deaths by phase."""
    deaths, runs, plan = Counter(), 1, list(plan)
    acknowledged = 0
    while plan or acknowledged:
        phase, event, seconds = plan.pop() if plan else ("never", 0, 0)
        workdir = folder / str(runs)
        saved, died = live(workdir, uninterrupted[0], phase, event, seconds)
        acknowledged = max([acknowledged, *saved])
        if died:
            deaths[died] += 1
            acknowledged = check(workdir, acknowledged, uninterrupted)
        else:
            check_end(workdir, bool(saved), uninterrupted)
            runs, acknowledged = runs + 1, 0
            if phase != "never":
                plan.append((phase, event, 0.7 * seconds))  # it was over before: in the next run
    return deaths


def test_3_kills_change_nothing(uninterrupted, tmp_path):
    plan = [("deleting", 20, 0), ("saving", 0, 0.03), ("saving", 60, 0)]
    deaths = kill_again_and_again(plan, tmp_path, uninterrupted)
    assert deaths == {"saving": 2, "deleting": 1}


@pytest.mark.slow
def test_50_kills_change_nothing(uninterrupted, tmp_path):
    draw = random.Random(0)
    plan = [("saving", draw.randrange(1, 100), 0) for _ in range(12)]
    plan += [("saving", 0, draw.uniform(0, 0.1)) for _ in range(10)]
    plan += [("deleting", draw.randrange(1, 60), 0) for _ in range(8)]
    plan += [("deleting", 0, draw.uniform(0, 0.004)) for _ in range(4)]
    plan += [("logging", draw.randrange(1, 12), 0) for _ in range(6)]
    plan += [("anywhere", 0, draw.uniform(0, 3)) for _ in range(10)]
    draw.shuffle(plan)
    deaths = kill_again_and_again(plan, tmp_path, uninterrupted)
    assert deaths == {"saving": 22, "deleting": 12, "logging": 6, "anywhere": 10}
