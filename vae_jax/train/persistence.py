"""Saves the state of a run as a checkpoint, and restores it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from vae_jax.checkpoint.saving import Checkpoints, SavedSteps, network_items, network_variables
from vae_jax.train.state import TrainState
from vae_jax.types import UserError


class Facts(NamedTuple):
    """What a checkpoint says besides its arrays.

    Attributes:
        config_digest: The digest of the resolved config.
        label_names: The names of the condition, empty if there is none.
        epoch_sums: The sums of `EpochMeans` if the checkpoint lies within an epoch, else empty.
        first_loss: The loss of the first step, with which later ones are compared to find that the
            run diverged; None before it.
    """

    config_digest: str
    label_names: tuple[str, ...]
    epoch_sums: dict[str, float]
    first_loss: float | None = None

    def untested(self, step: int, steps_per_epoch: int) -> bool:
        """Returns whether the epoch that ends at `step` was stopped before it was evaluated."""
        return bool(self.epoch_sums) and step % steps_per_epoch == 0


def save(
    checkpoints: Checkpoints,
    state: TrainState,
    batch_stats: Any,
    validation_loss: float,
    facts: Facts,
) -> None:
    """Saves a run: the networks with the statistics they are evaluated with, and the training.

    Args:
        checkpoints: The checkpoints of the run.
        state: The state of the run; its own running statistics are part of the training item.
        batch_stats: The statistics that the networks are evaluated with.
        validation_loss: What ranks the checkpoints; NaN if it was not measured.
        facts: The metadata.

    Raises:
        UserError: See `Checkpoints.save`.
    """
    items = network_items(state.params, batch_stats) | {"training": _training_item(state)}
    checkpoints.save(
        int(state.step), items, validation_loss=validation_loss, metadata=facts._asdict()
    )


def _training_item(state: TrainState) -> dict[str, Any]:
    names = ["step", "batch_stats", "opt_state", "skipped", "skipped_total"]
    if state.control is not None:
        names.append("control")
    return {name: getattr(state, name) for name in names}


def restore(saved: SavedSteps, init_state: Callable[[], TrainState]) -> tuple[TrainState, Facts]:
    """Returns the state of the newest good checkpoint, or the one at step 0 if there is none.

    Args:
        saved: The checkpoints of the run.
        init_state: Makes the state at step 0, which has the shapes that are expected.

    Returns:
        The state and the saved facts.

    Raises:
        UserError: See `SavedSteps.restore`.
    """
    if saved.latest_step() is None:
        return init_state(), Facts("", (), {})
    shapes = jax.eval_shape(init_state)
    items = network_items(shapes.params, shapes.batch_stats) | {"training": _training_item(shapes)}
    restored = saved.restore(items)
    training = restored.items.pop("training")
    if restored.metadata.keys() != set(Facts._fields) or int(training["step"]) != restored.step:
        raise UserError(
            f"checkpoint step {restored.step} in {saved.directory} was altered: its facts or its "
            "step are not those of a run; remove this step to resume from an older one"
        )
    logging.info("restored step %d", restored.step)
    state = TrainState(params=network_variables(restored.items)["params"], **training)
    return state, Facts(**restored.metadata)
