"""Trains one run, or many side by side, resumable at every step, bit for bit.

`train` is the host's side of all training: it resumes, counts epochs, obeys signals, saves, logs
rows and gives up runs that diverge, for runs that take every step together. An engine computes the
steps, plain for one run and mapped over several. `fit` trains a single run.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from vae_jax import config as configs
from vae_jax import devices
from vae_jax import run_folder as folders
from vae_jax.checkpoint.saving import Checkpoints
from vae_jax.data.splits import Splits, open_splits
from vae_jax.progress import Advance
from vae_jax.run_folder import MetricsLog, run_lock
from vae_jax.train import persistence
from vae_jax.train.classification import classifier_task
from vae_jax.train.engine import Engine, Plain
from vae_jax.train.epoch import EpochMeans, Pace, run_epoch
from vae_jax.train.interruption import StopSignals
from vae_jax.train.resuming import resumed
from vae_jax.train.rows import schedule_length
from vae_jax.train.task import Row, Task, run_summary, vae_task
from vae_jax.train.validation import Feeds, Validator, make_feeds, order_seed
from vae_jax.types import UserError

Say = Callable[[str], None]
Draw = Callable[[Path], Any]

# A run whose held-out loss is so many times that of its first step has diverged.
WORSE = 3.0
DRAWN_EVERY = 60.0  # the least number of seconds between two drawings of a run


class FitResult(NamedTuple):
    """How a run ended.

    Attributes:
        step: The step of the last checkpoint.
        interrupted_by: The number of the signal that stopped it, or None.
    """

    step: int
    interrupted_by: int | None


class Outcome(NamedTuple):
    """How one of several runs stands.

    Attributes:
        status: 'finished', 'interrupted', 'diverged' or 'failed'.
        reason: The reason in words, empty when finished.
        step: The step of its last checkpoint, 0 without one.
    """

    status: str
    reason: str
    step: int


def fit(
    config: ConfigDict, workdir: str | Path, say: Say = print, draw: Draw | None = None
) -> FitResult:
    """Trains a config, or goes on from the last checkpoint of its run folder.

    Args:
        config: The whole config of a VAE or a classifier; it is validated here.
        workdir: The run folder; gets config.json, metrics.jsonl and checkpoints/.
        say: Prints the summary and a line for each epoch.
        draw: Draws pictures of the newest checkpoint of the folder. It is called when an epoch has
            been saved: the first time, then once a minute at most, and not after the last epoch.

    Returns:
        Where the run ended.

    Raises:
        UserError: The run diverged; the config, the data or a checkpoint cannot be used; the
            workdir is in use or was trained with another config; or a checkpoint could not be
            written.
    """
    configs.validate(config)
    workdir = Path(workdir)
    say = say if devices.is_first() else lambda text: None
    with devices.held_by_first(run_lock(workdir)):
        config = resumed(config, workdir)
        # Preparing data may take long and can be killed at any time, so signals end it as usual.
        splits = devices.first_before_others(lambda: open_splits(config.data))
        config.data.digest = splits.digest
        with StopSignals() as stop:
            task = make_task(config, splits)
            feeds = make_feeds(config, splits, devices.data_mesh(config))
            say(run_summary(config, task, splits, str(workdir)))
            (outcome,) = train([config], [workdir], [task], Plain(task), feeds, stop, say, draw)
    if outcome.status == "diverged":
        raise UserError(
            f"{outcome.reason}; lower config.optimizer.learning_rate or set "
            "config.optimizer.clip_norm, and resume from the last checkpoint"
        )
    return FitResult(outcome.step, stop.received)


def make_task(config: ConfigDict, splits: Splits) -> Task:
    """Makes the task that a config trains."""
    return (classifier_task if configs.is_classifier(config) else vae_task)(config, splits)


def train(
    run_configs: Sequence[ConfigDict],
    workdirs: Sequence[Path],
    tasks: Sequence[Task],
    engine: Engine,
    feeds: Feeds,
    stop: StopSignals,
    say: Say,
    draw: Draw | None = None,
) -> list[Outcome]:
    """Trains runs side by side to the end or to a signal, or goes on where they are.

    Args:
        run_configs: The resolved configs, which differ in KL weight, learning rate, seed and Z.
        workdirs: The run folders, which the caller has locked; all are at the same step.
        tasks: The tasks of the runs.
        engine: The engine of these tasks.
        feeds: The batches.
        stop: The signals that ask to save and stop.
        say: Prints a line for each epoch.
        draw: See `fit`; for a run that is trained alone.

    Returns:
        How every run stands; one that diverges does not stop the others.

    Raises:
        UserError: A checkpoint cannot be read or written.
    """
    with ExitStack() as stack:
        runs = [
            _Run(config, workdir, task, feeds, stack)
            for config, workdir, task in zip(run_configs, workdirs, tasks, strict=True)
        ]
        trainer = _Trainer(runs, engine, feeds, stop, say, draw)
        trainer.train()
        for run in runs:
            run.checkpoints.wait()
        return [trainer.outcome(run) for run in runs]


class _Run:
    """The host's side of one run: its folder, its sums and its state."""

    def __init__(
        self, config: ConfigDict, workdir: Path, task: Task, feeds: Feeds, stack: ExitStack
    ) -> None:
        self.config, self.workdir, self.task = config, workdir, task
        self.checkpoints = stack.enter_context(
            Checkpoints(
                workdir / folders.CHECKPOINTS,
                keep_latest=config.checkpoint.keep_latest,
                keep_best=config.checkpoint.keep_best,
            )
        )
        self.state, facts = persistence.restore(self.checkpoints, task.init_state)
        self.saved_sums = facts.epoch_sums
        step, last = int(self.state.step), feeds.train.steps_per_epoch * config.train.epochs
        # Whether the epoch that ends here is still to be evaluated.
        self.untested = facts.untested(step, feeds.train.steps_per_epoch)
        if self.untested or step < last:  # A finished run keeps its config.
            devices.on_first(lambda: folders.write_config(workdir, config))
        self.log: MetricsLog | None = None
        if devices.is_first():
            self.log = MetricsLog(workdir, step - self.untested, config.log.tensorboard)
            stack.callback(self.log.close)
        self.means, self.images_before = EpochMeans(), 0.0
        self.rows: dict[str, Row] = {
            row["split"]: row for row in folders.read_rows(workdir) if row["step"] == step
        }
        self.first_loss = facts.first_loss
        self.reason = ""  # why it was given up

    def begin_epoch(self, within: bool) -> None:
        """Continues the sums of the epoch in which the run was stopped, or starts new ones."""
        self.means = EpochMeans(self.saved_sums if within else None)
        self.images_before = self.means.saved()["images"]

    def finish_epoch(
        self,
        epoch: int,
        step: int,
        seconds: float,
        waited: float,
        tested: dict[str, dict[str, float]],
    ) -> None:
        """Logs the rows of an epoch.

        Args:
            epoch: The number of the epoch that has ended, counted from 1.
            step: The step at which it has ended.
            seconds: How long it was trained since this start.
            waited: How long of that the device waited for images.
            tested: The means by held-out split; empty if it was not evaluated.
        """
        head = {"epoch": epoch, "step": step}
        self.rows = {
            split: {"split": split} | head | self.task.complete_row(split, means)
            for split, means in ({"train": self.means.means()} | tested).items()
        }
        # Neither padding nor skipped steps count as images.
        images = self.means.saved()["images"] - self.images_before
        speed = {"images_per_second": images / seconds, "share_waiting": waited / seconds}
        self.rows["train"] |= schedule_length(self.config) | speed
        if self.log is not None:
            for row in self.rows.values():
                self.log.write(row)

    def line(self) -> str:
        """Returns the epoch in one line; metrics.jsonl has every figure of it."""
        train, describe = self.rows["train"], self.task.describe
        parts = [f"epoch {train['epoch']}/{self.config.train.epochs}  step {train['step']}"]
        held_out = self._held_out()
        if "loss" not in train:
            parts.append("no step was finite")
        elif held_out is None:
            parts.append(f"train {describe(train)}")
        else:
            parts += [f"train {train['loss']:.5g}", f"{held_out['split']} {describe(held_out)}"]
        return "  ".join([*parts, f"{train['images_per_second']:,.0f} images/s"])

    def worsened(self) -> str:
        """Returns how far the run ended above where it began; empty if it did not."""
        held_out, first = self._held_out(), self.first_loss
        if held_out is None or held_out["loss"] is None or first is None:
            return ""
        if not held_out["loss"] - first > (WORSE - 1) * abs(first):
            return ""
        return f"its {held_out['split']} loss is {held_out['loss']:.4g}, and {first:.4g} at first"

    def _held_out(self) -> Row | None:
        """Returns the row of the split by which the run is judged, if there is one."""
        return self.rows.get("validation") or self.rows.get("test")

    def save(self, state: Any, batch_stats: Any, within_epoch: bool) -> None:
        """Saves the run, ranked by its validation loss if that was measured.

        Losses under a weight that a controller moves cannot be compared, and rank nothing.
        """
        sums = self.means.saved() if within_epoch else {}
        names, first = self.task.label_names, self.first_loss
        facts = persistence.Facts(configs.digest(self.config), names, sums, first)
        ranking = math.nan
        if not within_epoch and state.control is None:
            ranking = self.rows.get("validation", {}).get("loss", math.nan)
        persistence.save(self.checkpoints, state, batch_stats, ranking, facts)


