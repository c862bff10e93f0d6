"""A run from config to trained model: resumable at every step, bit for bit."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from vae_jax import config as configs
from vae_jax import devices
from vae_jax import run_folder as folders
from vae_jax.checkpoint.saving import Checkpoints
from vae_jax.data.splits import Splits, open_splits
from vae_jax.progress import Advance
from vae_jax.run_folder import MetricsLog, open_log, run_lock
from vae_jax.train import persistence
from vae_jax.train.epoch import EpochMeans, Pace, compiled_steps, run_epoch
from vae_jax.train.interruption import StopSignals
from vae_jax.train.rows import schedule_length
from vae_jax.train.task import MakeTask, Task, vae_task
from vae_jax.types import UserError


class DivergedError(UserError):
    """Too many steps in a row had a loss or a gradient that is not finite."""


class FitResult(NamedTuple):
    """How a run ended.

    Attributes:
        step: of the last checkpoint.
        rows: the last rows by split, `train`, `validation` and `test`; empty if no epoch ended in
            this call.
        interrupted_by: number of the signal that stopped it, or None.
    """

    step: int
    rows: dict[str, dict[str, Any]]
    interrupted_by: int | None


def fit(
    config: ConfigDict,
    workdir: str | Path,
    say: Callable[[str], None] = print,
    make_task: MakeTask = vae_task,
    splits: Splits | None = None,
) -> FitResult:
    """Train `config` in `workdir`, or go on where the last checkpoint there ends.

    Args:
        config: whole config; it is validated here.
        workdir: run folder; gets config.json, metrics.jsonl and checkpoints/.
        say: prints the summary and a line an epoch.
        make_task: says what is trained.
        splits: the data, if they are open already.

    Returns:
        Where the run ended.

    Raises:
        DivergedError: too many non-finite steps in a row.
        UserError: bad config, data or checkpoint; a workdir in use or trained with another
            config; a checkpoint that could not be written.
    """
    configs.validate(config)
    workdir = Path(workdir)
    with devices.held_by_first(run_lock(workdir)):
        saved = None
        if (workdir / folders.CONFIG_FILE).exists():
            saved = folders.read_config(workdir)
            configs.check_resumable(saved, config)
        config = configs.resolved(config, saved)
        # Preparing data may take long and can be killed at any time, so signals end it as usual.
        splits = splits or devices.first_before_others(lambda: open_splits(config.data))
        checkpoints = Checkpoints(
            workdir / folders.CHECKPOINTS,
            keep_latest=config.checkpoint.keep_latest,
            keep_best=config.checkpoint.keep_best,
        )
        with StopSignals() as stop, checkpoints:
            task = make_task(config, splits, str(workdir))
            return _Trainer(config, workdir, task, checkpoints, stop, say).run()


class _Trainer:
    """The parts of one run and what changes while it runs."""

    def __init__(
        self,
        config: ConfigDict,
        workdir: Path,
        task: Task,
        checkpoints: Checkpoints,
        stop: StopSignals,
        say: Callable[[str], None],
    ) -> None:
        self.config, self.workdir, self.checkpoints = config, workdir, checkpoints
        self.task, self.stop = task, stop
        self.say = say if devices.is_first() else lambda text: None
        self.say(task.summary)
        self.state, self.saved = persistence.restore(checkpoints, task)
        devices.on_first(lambda: folders.write_config(workdir, config))
        self.program = compiled_steps(task.train_step, donate=True)
        self.pace = Pace()
        self.rows: dict[str, dict[str, Any]] = {}

    def run(self) -> FitResult:
        step, per_epoch = int(self.state.step), self.task.feeds.train.steps_per_epoch
        last = per_epoch * self.config.train.epochs
        untested = self.saved.untested(step, per_epoch)
        if step >= last and not untested:
            self.say(
                f"finished already at step {step} (epoch {step // per_epoch}); "
                "a larger --config.train.epochs trains on"
            )
            return FitResult(step, {}, None)
        if step:
            self.say(f"resuming at step {step} (epoch {step // per_epoch + 1 - untested})")
        log = open_log(self.workdir, step - untested, self.config.log.tensorboard)
        try:
            with devices.progress(last, "Training", "steps", start=step) as advance:
                for epoch in range(step // per_epoch - untested, self.config.train.epochs):
                    self._epoch(epoch, log, advance)
                    if self.stop.received is not None:
                        break
        finally:
            log.close()
        self.checkpoints.wait()
        return FitResult(int(self.state.step), self.rows, self.stop.received)

    def _epoch(self, epoch: int, log: MetricsLog, advance: Advance) -> None:
        task, feed = self.task, self.task.feeds.train
        per_epoch = feed.steps_per_epoch
        start = int(self.state.step) - epoch * per_epoch
        means = EpochMeans(self.saved.epoch_sums if start else None)
        began, waited, seen = time.monotonic(), feed.seconds_waited, means.saved()["images"]
        calls = run_epoch(
            self.program, self.state, feed, task.run_key, task.hyper, self.pace, epoch, start
        )
        for state, metrics in calls:
            self.state = state
            means.add(metrics)
            self._check_finite(metrics["finite"])
            advance(len(metrics["finite"]), note=f"loss {metrics['loss'][-1]:.4g}")
            self.stop.agree()
            if self.stop.received is not None:
                break
        seconds = time.monotonic() - began
        done = int(self.state.step) == (epoch + 1) * per_epoch
        if not done:
            self._save(float("nan"), means.saved())
            return
        speed = {
            "images_per_second": (means.saved()["images"] - seen) / seconds,
            "share_waiting": (feed.seconds_waited - waited) / seconds,
        }
        self._finish_epoch(epoch + 1, means, speed, log)

    def _finish_epoch(
        self, epoch: int, means: EpochMeans, speed: dict[str, float], log: MetricsLog
    ) -> None:
        config, last = self.config, epoch == self.config.train.epochs
        rows = {"train": self._row("train", epoch, means.means()) | speed}
        ranking = float("nan")
        if last or epoch % config.eval.every_epochs == 0:
            tested = self.task.validator.evaluate(
                self.state, stopped=lambda: self.stop.received is not None
            )
            if tested is None:
                self._save(ranking, means.saved())
                return
            rows |= {split: self._row(split, epoch, own) for split, own in tested.items()}
            ranking = tested.get("validation", {}).get("loss", ranking)
        for row in rows.values():
            log.write(row)
        self.rows = rows
        self.say(self._epoch_line(rows))
        if last or epoch % config.checkpoint.every_epochs == 0 or self.stop.received is not None:
            self._save(ranking, {})

    def _row(self, split: str, epoch: int, means: dict[str, float]) -> dict[str, Any]:
        head = {"split": split, "epoch": epoch, "step": int(self.state.step)}
        return head | schedule_length(self.config, split) | self.task.complete_row(means)

    def _epoch_line(self, rows: dict[str, dict[str, Any]]) -> str:
        train = rows["train"]
        parts = [f"epoch {train['epoch']}/{self.config.train.epochs}  step {train['step']}"]
        parts += [
            f"{split} {self.task.describe(row)}" for split, row in rows.items() if "loss" in row
        ]
        return "  ".join([*parts, f"{train['images_per_second']:,.0f} images/s"])

    def _save(self, validation_loss: float, epoch_sums: dict[str, float]) -> None:
        persistence.save(
            self.checkpoints,
            self.state,
            self.task.validator.batch_stats(self.state),
            validation_loss,
            persistence.Facts(configs.digest(self.config), self.task.label_names, epoch_sums),
        )

    def _check_finite(self, finite: Any) -> None:
        """Stop once `max_skipped` steps in a row were skipped; the last good checkpoint stays."""
        step = int(self.state.step)
        for offset in (~finite).nonzero()[0]:
            self.say(f"step {step - len(finite) + int(offset)} is not finite and was skipped")
        limit = self.config.train.max_skipped
        if int(self.state.skipped) >= limit:
            raise DivergedError(
                f"the last {int(self.state.skipped)} steps up to step {step - 1} were not finite "
                f"(config.train.max_skipped is {limit}); lower config.optimizer.learning_rate or "
                "set config.optimizer.clip_norm, and resume from the last checkpoint"
            )
