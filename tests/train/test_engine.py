"""Members together in one program: each follows its own solo run, and none disturbs another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.data.splits import open_splits
from vae_jax.train.engine import Mapped, Plain, pad_latent, unpad_latent
from vae_jax.train.epoch import Pace, run_epoch
from vae_jax.train.setup import make_experiment
from vae_jax.train.task import vae_task
from vae_jax.train.validation import Validator, make_feeds, order_seed
from vae_jax.types import UserError

STEPS = 100


def configs_of(config, members):
    for kl_weight, learning_rate, seed, z_dim in members:
        own = config.copy_and_resolve_references()
        own.loss.kl_weight, own.optimizer.learning_rate = kl_weight, learning_rate
        own.seed, own.model.z_dim, own.train.order_seed = seed, z_dim, 0
        yield own


def steps(program, state, feed, key, hyper, count=STEPS):
    """Losses of `count` steps, epoch after epoch, and the last state."""
    losses, pace = [], Pace()
    for epoch in range(count // feed.steps_per_epoch):
        calls = list(run_epoch(program, state, feed, key, hyper, pace, epoch))
        state = calls[-1][0]
        losses += [metrics["loss"] for _, metrics in calls]
    return np.concatenate(losses), state


def tasks_of(own_configs):
    splits = open_splits(own_configs[0].data)
    return [vae_task(config, splits) for config in own_configs]


def together(own_configs, feeds, count=STEPS, poison=None):
    tasks = tasks_of(own_configs)
    if poison is not None:
        hyper = tasks[poison].hyper._replace(kl_weight=float("nan"))
        tasks[poison] = tasks[poison]._replace(hyper=hyper)
    engine = Mapped(tasks)
    state = engine.pack([task.init_state() for task in tasks])
    feed, program = engine.training(feeds.train, [order_seed(config) for config in own_configs])
    losses, state = steps(program, state, feed, engine.key, engine.hyper, count)
    return engine, losses, state


@pytest.mark.parametrize(
    "reduction", [pytest.param("channel_mean", marks=pytest.mark.slow), "mean"]
)
def test_members_follow_their_solo_runs(tiny_config, reduction):
    """Different KL weight, learning rate, seed and z_dim; 1e-4 relative over 100 steps."""
    tiny_config.loss.reduction = reduction
    weight = 3.0 if reduction == "channel_mean" else 1e-2
    members = [(weight, 1e-3, 0, 4), (0.1 * weight, 2e-3, 1, 2), (0.0, 5e-4, 2, 2)]
    own_configs = list(configs_of(tiny_config, members))
    feeds = make_feeds(tiny_config, open_splits(tiny_config.data))
    engine, losses, state = together(own_configs, feeds)
    # Of the two sizes; with 'mean', where Z scales the loss, the padded one is enough.
    for k in {"channel_mean": (0, 1), "mean": (1,)}[reduction]:
        (task,) = tasks_of(own_configs[k : k + 1])
        feed, program = Plain(task).training(feeds.train, [0])
        alone, end = steps(program, task.init_state(), feed, task.run_key, task.hyper)
        assert len(alone) == STEPS
        np.testing.assert_allclose(losses[:, k], alone, rtol=1e-4)
        unpadded = engine.unpack(state)[k]
        jax.tree.map(lambda a, b: np.testing.assert_equal(a.shape, b.shape), unpadded, end)


def test_a_member_that_diverges_changes_no_other_by_a_bit(tiny_config):
    members = [(3.0, 1e-3, 0, 4), (3.0, 1e-3, 1, 2), (1.0, 1e-3, 2, 2)]
    own_configs = list(configs_of(tiny_config, members))
    feeds = make_feeds(tiny_config, open_splits(tiny_config.data))
    _, healthy, healthy_state = together(own_configs, feeds, 20)
    _, losses, state = together(own_configs, feeds, 20, poison=1)
    assert np.isfinite(healthy).all() and np.isnan(losses[:, 1]).all()
    for k in (0, 2):
        np.testing.assert_array_equal(losses[:, k], healthy[:, k])
        jax.tree.map(
            lambda a, b, k=k: np.testing.assert_array_equal(a[k], b[k]), state, healthy_state
        )
    assert int(state.skipped[1]) == 20 and int(state.skipped[0]) == 0


def test_members_are_evaluated_as_alone(tiny_config):
    own_configs = list(configs_of(tiny_config, [(3.0, 1e-3, 0, 4), (0.3, 1e-3, 1, 2)]))
    feeds = make_feeds(tiny_config, open_splits(tiny_config.data))
    tasks = tasks_of(own_configs)
    states, engine = [task.init_state() for task in tasks], Mapped(tasks)
    tests = Validator(engine, feeds).evaluate(engine.pack(states))
    (alone,) = Validator(Plain(tasks[1]), feeds).evaluate(states[1])  # The padded one.
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
    tasks = [task._replace(train_step=step) for task in tasks_of(own_configs)]
    engine = Mapped(tasks)
    feed, program = engine.training(feeds.train, (0, 1))
    calls = run_epoch(program, jnp.zeros(2), feed, engine.key, engine.hyper, Pace(), 3)
    both = np.concatenate([metrics["seen"] for _, metrics in calls])
    for k, seed in enumerate((0, 1)):
        alone = Plain(tasks[k])
        feed, program = alone.training(feeds.train, [seed])
        calls = run_epoch(program, jnp.zeros(()), feed, alone.key, alone.hyper, Pace(), 3)
        alone = np.concatenate([metrics["seen"] for _, metrics in calls])
        np.testing.assert_array_equal(both[:, k], alone)
    assert (both[:, 0] != both[:, 1]).any()
    own_configs[0].data.resident = "never"
    streamed = make_feeds(own_configs[0], open_splits(tiny_config.data))
    with pytest.raises(UserError, match="config.data.resident"):
        engine.training(streamed.train, (0, 1))


def test_padding_inserts_zeros_behind_the_own_dimensions_and_is_undone(tiny_config):
    rng, states = np.random.default_rng(0), []
    for z_dim in (3, 5):
        tiny_config.model.z_dim = z_dim
        shapes = jax.eval_shape(make_experiment(tiny_config, 10, label_dim=2).init_state)
        states.append(jax.tree.map(lambda s: np.asarray(rng.normal(size=s.shape)), shapes))
    small, large = states
    padded = pad_latent(small, large, 3)
    jax.tree.map(lambda a, b: np.testing.assert_equal(a.shape, b.shape), padded, large)
    kernel = np.asarray(padded.params["decoder"]["dense"]["kernel"])  # [Z + L, features]
    own = np.asarray(small.params["decoder"]["dense"]["kernel"])
    np.testing.assert_array_equal(kernel[:3], own[:3])
    np.testing.assert_array_equal(kernel[3:5], 0)
    np.testing.assert_array_equal(kernel[5:], own[3:])  # The rows of the condition.
    np.testing.assert_array_equal(padded.params["encoder"]["mean"]["kernel"][:, 3:], 0)
    jax.tree.map(np.testing.assert_array_equal, unpad_latent(padded, small, 3), small)
