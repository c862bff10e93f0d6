"""Batches and members divided among devices; `test_devices.py` runs this with 8 virtual ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from told_models import told_config

from configs import tiny
from vae_jax.data.batches import Batches
from vae_jax.data.feeds import ResidentFeed, StreamingFeed
from vae_jax.data.splits import open_splits
from vae_jax.devices import in_mesh, make_mesh, place, split
from vae_jax.models import convolution
from vae_jax.run import decode, open_run, prior_latents
from vae_jax.run_folder import read_rows
from vae_jax.streams import step_key, stream_key
from vae_jax.train.engine import Mapped
from vae_jax.train.epoch import Pace, compiled_steps, run_epoch
from vae_jax.train.setup import make_experiment
from vae_jax.train.step import objective_terms
from vae_jax.train.sweep import fit_sweep
from vae_jax.train.task import vae_task
from vae_jax.train.trainer import fit
from vae_jax.train.validation import Validator, make_feeds
from vae_jax.types import Batch

COUNTS = (2, 4, 8)
SPEED = ("images_per_second", "share_waiting")


def mesh_of(count):
    return make_mesh(jax.devices()[:count])


@pytest.fixture(autouse=True)
def eight_devices():
    assert len(jax.devices()) == 8


@pytest.fixture
def experiment(tiny_config):
    return make_experiment(tiny_config, 10)


def gradients(experiment, images, weights, mesh):
    """Of one training step, `{network: ...}`, and its batch statistics."""
    state = experiment.init_state()

    @jax.jit
    def program(state, batch):
        batch = split(batch)
        key = step_key(experiment.run_key, 0)

        def loss(params):
            output, mutated = experiment.model.apply(
                {"params": params, "batch_stats": state.batch_stats},
                batch.images,
                train=True,
                sample=True,
                mask=batch.weights > 0,
                rngs={"latent": stream_key(key, "latent")},
                mutable=["batch_stats"],
            )
            terms = objective_terms(experiment.objective, output, batch.images, batch.weights, 3.0)
            return terms["loss"], (mutated["batch_stats"], output.z)

        return jax.grad(loss, has_aux=True)(state.params)

    with in_mesh(mesh):
        return jax.device_get(program(*place((state, Batch(images, weights)), mesh)))


def compute_in_chunks(monkeypatch):
    """Convolutions loop over a few images at a time, as they do in large batches."""
    monkeypatch.setattr(convolution, "_WHOLE_BYTES", 1)
    monkeypatch.setattr(convolution, "_CHUNK_BYTES", 2**15)


@pytest.mark.parametrize(
    ("chunked", "counts"),
    [
        (False, (2, 8)),
        (True, (4,)),
        pytest.param(False, (4,), marks=pytest.mark.slow),
        pytest.param(True, (2, 8), marks=pytest.mark.slow),
    ],
)
def test_gradients_statistics_and_noise_are_those_of_one_device(
    experiment, chunked, counts, monkeypatch
):
    """To 1e-6 of the largest gradient, with batch norm over the global batch and padding."""
    if chunked:
        compute_in_chunks(monkeypatch)
    images = np.random.default_rng(0).random((32, 16, 16, 3), np.float32)
    weights = np.ones(32, np.float32)
    weights[-3:] = 0
    expected, (stats, z) = gradients(experiment, images, weights, None)
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected))
    for count in counts:
        found, (found_stats, found_z) = gradients(experiment, images, weights, mesh_of(count))
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * largest),
            found,
            expected,
        )
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found_stats, stats
        )
        np.testing.assert_allclose(found_z, z, rtol=1e-5, atol=1e-5)


def test_normal_draws_are_equal_bit_for_bit():
    def draw(key):
        return jax.random.normal(key, (32, 5))

    expected = draw(jax.random.key(3))
    for count in COUNTS:
        mesh = mesh_of(count)
        with in_mesh(mesh):
            found = jax.jit(lambda key: split(draw(key)))(place(jax.random.key(3), mesh))
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("kind", "implementation", "accumulate"),
    [(ResidentFeed, "matmul", 1), (StreamingFeed, "xla", 2)],
)
def test_no_activation_travels_between_devices(
    tiny_config, kind, implementation, accumulate, monkeypatch
):
    """The compiled program adds up gradients and statistics, and moves nothing else."""
    compute_in_chunks(monkeypatch)
    tiny_config.model.convolution = implementation
    tiny_config.train.batch_size, tiny_config.train.accumulate = 16, accumulate
    experiment, mesh = make_experiment(tiny_config, 10), mesh_of(4)
    feed = kind(Batches(open_splits(tiny_config.data).train, None, 16, 0), mesh)
    segment = next(iter(feed.segments(0)))
    program = compiled_steps(experiment.train_step)
    state, key = place((experiment.init_state(), experiment.run_key), mesh)
    with in_mesh(mesh):
        lowered = program.lower(state, segment, np.int32(0), np.int32(1), key, experiment.hyper)
        text = lowered.compile().as_text()
    assert "all-reduce" in text
    for operation in ("all-gather", "all-to-all", "collective-permute"):
        assert operation not in text, operation


def test_each_device_holds_its_own_part_of_a_streamed_batch_alone(tiny_config):
    images = open_splits(tiny_config.data).train
    labels = images.labels.astype(np.float32)
    batches = Batches(images, labels, 8, 1)
    (whole,) = ResidentFeed(batches).segments(0)
    for count in COUNTS:
        (streamed,) = StreamingFeed(batches, mesh_of(count)).segments(0)
        assert {shard.data.shape[1] for shard in streamed.images.addressable_shards} == {8 // count}
        np.testing.assert_array_equal(streamed.images, whole.images[whole.rows])
        np.testing.assert_array_equal(streamed.labels, whole.labels[whole.rows])
        np.testing.assert_array_equal(streamed.weights, whole.weights)


def quiet(*_):
    pass


def train(tiny_store, workdir, devices, **fields):
    config = tiny.get_config()
    config.data.name, config.data.path = "celeba", str(tiny_store)
    config.parallel.data = devices
    config.update_from_flattened_dict(fields)
    result = fit(config, workdir, quiet)
    return config, result


@pytest.fixture(scope="module")
def alone(tiny_store, tmp_path_factory):
    """Two epochs on one device."""
    workdir = tmp_path_factory.mktemp("alone")
    config, _ = train(tiny_store, workdir, 1)
    return workdir, config


def assert_rows_agree(workdir, reference):
    """Every figure that was logged, but for speeds."""
    for found, expected in zip(read_rows(workdir), read_rows(reference), strict=True):
        names = [n for n, v in expected.items() if isinstance(v, float) and n not in SPEED]
        for name in names:
            assert found[name] == pytest.approx(expected[name], rel=1e-4), name


def test_a_run_goes_on_with_other_devices_and_follows_that_on_one(tiny_store, alone, tmp_path):
    """The first epoch on all devices from memory, the second streamed to two."""
    train(tiny_store, tmp_path, 0, **{"train.epochs": 1})
    _, result = train(tiny_store, tmp_path, 2, **{"data.resident": "never"})
    assert result.step == 10
    assert_rows_agree(tmp_path, alone[0])
    restored = [open_run(workdir).variables for workdir in (tmp_path, alone[0])]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-4), *restored)


@pytest.mark.slow
def test_a_model_told_its_pair_follows_that_on_one_device(tiny_store, tmp_path):
    """Every image is told the same KL weight and latent size wherever it is computed."""
    for devices in (1, 8):
        fields = {"data.name": "celeba", "data.path": str(tiny_store), "train.epochs": 1}
        config = told_config(**fields, **{"parallel.data": devices})
        fit(config, tmp_path / str(devices), quiet)
    assert_rows_agree(tmp_path / "8", tmp_path / "1")


def test_samples_are_those_of_one_device(alone):
    """One program with equal weights, on one device or divided: the same pictures."""
    run = open_run(alone[0])
    z = prior_latents(33, 64, run.model.z_dim)
    expected = decode(run.model, run.variables, z)
    for count in COUNTS:
        mesh = mesh_of(count)

        @jax.jit
        def program(variables, z):
            return jax.nn.sigmoid(run.model.apply(variables, split(z), method="decode"))

        with in_mesh(mesh):
            found = program(*place((run.variables, jnp.asarray(z)), mesh))
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-7)


def grouped(tiny_config, devices):
    """Losses of 5 steps, states and evaluation of three members that are trained together."""
    configs = []
    for weight, z_dim in [(3.0, 4), (0.3, 2), (1.0, 2)]:
        configs.append(tiny_config.copy_and_resolve_references())
        configs[-1].loss.kl_weight, configs[-1].model.z_dim = weight, z_dim
    mesh = make_mesh(jax.devices()[:devices], devices)
    feeds = make_feeds(tiny_config, open_splits(tiny_config.data), mesh)
    tasks = [vae_task(config, open_splits(config.data)) for config in configs]
    engine = Mapped(tasks, mesh)
    state = engine.pack([task.init_state() for task in tasks])
    feed, program = engine.training(feeds.train, [0, 0, 0])
    calls = run_epoch(program, state, feed, engine.key, engine.hyper, Pace())
    states, metrics = zip(*calls, strict=True)
    losses = np.concatenate([values["loss"][:, :3] for values in metrics])
    tests = Validator(engine, feeds).evaluate(states[-1])
    return losses, engine.unpack(states[-1]), tests, states[-1]


@pytest.mark.slow
def test_members_on_devices_of_their_own_are_trained_as_on_one(tiny_config):
    """Three members on two devices, one of which computes a copy."""
    losses, states, tests, _ = grouped(tiny_config, 1)
    found, own, own_tests, state = grouped(tiny_config, 2)
    kernel = state.params["encoder"]["conv_0"]["kernel"]
    assert {shard.data.shape[0] for shard in kernel.addressable_shards} == {2}
    np.testing.assert_allclose(found, losses, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), own, states)
    for test, expected in zip(own_tests, tests, strict=True):
        assert test["test"] == pytest.approx(expected["test"], rel=1e-4)


@pytest.mark.slow
def test_a_sweep_gives_the_same_figures_on_any_number_of_devices(tiny_config, tmp_path):
    """Three members, each with its own order of the images, on one device each."""
    with tiny_config.unlocked():
        tiny_config.sweep = ConfigDict(
            {"kl_weight": (0.3, 1.0, 3.0), "z_dim": (), "learning_rate": (), "seed": (),
             "mode": "grid", "schedule": "together", "same_batches": False, "memory_gib": 0.0}
        )  # fmt: skip
    tiny_config.train.epochs = 1
    said = []
    for devices in (0, 1):
        tiny_config.parallel.members = devices
        fit_sweep(tiny_config, tmp_path / str(devices), said.append)
    assert "on 3 of 8 devices" in said[0]
    for folder in (tmp_path / "0" / "members").iterdir():
        assert_rows_agree(folder, tmp_path / "1" / "members" / folder.name)
