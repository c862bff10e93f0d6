"""Says what a resumed run may change of its config, and what it keeps."""

from __future__ import annotations

from pathlib import Path

from ml_collections import ConfigDict

from vae_jax.config import flatten, kind_of
from vae_jax.run_folder import saved_config
from vae_jax.types import UserError

# Fields that a resumed run may change: they do not touch the trajectory that is under way.
# `resolved` refuses a length of the run or of its schedule that would change it by the way.
RESUMABLE = ("train.epochs", "train.max_skipped", "optimizer.schedule_epochs", "data.path",
             "data.resident", "data.resident_gib")  # fmt: skip
RESUMABLE_SECTIONS = ("eval", "checkpoint", "log", "parallel")


def resumed(config: ConfigDict, workdir: Path) -> ConfigDict:
    """Returns the config as the run in `workdir` keeps it, see `resolved`.

    Raises:
        UserError: It would change the trajectory of the run that is there, or the folder holds
            something of another kind.
    """
    saved = saved_config(workdir, kind_of(config))
    if saved is not None:
        check_resumable(saved, config)
    return resolved(config, saved)


def check_resumable(saved: ConfigDict, config: ConfigDict) -> None:
    """Raises UserError, showing both values, where a resumed run would change its trajectory."""
    before, now = flatten(saved), flatten(config)
    for name in sorted(before.keys() | now.keys()):
        if name in RESUMABLE or name.split(".")[0] in RESUMABLE_SECTIONS:
            continue
        old, new = (flat.get(name, "absent") for flat in (before, now))
        if name == "data.digest" and "" in (old, new):
            continue  # not known yet: `open_splits` will compare it
        if name == "data.digest" and old != new:
            raise UserError(
                f"the images at {now['data.path']} are not those that this workdir was trained "
                "on; set config.data.path to where those lie, or use another workdir"
            )
        if old != new and not (isinstance(old, tuple) and list(old) == list(new)):
            raise UserError(
                f"config.{name} is {new!r}, but this workdir was trained with {old!r}; "
                "use the old value or another workdir"
            )


def resolved(config: ConfigDict, saved: ConfigDict | None = None) -> ConfigDict:
    """Returns the config as its run keeps it: with its data's digest and the schedule's length.

    Args:
        config: The validated config.
        saved: The saved config of the same run, if it has started: its schedule stays, whatever
            `train.epochs` is now, unless `config` gives another length.

    Returns:
        A copy whose `optimizer.schedule_epochs` is set where there is a schedule, and whose
        `data.digest` is that of the images the run has started with.

    Raises:
        UserError: Epochs after the end of the schedule would train nothing.
    """
    config = config.copy_and_resolve_references()
    if saved is not None:
        config.data.digest = config.data.digest or saved.data.digest
    optimizer, epochs = config.optimizer, config.train.epochs
    if optimizer.schedule == "constant":
        return config
    if not optimizer.schedule_epochs:
        started = saved.optimizer.schedule_epochs if saved else 0
        optimizer.schedule_epochs = started or epochs
    if epochs > optimizer.schedule_epochs:
        raise UserError(
            f"config.train.epochs is {epochs}, but the learning rate of this run falls to 0 in "
            f"{optimizer.schedule_epochs} epochs ({optimizer.schedule}); to train on, stretch it: "
            f"--config.optimizer.schedule_epochs={epochs} raises it again for the epochs to come"
        )
    return config
