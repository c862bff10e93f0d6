"""Members together in one program: each follows its own solo run, and none disturbs another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.data.splits import open_splits
from vae_jax.train.epoch import Pace, compiled_steps, run_epoch
from vae_jax.train.population_group import (
    GroupValidator,
    group_feed,
    mapped_steps,
    stack_experiments,
    stack_states,
    unstack_states,
)
from vae_jax.train.setup import make_experiment
from vae_jax.train.state import Hyper
from vae_jax.train.validation import Validator, make_feeds
from vae_jax.types import UserError

STEPS = 100


def configs_of(config, members):
    for kl_weight, learning_rate, seed, z_dim in members:
        own = config.copy_and_resolve_references()
        own.loss.kl_weight, own.optimizer.learning_rate = kl_weight, learning_rate
        own.seed, own.model.z_dim, own.train.order_seed = seed, z_dim, 0
        yield own


def steps(program, state, feed, key, hyper):
    """Losses of `STEPS` steps, epoch after epoch, and the last state."""
    losses, pace = [], Pace()
    for epoch in range(STEPS // feed.steps_per_epoch):
        calls = list(run_epoch(program, state, feed, key, hyper, pace, epoch))
        state = calls[-1][0]
        losses += [metrics["loss"] for _, metrics in calls]
    return np.concatenate(losses), state


def together(own_configs, feeds, poison=None):
    experiments = [make_experiment(config, STEPS) for config in own_configs]
    if poison is not None:
        hyper = experiments[poison].hyper._replace(kl_weight=float("nan"))
        experiments[poison] = experiments[poison]._replace(hyper=hyper)
    stacked = stack_experiments(experiments)
    state = stack_states(stacked, [experiment.init_state() for experiment in experiments])
    feed, axes = group_feed(feeds.train, own_configs)
    program = mapped_steps(stacked.widest.train_step, axes, donate=True)
    losses, state = steps(program, state, feed, stacked.keys, stacked.hyper)
    return stacked, losses, state


@pytest.mark.parametrize("reduction", ["channel_mean", "mean"])
def test_members_follow_their_solo_runs(tiny_config, reduction):
    """Different KL weight, learning rate, seed and z_dim; 1e-4 relative over 100 steps."""
    tiny_config.loss.reduction = reduction
    weight = 3.0 if reduction == "channel_mean" else 1e-2
    members = [(weight, 1e-3, 0, 4), (0.1 * weight, 2e-3, 1, 2), (0.0, 5e-4, 2, 2)]
    own_configs = list(configs_of(tiny_config, members))
    feeds = make_feeds(tiny_config, open_splits(tiny_config.data))
    stacked, losses, state = together(own_configs, feeds)
    # Of the two sizes; with 'mean', where Z scales the loss, the padded one is enough.
    for k in {"channel_mean": (0, 1), "mean": (1,)}[reduction]:
        experiment = make_experiment(own_configs[k], STEPS)
        program = compiled_steps(experiment.train_step, donate=True)
        start = experiment.init_state()
        alone, end = steps(program, start, feeds.train, experiment.run_key, experiment.hyper)
        assert len(alone) == STEPS
        np.testing.assert_allclose(losses[:, k], alone, rtol=1e-4)
        unpadded = unstack_states(stacked, state)[k]
        jax.tree.map(lambda a, b: np.testing.assert_equal(a.shape, b.shape), unpadded, end)


def test_a_member_that_diverges_changes_no_other_by_a_bit(tiny_config):
    members = [(3.0, 1e-3, 0, 4), (3.0, 1e-3, 1, 2), (1.0, 1e-3, 2, 2)]
    own_configs = list(configs_of(tiny_config, members))
    feeds = make_feeds(tiny_config, open_splits(tiny_config.data))
    _, healthy, healthy_state = together(own_configs, feeds)
    _, losses, state = together(own_configs, feeds, poison=1)
    assert np.isfinite(healthy).all() and np.isnan(losses[:, 1]).all()
    for k in (0, 2):
        np.testing.assert_array_equal(losses[:, k], healthy[:, k])
        jax.tree.map(
            lambda a, b, k=k: np.testing.assert_array_equal(a[k], b[k]), state, healthy_state
        )
    assert int(state.skipped[1]) == STEPS and int(state.skipped[0]) == 0


def test_members_are_evaluated_as_alone(tiny_config):
    own_configs = list(configs_of(tiny_config, [(3.0, 1e-3, 0, 4), (0.3, 1e-3, 1, 2)]))
    feeds = make_feeds(tiny_config, open_splits(tiny_config.data))
    experiments = [make_experiment(config, 10) for config in own_configs]
    stacked = stack_experiments(experiments)
    states = [experiment.init_state() for experiment in experiments]
    tests = GroupValidator(tiny_config, stacked, feeds).evaluate(stack_states(stacked, states))
    alone = Validator(own_configs[1], experiments[1], feeds).evaluate(states[1])  # The padded one.
    assert tests[1]["test"] == pytest.approx(alone["test"], rel=1e-5)


def test_members_may_see_the_images_in_orders_of_their_own(tiny_config):
    """A step that only reads: what each member sees is what it would see alone."""

    def step(carry, batch, key, hyper):
        seen = jnp.sum(batch.images.astype(jnp.float32), axis=(1, 2, 3))
        return carry, {"seen": jnp.sum(seen * batch.weights)}

    own_configs = list(configs_of(tiny_config, [(3.0, 1e-3, 0, 4), (3.0, 1e-3, 1, 4)]))
    for config in own_configs:
        config.train.order_seed = -1
    feeds = make_feeds(tiny_config, open_splits(tiny_config.data))
    feed, axes = group_feed(feeds.train, own_configs)
    nothing, hyper = jnp.zeros(2), Hyper(jnp.zeros(2), jnp.zeros(2))
    calls = run_epoch(mapped_steps(step, axes), nothing, feed, nothing, hyper, Pace(), 3)
    both = np.concatenate([metrics["seen"] for _, metrics in calls])
    for k, seed in enumerate((0, 1)):
        calls = run_epoch(
            *(compiled_steps(step), 0.0, feeds.train.reordered(seed), 0.0, Hyper(0.0, 0.0)),
            *(Pace(), 3),
        )
        alone = np.concatenate([metrics["seen"] for _, metrics in calls])
        np.testing.assert_array_equal(both[:, k], alone)
    assert (both[:, 0] != both[:, 1]).any()
    own_configs[0].data.resident = "never"
    streamed = make_feeds(own_configs[0], open_splits(tiny_config.data))
    with pytest.raises(UserError, match="config.data.resident"):
        group_feed(streamed.train, own_configs)
