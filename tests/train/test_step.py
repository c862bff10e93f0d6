"""The training step against a hand-written one, and what it does with non-finite gradients."""

from functools import cache

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import tiny
from vae_jax.models.vae import make_vae
from vae_jax.streams import step_key, stream_key
from vae_jax.train.setup import make_experiment
from vae_jax.types import Batch


@cache
def experiment(**fields):
    config = tiny.get_config()
    config.update_from_flattened_dict(fields)
    setup = make_experiment(config, total_steps=100)
    return setup._replace(train_step=jax.jit(setup.train_step))


def batch(count=8, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 16, 16, 3)).astype(np.uint8)
    return Batch(jnp.asarray(images), jnp.ones(count))


def test_one_step_is_adam_on_the_gradient_of_reconstruction_plus_kl():
    setup = experiment()
    state, images = setup.init_state(), batch()
    x = images.images.astype(jnp.float32) / 255

    def loss(params):  # Written out, sharing nothing with losses.py.
        key = step_key(setup.run_key, 0)
        output, _ = setup.model.apply(
            {"params": params, "batch_stats": state.batch_stats}, x, train=True, sample=True,
            rngs={"latent": stream_key(key, "latent")}, mutable=["batch_stats"],
        )  # fmt: skip
        p = jax.nn.sigmoid(output.logits)
        bce = -(x * jnp.log(p) + (1 - x) * jnp.log(1 - p)).mean(-1).sum(axis=(1, 2))
        kl = -0.5 * (1 + output.log_var - output.mean**2 - jnp.exp(output.log_var)).sum(-1)
        return jnp.mean(bce + 3.0 * kl)

    value, grads = jax.jit(jax.value_and_grad(loss))(state.params)
    adam = optax.adam(1e-3, eps=1e-8)
    updates, _ = adam.update(grads, adam.init(state.params))
    expected = optax.apply_updates(state.params, updates)
    moved, metrics = setup.train_step(state, images, setup.run_key, setup.hyper)
    assert float(metrics["loss"]) == pytest.approx(float(value), rel=1e-5)
    assert float(metrics["grad_norm"]) == pytest.approx(float(optax.tree.norm(grads)), rel=1e-3)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=3e-5), moved.params, expected)
    assert int(moved.step) == 1 and int(moved.skipped) == 0


def test_without_sampling_the_step_is_that_of_a_plain_autoencoder():
    """Weight 0 and z = mean: log_var gets no gradient, and no draw changes the loss."""
    setup = experiment(**{"model.sample": False, "loss.kl_weight": 0.0})
    state, images = setup.init_state(), batch()
    x = images.images.astype(jnp.float32) / 255

    def loss(params):
        variables = {"params": params, "batch_stats": state.batch_stats}

        def decode_mean(model):
            mean, _ = model.encoder(x, True)
            return model.decoder(mean, True)

        logits, _ = nn.apply(decode_mean, setup.model, mutable=["batch_stats"])(variables)
        p = jax.nn.sigmoid(logits)
        return -jnp.mean((x * jnp.log(p) + (1 - x) * jnp.log(1 - p)).mean(-1).sum(axis=(1, 2)))

    value, grads = jax.jit(jax.value_and_grad(loss))(state.params)
    moved, metrics = setup.train_step(state, images, setup.run_key, setup.hyper)
    assert float(metrics["loss"]) == pytest.approx(float(value), rel=1e-5)
    assert float(metrics["grad_norm"]) == pytest.approx(float(optax.tree.norm(grads)), rel=1e-3)
    kept = [s.params["encoder"]["log_var"] for s in (state, moved)]
    jax.tree.map(np.testing.assert_array_equal, *kept)
    *_, seeded = setup.train_step(state, images, jax.random.key(99), setup.hyper)
    assert seeded["loss"] == metrics["loss"]


def test_loss_is_the_sum_of_its_logged_parts():
    setup = experiment()
    step = setup.train_step
    state = setup.init_state()
    for seed in range(3):
        state, metrics = step(state, batch(seed=seed), setup.run_key, setup.hyper)
        total = float(metrics["recon"]) + float(metrics["kl_weighted"])
        assert float(metrics["loss"]) == pytest.approx(total, rel=1e-6)


def test_a_non_finite_step_changes_nothing_but_the_counters():
    setup = experiment()
    step = setup.train_step
    state, _ = step(setup.init_state(), batch(), setup.run_key, setup.hyper)
    bad = Batch(jnp.full((8, 16, 16, 3), jnp.nan), jnp.ones(8))
    for skipped in (1, 2):
        after, metrics = step(state, bad, setup.run_key, setup.hyper)
        assert not metrics["finite"]
        assert int(after.skipped) == int(after.skipped_total) == skipped
        for kept in ("params", "batch_stats", "opt_state"):
            jax.tree.map(np.testing.assert_array_equal, getattr(after, kept), getattr(state, kept))
        state = after
    after, metrics = step(state, batch(), setup.run_key, setup.hyper)
    assert metrics["finite"] and int(after.skipped) == 0 and int(after.skipped_total) == 2
    assert int(after.step) == 4


