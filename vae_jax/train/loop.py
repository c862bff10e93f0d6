"""A run from config to trained model: resumable at every step, bit for bit."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from vae_jax import config as configs
from vae_jax import workdir as folders
from vae_jax.checkpoint import Checkpoints
from vae_jax.data.splits import Splits, condition_names, open_splits
from vae_jax.metrics_log import MetricsLog
from vae_jax.progress import Advance, progress
from vae_jax.run_lock import run_lock
from vae_jax.train import persistence
from vae_jax.train.epoch import EpochMeans, Pace, make_run_steps, run_epoch
from vae_jax.train.interruption import StopSignals
from vae_jax.train.rows import complete_row
from vae_jax.train.setup import Experiment, make_experiment
from vae_jax.train.summary import run_summary
from vae_jax.train.validation import Validator, make_feeds
from vae_jax.types import UserError


class FitResult(NamedTuple):
    """How a run ended.

    Attributes:
        step: of the last checkpoint.
        rows: the last `train` and `test` rows by split; empty if no epoch ended in this call.
        interrupted_by: number of the signal that stopped it, or None.
    """

    step: int
    rows: dict[str, dict[str, Any]]
    interrupted_by: int | None


def fit(config: ConfigDict, workdir: str | Path, say: Callable[[str], None] = print) -> FitResult:
    """Train `config` in `workdir`, or go on where the last checkpoint there ends.

    Args:
        config: whole config; it is validated here.
        workdir: run folder; gets config.json, metrics.jsonl and checkpoints/.
        say: prints the summary and a line an epoch.

    Returns:
        Where the run ended.

    Raises:
        UserError: bad config, data or checkpoint; a workdir in use or trained with another
            config; too many non-finite steps in a row; a checkpoint that could not be written.
    """
    configs.validate(config)
    workdir = Path(workdir)
    with run_lock(workdir), StopSignals() as stop:
        if (workdir / folders.CONFIG_FILE).exists():
            configs.check_resumable(folders.read_config(workdir), config)
        splits = open_splits(config.data)
        checkpoints = Checkpoints(
            workdir / folders.CHECKPOINTS,
            keep_latest=config.checkpoint.keep_latest,
            keep_best=config.checkpoint.keep_best,
        )
        with checkpoints:
            return _Trainer(config, workdir, splits, checkpoints, stop, say).run()


class _Trainer:
    """The parts of one run and what changes while it runs."""

    def __init__(
        self,
        config: ConfigDict,
        workdir: Path,
        splits: Splits,
        checkpoints: Checkpoints,
        stop: StopSignals,
        say: Callable[[str], None],
    ) -> None:
        self.config, self.workdir, self.checkpoints = config, workdir, checkpoints
        self.stop, self.say = stop, say
        self.label_names = condition_names(config.data, splits.train)
        label_dim = len(self.label_names)
        steps_per_epoch = -(-len(splits.train) // config.train.batch_size)
        self.experiment: Experiment = make_experiment(
            config, steps_per_epoch * config.train.epochs, label_dim
        )
        say(run_summary(config, self.experiment.model, splits, str(workdir), label_dim))
        self.state, self.saved = persistence.restore(checkpoints, self.experiment)
        folders.write_config(workdir, config)
        self.feeds = make_feeds(config, splits)
        self.validator = Validator(config, self.experiment, self.feeds)
        self.program = jax.jit(make_run_steps(self.experiment.train_step), donate_argnums=0)
        self.pace = Pace()
        self.rows: dict[str, dict[str, Any]] = {}

    def run(self) -> FitResult:
        step, per_epoch = int(self.state.step), self.feeds.train.steps_per_epoch
        last = per_epoch * self.config.train.epochs
        if step >= last:
            self.say(
                f"finished already at step {step} (epoch {step // per_epoch}); "
                "a larger --config.train.epochs trains on"
            )
            return FitResult(step, {}, None)
        if step:
            self.say(f"resuming at step {step} (epoch {step // per_epoch + 1})")
        log = MetricsLog(self.workdir, step, self.config.log.tensorboard)
        try:
            with progress(last, "Training", "steps", start=step) as advance:
                for epoch in range(step // per_epoch, self.config.train.epochs):
                    self._epoch(epoch, log, advance)
                    if self.stop.received is not None:
                        break
        finally:
            log.close()
        self.checkpoints.wait()
        return FitResult(int(self.state.step), self.rows, self.stop.received)

    def _epoch(self, epoch: int, log: MetricsLog, advance: Advance) -> None:
        feed, per_epoch = self.feeds.train, self.feeds.train.steps_per_epoch
        start = int(self.state.step) - epoch * per_epoch
        means = EpochMeans(self.saved.epoch_sums if start else None)
        began, waited, seen = time.monotonic(), feed.seconds_waited, means.saved()["images"]
        experiment = self.experiment
        calls = run_epoch(
            self.program,
            self.state,
            feed,
            experiment.run_key,
            experiment.hyper,
            self.pace,
            epoch,
            start,
        )
        for state, metrics in calls:
            self.state = state
            means.add(metrics)
            self._check_finite(metrics["finite"])
            advance(len(metrics["finite"]), note=f"loss {metrics['loss'][-1]:.4g}")
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
        self._finish_epoch(epoch + 1, means.means(), speed, log)

    def _finish_epoch(
        self, epoch: int, means: dict[str, float], speed: dict[str, float], log: MetricsLog
    ) -> None:
        config, last = self.config, epoch == self.config.train.epochs
        rows = {"train": self._row("train", epoch, means) | speed}
        test_loss = float("nan")
        if last or epoch % config.eval.every_epochs == 0:
            rows["test"] = self._row("test", epoch, self.validator.evaluate(self.state))
            test_loss = rows["test"]["loss"]
        for row in rows.values():
            log.write(row)
        self.rows = rows
        self.say(_epoch_line(rows, config.train.epochs))
        if last or epoch % config.checkpoint.every_epochs == 0 or self.stop.received is not None:
            self._save(test_loss, {})

    def _row(self, split: str, epoch: int, means: dict[str, float]) -> dict[str, Any]:
        config, model = self.config, self.experiment.model
        head = {"split": split, "epoch": epoch, "step": int(self.state.step)}
        weight, shape = float(config.loss.kl_weight), model.image_shape
        return head | complete_row(
            means, self.experiment.objective, weight, shape, config.model.z_dim
        )

    def _save(self, test_loss: float, epoch_sums: dict[str, float]) -> None:
        persistence.save(
            self.checkpoints,
            self.state,
            self.validator.batch_stats(self.state),
            test_loss,
            persistence.Facts(configs.digest(self.config), self.label_names, epoch_sums),
        )

    def _check_finite(self, finite: Any) -> None:
        """Stop once `max_skipped` steps in a row were skipped; the last good checkpoint stays."""
        step = int(self.state.step)
        for offset in (~finite).nonzero()[0]:
            self.say(f"step {step - len(finite) + int(offset)} is not finite and was skipped")
        limit = self.config.train.max_skipped
        if int(self.state.skipped) >= limit:
            raise UserError(
                f"the last {int(self.state.skipped)} steps up to step {step - 1} were not finite "
                f"(config.train.max_skipped is {limit}); lower config.optimizer.learning_rate or "
                "set config.optimizer.clip_norm, and resume from the last checkpoint"
            )


def _epoch_line(rows: dict[str, dict[str, Any]], epochs: int) -> str:
    train = rows["train"]
    parts = [f"epoch {train['epoch']}/{epochs}  step {train['step']}"]
    for split, row in rows.items():
        if "loss" in row:
            parts.append(
                f"{split} loss {row['loss']:.5g} = recon {row['recon']:.5g} + "
                f"KL {row['kl_weighted']:.4g} ({row['kl']:.3g} nats, {row['kl_share']:.2%})"
            )
    parts.append(f"{train['images_per_second']:,.0f} images/s")
    return "  ".join(parts)
