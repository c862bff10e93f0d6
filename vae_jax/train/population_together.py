"""The training of one group in one program, and what it leaves in its members' folders."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from vae_jax import config as configs
from vae_jax import devices
from vae_jax import run_folder as folders
from vae_jax.checkpoint.saving import Checkpoints
from vae_jax.data.splits import Splits, condition_names
from vae_jax.devices import host
from vae_jax.progress import Advance
from vae_jax.run_folder import open_log, run_lock
from vae_jax.train import persistence
from vae_jax.train.epoch import EpochMeans, Pace, run_epoch
from vae_jax.train.interruption import StopSignals
from vae_jax.train.population_group import (
    GroupValidator,
    each_member,
    group_feed,
    mapped_steps,
    member_metrics,
    stack_experiments,
    stack_states,
    unstack_states,
)
from vae_jax.train.population_plan import Member, Outcome
from vae_jax.train.rows import complete_row, schedule_length
from vae_jax.train.setup import make_experiment
from vae_jax.train.task import schedule_steps, total_steps
from vae_jax.train.validation import Feeds


class _MemberRun:
    """The host's side of one member: its folder, its sums, how it stands."""

    def __init__(
        self, member: Member, workdir: Path, splits: Splits, label_dim: int, stack: ExitStack
    ) -> None:
        config = member.config
        self.member, self.config = member, config
        stack.enter_context(devices.held_by_first(run_lock(workdir)))
        self.checkpoints = stack.enter_context(
            Checkpoints(
                workdir / folders.CHECKPOINTS,
                keep_latest=config.checkpoint.keep_latest,
                keep_best=config.checkpoint.keep_best,
            )
        )
        self.experiment = make_experiment(config, schedule_steps(config, splits), label_dim)
        self.state, self.facts = persistence.restore(self.checkpoints, self.experiment)
        devices.on_first(lambda: folders.write_config(workdir, config))
        step, epochs = int(self.state.step), config.train.epochs
        self.untested = self.facts.untested(step, total_steps(config, splits) // epochs)
        self.log = open_log(workdir, step - self.untested, config.log.tensorboard)
        stack.callback(self.log.close)
        self.means = EpochMeans()
        self.reason = ""

    def write_row(self, head: dict[str, Any], means: dict[str, float], speed: Any) -> None:
        """Log the figures of one split and epoch."""
        experiment = self.experiment
        model = experiment.model
        weight, shape = self.config.loss.kl_weight, model.image_shape
        row = complete_row(means, experiment.objective, weight, shape, model.z_dim, model.sample)
        self.log.write(head | row | speed)


class GroupTrainer:
    """Trains the members of one group side by side, or goes on where they are.

    Args:
        members: at the same step; they differ in KL weight, learning rate, seed and z_dim.
        workdirs: their folders.
        splits: the data.
        feeds: the batches.
        stop: asks to save and leave.
        say: prints a line an epoch.
    """

    def __init__(
        self,
        members: Sequence[Member],
        workdirs: Sequence[Path],
        splits: Splits,
        feeds: Feeds,
        stop: StopSignals,
        say: Callable[[str], None],
    ) -> None:
        self.config, self.stop, self.say = members[0].config, stop, say
        self.workdirs, self.splits, self.feeds, self.members = workdirs, splits, feeds, members
        self.label_names = condition_names(self.config.data, splits.train)

    def run(self) -> list[Outcome]:
        """Train to the end or to a signal; every member's end."""
        with ExitStack() as stack:
            self.runs = [
                _MemberRun(member, workdir, self.splits, len(self.label_names), stack)
                for member, workdir in zip(self.members, self.workdirs, strict=True)
            ]
            mesh = self.feeds.train.mesh
            self.stacked = stack_experiments([run.experiment for run in self.runs], mesh)
            self.state = stack_states(self.stacked, [run.state for run in self.runs])
            self.feed, axes = group_feed(self.feeds.train, [run.config for run in self.runs])
            self.program = mapped_steps(self.stacked.widest.train_step, axes, donate=True)
            self.validator = GroupValidator(self.config, self.stacked, self.feeds)
            self.pace = Pace()
            self._train()
            for run in self.runs:
                run.checkpoints.wait()
            return [self._outcome(run) for run in self.runs]

    def _step(self) -> int:
        return int(host(self.state.step)[0])

    def _outcome(self, run: _MemberRun) -> Outcome:
        step = run.checkpoints.latest_step() or 0
        if run.reason:
            return Outcome("diverged", run.reason, step)
        last = self.feed.steps_per_epoch * self.config.train.epochs
        finished = step == last and not run.untested
        return Outcome("finished" if finished else "interrupted", "", step)

    def _train(self) -> None:
        per_epoch, epochs = self.feed.steps_per_epoch, self.config.train.epochs
        step = self._step()
        with devices.progress(per_epoch * epochs, "Training", "steps", start=step) as advance:
            for epoch in range(step // per_epoch - self.runs[0].untested, epochs):
                self._epoch(epoch, advance)
                if self.stop.received is not None or not self._alive():
                    break

    def _alive(self) -> list[_MemberRun]:
        return [run for run in self.runs if not run.reason]

    def _epoch(self, epoch: int, advance: Advance) -> None:
        per_epoch = self.feed.steps_per_epoch
        start = self._step() - epoch * per_epoch
        for run in self.runs:
            run.means = EpochMeans(run.facts.epoch_sums if start else None)
        began, waited = time.monotonic(), self.feed.seconds_waited
        stacked, taken = self.stacked, 0
        calls = run_epoch(
            *(self.program, self.state, self.feed, stacked.keys, stacked.hyper, self.pace),
            *(epoch, start),
        )
        for state, metrics in calls:
            self.state = state
            taken += len(metrics["finite"])
            for k, run in enumerate(self.runs):
                run.means.add(member_metrics(metrics, k))
            self._check_finite()
            advance(len(metrics["finite"]), note=f"{len(self._alive())} models")
            self.stop.agree()
            if self.stop.received is not None or not self._alive():
                break
        if self._step() < (epoch + 1) * per_epoch:
            self._save({}, within_epoch=True)
            return
        seconds = time.monotonic() - began
        images = taken * self.config.train.batch_size
        self._finish_epoch(
            epoch + 1,
            {
                "images_per_second": images / seconds,  # Of each member; all run at once.
                "share_waiting": (self.feed.seconds_waited - waited) / seconds,
            },
        )

    def _finish_epoch(self, epoch: int, speed: dict[str, float]) -> None:
        config, last = self.config, epoch == self.config.train.epochs
        head = {"epoch": epoch, "step": self._step()}
        tests: list[dict[str, dict[str, float]]] = [{} for _ in self.runs]
        if last or epoch % config.eval.every_epochs == 0:
            measured = self.validator.evaluate(self.state, lambda: self.stop.received is not None)
            for run in self.runs:
                run.untested = measured is None
            if measured is None:
                self._save({}, within_epoch=True)
                return
            tests = measured
        for run, test in zip(self.runs, tests, strict=True):
            if not run.reason:
                length = schedule_length(config, "train")
                run.write_row({"split": "train"} | head | length, run.means.means(), speed)
                for split, means in test.items():
                    run.write_row({"split": split} | head, means, {})
        rate = speed["images_per_second"] * len(self.runs)
        self.say(f"epoch {epoch}/{config.train.epochs}  {rate:,.0f} images/s of all models")
        if last or epoch % config.checkpoint.every_epochs == 0 or self.stop.received is not None:
            losses = [test.get("validation", {}).get("loss", math.nan) for test in tests]
            names = [run.member.name for run in self.runs]
            self._save(dict(zip(names, losses, strict=True)))

    def _save(self, losses: dict[str, float], within_epoch: bool = False) -> None:
        states = unstack_states(self.stacked, self.state)
        stats = each_member(self.validator.batch_stats(self.state), len(self.runs))
        for run, state, own in zip(self.runs, states, stats, strict=True):
            if run.reason:
                continue  # Its last good checkpoint stays.
            sums = run.means.saved() if within_epoch else {}
            facts = persistence.Facts(configs.digest(run.config), self.label_names, sums)
            loss = losses.get(run.member.name, float("nan"))
            persistence.save(run.checkpoints, state, own, loss, facts)

    def _check_finite(self) -> None:
        """Give up members with `max_skipped` non-finite steps in a row; the others go on."""
        limit, step = self.config.train.max_skipped, self._step()
        counts = host(self.state.skipped)[: len(self.runs)]
        for run, skipped in zip(self.runs, counts, strict=True):
            if skipped >= limit and not run.reason:
                run.reason = (
                    f"the last {int(skipped)} steps up to step {step - 1} were not finite "
                    f"(config.train.max_skipped is {limit})"
                )
                self.say(f"{run.member.name} diverged: {run.reason}; the others go on")