def test_kl_schedule_and_warmup_scale_their_terms():
    setup = experiment(**{
        "loss.kl_schedule": "linear", "loss.kl_schedule_steps": 4, "optimizer.warmup_steps": 2,
    })  # fmt: skip
    step, state = setup.train_step, setup.init_state()
    weights = []
    for _ in range(5):
        before = state.params
        state, metrics = step(state, batch(), setup.run_key, setup.hyper)
        weights.append(float(metrics["kl_weight"]))
        if len(weights) == 1:  # Warm-up starts at learning rate 0.
            jax.tree.map(np.testing.assert_array_equal, before, state.params)
    np.testing.assert_allclose(weights, [0, 0.75, 1.5, 2.25, 3.0])


def test_clipping_bounds_the_gradient_that_adam_sees():
    setup = experiment(**{"optimizer.clip_norm": 1e-3})
    state, metrics = setup.train_step(setup.init_state(), batch(), setup.run_key, setup.hyper)
    first_moment = state.opt_state[1].mu
    assert float(metrics["grad_norm"]) > 1.0
    assert float(optax.tree.norm(first_moment)) == pytest.approx(1e-4, rel=1e-3)  # (1 - b1) clip


def test_a_step_is_a_function_of_seed_and_step_alone():
    first, second = experiment(), experiment.__wrapped__()
    other = experiment(seed=1)
    results = [
        setup.train_step(setup.init_state(), batch(), setup.run_key, setup.hyper)[0]
        for setup in (first, second, other)
    ]
    jax.tree.map(np.testing.assert_array_equal, results[0].params, results[1].params)
    kernels = [state.params["encoder"]["conv_0"]["kernel"] for state in results]
    assert not np.allclose(kernels[0], kernels[2])


@pytest.mark.slow
def test_parameters_do_not_depend_on_how_their_program_is_optimised():
    """They come from a program without optimisation, which compiles sooner."""
    setup = experiment()
    key = stream_key(setup.run_key, "init")
    images = np.zeros((1, 16, 16, 3), np.float32)
    optimised = {"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False}
    program = jax.jit(
        lambda key: setup.model.init(key, images, False, False), compiler_options=optimised
    )
    jax.tree.map(np.testing.assert_array_equal, setup.init_state().params, program(key)["params"])


def test_bfloat16_losses_and_gradients_survive_extreme_images():
    setup = experiment(**{"model.dtype": "bfloat16"})
    white = Batch(jnp.full((8, 16, 16, 3), 255, jnp.uint8), jnp.ones(8))
    state, step = setup.init_state(), setup.train_step
    for _ in range(3):
        state, metrics = step(state, white, setup.run_key, setup.hyper)
        assert metrics["finite"] and metrics["loss"].dtype == jnp.float32
    assert {leaf.dtype.name for leaf in jax.tree.leaves(state.params)} == {"float32"}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "likelihood",
    [
        "bernoulli",
        "optimal_sigma",
        pytest.param("squared_error", marks=pytest.mark.slow),
        pytest.param("gaussian", marks=pytest.mark.slow),
    ],
)
def test_extreme_log_var_and_logits_have_finite_loss_and_gradients(likelihood, dtype):
    """The layers that give log_var and the logits are biased by +-1e4."""
    setup = experiment(**{"model.dtype": dtype, "loss.likelihood": likelihood})
    step, start = setup.train_step, setup.init_state()
    for network, layer in (("encoder", "log_var"), ("decoder", "conv_1")):
        for value in (-1e4, 1e4):
            params = jax.tree.map(lambda leaf: leaf, start.params)
            params[network][layer]["bias"] += value
            state, metrics = step(start.replace(params=params), batch(), setup.run_key, setup.hyper)
            assert metrics["finite"], (layer, value)  # the loss and the norm of all gradients
            assert np.isfinite([metrics["loss"], metrics["grad_norm"]]).all()
            assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


def test_every_reference_objective_trains():
    for likelihood in ("bernoulli", "squared_error", "gaussian", "optimal_sigma"):
        setup = experiment(**{"loss.likelihood": likelihood, "loss.kl_weight": 0.02,
                              "loss.free_bits": 0.1})  # fmt: skip
        step, state = setup.train_step, setup.init_state()
        losses = []
        for _ in range(8):
            state, metrics = step(state, batch(), setup.run_key, setup.hyper)
            losses.append(float(metrics["loss"]))
        assert losses[-1] < losses[0], likelihood


def test_model_is_rebuilt_equal_and_hashable():
    config = tiny.get_config()
    one, two = (make_vae(config.model, config.data.image_shape) for _ in range(2))
    assert one == two and hash(one) == hash(two)