class _Trainer:
    """The runs that are trained side by side, and what changes while they are."""

    def __init__(
        self,
        runs: list[_Run],
        engine: Engine,
        feeds: Feeds,
        stop: StopSignals,
        say: Say,
        draw: Draw | None,
    ) -> None:
        self.runs, self.engine, self.stop, self.say = runs, engine, stop, say
        self.draw, self.next_drawing = draw, -math.inf
        self.config = runs[0].config
        self.feed, self.program = engine.training(
            feeds.train, [order_seed(run.config) for run in runs]
        )
        self.state = engine.pack([run.state for run in runs])
        for run in runs:
            del run.state  # Its memory is used for the packed one, or free.
        self.validator = Validator(engine, feeds)
        self.pace = Pace()

    @property
    def step(self) -> int:
        """Returns the step that all runs are at."""
        return int(self.engine.each(self.state.step)[0])

    @property
    def last_step(self) -> int:
        """Returns the step at which the training ends."""
        return self.feed.steps_per_epoch * self.config.train.epochs

    def outcome(self, run: _Run) -> Outcome:
        """Returns how a run stands on disk."""
        step = run.checkpoints.latest_step() or 0
        if run.reason:
            return Outcome("diverged", run.reason, step)
        finished = step >= self.last_step and not run.untested
        if finished and run.worsened():
            return Outcome("diverged", run.worsened(), step)
        return Outcome("finished" if finished else "interrupted", "", step)

    def train(self) -> None:
        """Trains to the end, to a signal, or until no run is left."""
        step, per_epoch, untested = self.step, self.feed.steps_per_epoch, self.runs[0].untested
        if step >= self.last_step and not untested:
            if not self.runs[0].worsened():
                self.say(
                    f"finished already at step {step} (epoch {step // per_epoch}); "
                    "a larger --config.train.epochs trains on"
                )
            return
        if step:
            self.say(f"resuming at step {step} (epoch {step // per_epoch + 1 - untested})")
        with devices.progress(self.last_step, "Training", "steps", start=step) as advance:
            for epoch in range(step // per_epoch - untested, self.config.train.epochs):
                self._epoch(epoch, advance)
                if self._leaving():
                    break

    def _alive(self) -> list[_Run]:
        return [run for run in self.runs if not run.reason]

    def _leaving(self) -> bool:
        return self.stop.received is not None or not self._alive()

    def _epoch(self, epoch: int, advance: Advance) -> None:
        end = (epoch + 1) * self.feed.steps_per_epoch
        start = self.step - epoch * self.feed.steps_per_epoch
        for run in self.runs:
            run.begin_epoch(within=start > 0)
        began, waited = time.monotonic(), self.feed.seconds_waited
        calls = run_epoch(
            *(self.program, self.state, self.feed, self.engine.key, self.engine.hyper, self.pace),
            *(epoch, start),
        )
        for state, metrics in calls:
            self.state = state
            each = self.engine.each_metrics(metrics)
            for run, own in zip(self.runs, each, strict=True):
                run.means.add(own)
                if run.first_loss is None:
                    run.first_loss = float(own["loss"][0])
            self._give_up_diverged(each)
            alone = len(self.runs) == 1
            note = f"loss {each[0]['loss'][-1]:.4g}" if alone else f"{len(self._alive())} models"
            advance(len(each[0]["finite"]), note=note)
            self.stop.agree()
            if self._leaving():
                break
        if not self._alive():
            return
        if self.step < end:
            self._save(within_epoch=True)
            return
        times = (time.monotonic() - began, self.feed.seconds_waited - waited)
        self._finish_epoch(epoch + 1, *times)

    def _finish_epoch(self, epoch: int, seconds: float, waited: float) -> None:
        config, last = self.config, epoch == self.config.train.epochs
        tested: Sequence[dict[str, dict[str, float]]] = [{} for _ in self.runs]
        if last or epoch % config.eval.every_epochs == 0:
            measured = self.validator.evaluate(self.state, lambda: self.stop.received is not None)
            for run in self.runs:
                run.untested = measured is None
            if measured is None:
                self._save(within_epoch=True)
                return
            tested = measured
        for run, own in zip(self.runs, tested, strict=True):
            if not run.reason:
                run.finish_epoch(epoch, self.step, seconds, waited, own)
        self.say(self._line(epoch))
        if last or epoch % config.checkpoint.every_epochs == 0 or self.stop.received is not None:
            self._save(within_epoch=False)
            if not last and self.stop.received is None:
                self._draw()

    def _draw(self) -> None:
        """Draws pictures of what was saved; a failure to draw stops no training."""
        if self.draw is None or not devices.is_first() or time.monotonic() < self.next_drawing:
            return
        (run,) = self.runs
        run.checkpoints.wait()
        try:
            self.draw(run.workdir)
        except UserError as error:
            self.say(f"no pictures yet: {error}")
        self.next_drawing = time.monotonic() + DRAWN_EVERY

    def _line(self, epoch: int) -> str:
        if len(self.runs) == 1:
            return self.runs[0].line()
        rate = sum(run.rows["train"]["images_per_second"] for run in self._alive())
        return f"epoch {epoch}/{self.config.train.epochs}  {rate:,.0f} images/s of all models"

    def _save(self, within_epoch: bool) -> None:
        """Saves the runs; one that was given up keeps its last good checkpoint."""
        states = self.engine.unpack(self.state)
        stats = self.engine.each(self.validator.batch_stats(self.state))
        for run, state, own in zip(self.runs, states, stats, strict=True):
            if not run.reason:
                run.save(state, own, within_epoch)

    def _give_up_diverged(self, each: Sequence[dict[str, np.ndarray]]) -> None:
        """Gives up runs with `max_skipped` non-finite steps in a row; the others go on."""
        limit, step = self.config.train.max_skipped, self.step
        in_a_row = self.engine.each(self.state.skipped)
        for run, metrics, skipped in zip(self.runs, each, in_a_row, strict=True):
            if run.reason:
                continue
            finite, name = metrics["finite"], run.workdir.name
            for offset in (~finite).nonzero()[0]:
                whose = "" if len(self.runs) == 1 else f"{name}: "
                number = step - len(finite) + int(offset)
                self.say(f"{whose}step {number} is not finite and was skipped")
            if int(skipped) >= limit:
                run.reason = (
                    f"the last {int(skipped)} steps up to step {step - 1} were not finite "
                    f"(config.train.max_skipped is {limit})"
                )
