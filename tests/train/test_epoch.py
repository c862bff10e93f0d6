"""Many steps in one program equal a Python loop; epoch means are means of batch values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.data.batches import Batches, batch_rows, epoch_order
from vae_jax.data.feeds import ResidentFeed
from vae_jax.data.store.reading import open_store
from vae_jax.train.epoch import EpochMeans, Pace, make_run_steps, run_epoch
from vae_jax.train.setup import make_experiment
from vae_jax.types import Batch


class FixedPace(Pace):
    """Always asks for the same number of steps."""

    def __init__(self, steps):
        super().__init__()
        self._steps = steps

    def record(self, steps, seconds):
        pass


@pytest.fixture(scope="module")
def split(tiny_store):
    return open_store(tiny_store).split("train")


def train_epoch(config, split, pace):
    setup = make_experiment(config, 100)
    feed = ResidentFeed(Batches(split, None, config.train.batch_size, config.seed))
    program = jax.jit(make_run_steps(setup.train_step))
    start = setup.init_state()
    calls = list(run_epoch(program, start, feed, setup.run_key, setup.hyper, pace))
    state, metrics = calls[-1][0], [values for _, values in calls]
    return state, {name: np.concatenate([m[name] for m in metrics]) for name in metrics[0]}


def test_the_program_equals_a_python_loop_over_the_step(tiny_config, split):
    state, metrics = train_epoch(tiny_config, split, FixedPace(5))
    setup = make_experiment(tiny_config, 100)
    rows, weights = batch_rows(epoch_order(tiny_config.seed, 0, len(split)), 8)
    expected, step = setup.init_state(), jax.jit(setup.train_step)
    for i in range(5):
        batch = Batch(jnp.asarray(split.take(rows[i])), jnp.asarray(weights[i]))
        expected, values = step(expected, batch, setup.run_key, setup.hyper)
        assert metrics["loss"][i] == pytest.approx(float(values["loss"]), rel=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
        state.params,
        expected.params,
    )
    assert metrics["images"].tolist() == [8, 8, 8, 8, 5]


def test_how_an_epoch_is_cut_into_calls_changes_no_bit(tiny_config, split):
    whole, whole_metrics = train_epoch(tiny_config, split, FixedPace(5))
    for steps in (1, 2, 3):
        cut, metrics = train_epoch(tiny_config, split, FixedPace(steps))
        jax.tree.map(np.testing.assert_array_equal, whole, cut)
        np.testing.assert_array_equal(metrics["loss"], whole_metrics["loss"])


def test_epoch_means_are_means_of_batch_values_weighted_by_images():
    means = EpochMeans()
    means.add({"loss": np.array([4.0, 2.0], np.float32), "images": np.array([8.0, 8.0])})
    means.add({"loss": np.array([1.0], np.float32), "images": np.array([2.0])})
    expected = (4 * 8 + 2 * 8 + 1 * 2) / 18
    assert means.means() == {"loss": pytest.approx(expected), "images": 18, "skipped": 0}
    # Keras' display, a mean of running means, would be another number:
    running = [4, 3, expected]
    assert abs(np.mean(running) - expected) > 0.1


def test_saved_sums_continue_an_epoch_bit_for_bit():
    rng = np.random.default_rng(0)
    values = {"loss": rng.normal(size=9).astype(np.float32), "images": np.full(9, 7.0)}
    whole, first = EpochMeans(), EpochMeans()
    whole.add(values)
    first.add({name: v[:4] for name, v in values.items()})
    rest = EpochMeans(first.saved())
    rest.add({name: v[4:] for name, v in values.items()})
    assert rest.means() == whole.means()


def test_skipped_steps_are_counted_and_left_out():
    means = EpochMeans()
    means.add({
        "loss": np.array([1.0, np.nan, 3.0]), "images": np.array([2.0, 2.0, 2.0]),
        "finite": np.array([True, False, True]),
    })  # fmt: skip
    assert means.means() == {"loss": 2.0, "images": 4, "skipped": 1}


def test_pace_grows_to_the_time_of_a_call_and_never_past_the_end():
    pace = Pace()
    assert pace.count(100) == 1
    pace.record(1, 5.0)  # compilation
    assert pace.count(100) == 1
    for _ in range(9):
        steps = pace.count(1000)
        pace.record(steps, steps * 0.01)
    assert pace.count(1000) == 40
    assert pace.count(7) == 7
