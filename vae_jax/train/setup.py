"""From a config to the functions and numbers of a run: the edge where the config is unpacked."""

from __future__ import annotations

from typing import NamedTuple

import jax
import optax
from ml_collections import ConfigDict

from vae_jax.config import what_is_told
from vae_jax.data.inputs import CLEAN, InputStage, make_input_stage
from vae_jax.losses import Objective
from vae_jax.models.vae import VAE, make_vae
from vae_jax.schedules import kl_schedule, learning_rate_schedule
from vae_jax.streams import make_key
from vae_jax.train.state import Hyper, TrainState, init_state, make_optimizer
from vae_jax.train.step import Step, make_train_step


class Experiment(NamedTuple):
    """What a config means, ready to be jitted.

    Attributes:
        model: The module.
        objective: The static part of the objective.
        tx: The optimiser without its learning rate.
        train_step: The pure training step.
        hyper: The traced hyperparameters of this config.
        run_key: The key that every random draw of the run derives from.
        label_dim: The width of the condition; 0 for none.
        controlled: Whether a controller holds a target rate.
        stage: How inputs and targets are made of images.
    """

    model: VAE
    objective: Objective
    tx: optax.GradientTransformation
    train_step: Step
    hyper: Hyper
    run_key: jax.Array
    label_dim: int
    controlled: bool
    stage: InputStage = CLEAN

    def init_state(self) -> TrainState:
        """Makes the state at step 0."""
        return init_state(self.model, self.tx, self.run_key, self.label_dim, self.controlled)


def make_experiment(config: ConfigDict, total_steps: int, label_dim: int = 0) -> Experiment:
    """Unpacks a validated config.

    Configs that differ only in numbers that are traced (seed, KL weight, learning rate) get the
    same `train_step` object, and so share the program that is compiled from it.

    Args:
        config: The whole config.
        total_steps: The number of steps over which a falling learning rate falls.
        label_dim: The width of the condition; 0 for none.

    Returns:
        The parts of the run.

    Raises:
        UserError: The model's layers do not fit the image shape.
    """
    loss, optimizer = config.loss, config.optimizer
    model = make_vae(config.model, tuple(config.data.image_shape), what_is_told(config))
    stage = make_input_stage(config.data)
    objective = Objective(loss.likelihood, loss.reduction, loss.free_bits, loss.sigma)
    tx = make_optimizer(optimizer.b1, optimizer.b2, optimizer.epsilon, optimizer.clip_norm)
    train_step = make_train_step(
        model,
        objective,
        tx,
        kl_schedule(loss.kl_schedule, loss.kl_schedule_steps, loss.kl_cycles, loss.kl_cycle_ramp),
        learning_rate_schedule(optimizer.schedule, optimizer.warmup_steps, total_steps),
        stage,
        config.train.accumulate,
        loss.target_rate,
    )
    hyper = Hyper(float(loss.kl_weight), float(optimizer.learning_rate))
    run_key, is_controlled = make_key(config.seed), loss.target_rate > 0
    return Experiment(
        model, objective, tx, train_step, hyper, run_key, label_dim, is_controlled, stage
    )
