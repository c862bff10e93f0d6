"""Batch normalisation against float64 NumPy and against Flax' own layer."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest

from vae_jax.models.norm import BatchNorm, batch_moments, normalise


def draw():
    return np.random.default_rng(0).normal(1.5, 2.0, size=(5, 4, 6, 3)).astype(np.float32)


@pytest.mark.parametrize("kept", [5, 3])
def test_moments_are_those_of_the_images_that_count(kept):
    x = draw()
    mean, var = batch_moments(jnp.asarray(x), jnp.arange(5) < kept)
    exact = x[:kept].astype(np.float64)
    np.testing.assert_allclose(mean, exact.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(var, exact.var((0, 1, 2)), rtol=1e-5)


def test_it_is_the_layer_of_flax_with_values_statistics_and_gradients():
    x, mask = jnp.asarray(draw()), jnp.array([True, True, False, True, True])
    ours = BatchNorm(momentum=0.9, epsilon=1e-3)
    flax = nn.BatchNorm(use_running_average=False, momentum=0.9, epsilon=1e-3)
    variables = ours.init(jax.random.key(0), x, True)
    variables["params"]["scale"] = jnp.array([0.5, 1.0, 2.0])

    def both(apply):
        def loss(params, x):
            y, moved = apply({**variables, "params": params}, x)
            return jnp.sum(jnp.sin(y)), (y, moved)

        return jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(variables["params"], x)

    one = both(lambda v, x: ours.apply(v, x, True, mask, mutable=["batch_stats"]))
    other = both(
        lambda v, x: flax.apply(v, x, mask=mask[:, None, None, None], mutable=["batch_stats"])
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), one, other)


def plainly_normalised(x, mask, scale, bias, epsilon):
    kept = x[np.flatnonzero(mask)]
    mean, var = (m(kept, axis=(0, 1, 2), keepdims=True) for m in (jnp.mean, jnp.var))
    scale, bias = (a[None, None, None, :] for a in (scale, bias))
    return (x - mean) / jnp.sqrt(var + epsilon) * scale + bias


@pytest.mark.parametrize("mask", [[True] * 5, [True, False, True, True, False]])
def test_hand_written_gradients_are_those_of_the_formula(mask):
    """In float64, with a cotangent for every image, also for those that do not count."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(1)
        x, cotangent = (jnp.asarray(rng.normal(0.7, 1.0, (5, 4, 6, 3))) for _ in range(2))
        scale, bias = jnp.asarray([0.5, -1.0, 2.0]), jnp.asarray([0.1, 0.2, 0.3])
        counted = jnp.asarray(mask)

        @jax.jit
        def ours(x, scale, bias):
            return normalise(x, counted, scale, bias, 1e-3)[0]

        @jax.jit
        def formula(x, scale, bias):
            return plainly_normalised(x, mask, scale, bias, 1e-3)

        found, expected = (jax.vjp(f, x, scale, bias) for f in (ours, formula))
        np.testing.assert_allclose(found[0], expected[0], rtol=1e-12)
        for a, b in zip(found[1](cotangent), expected[1](cotangent), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)
        jax.test_util.check_grads(ours, (x, scale, bias), order=2, modes=("rev",), rtol=1e-5)


def test_a_constant_channel_passes_no_gradient_on():
    x = jnp.zeros((2, 3, 3, 1)) + 7.0
    gradient = jax.grad(lambda x: normalise(x, None, jnp.ones(1), jnp.zeros(1), 1e-3)[0].sum())(x)
    np.testing.assert_array_equal(gradient, np.zeros_like(x))


def test_the_bias_of_a_convolution_moves_the_running_mean_alone():
    """The mean of the batch takes it away: in training neither the result nor it can change."""
    x, shift = jnp.asarray(draw()), jnp.array([3.0, -1.0, 0.5])
    biased = x + shift[None, None, None, :]
    norm = BatchNorm(momentum=0.0, epsilon=1e-3)
    variables = norm.init(jax.random.key(0), x, True)

    def apply(x, shift=0.0):
        return norm.apply(variables, x, True, shift=shift, mutable=["batch_stats"])

    (y, moved), (plain, other), (exact, added) = apply(x, shift), apply(x), apply(biased)
    np.testing.assert_array_equal(y, plain)
    np.testing.assert_allclose(y, exact, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), moved, added)
    assert np.abs(moved["batch_stats"]["mean"] - other["batch_stats"]["mean"]).min() > 0.4
    gradient = jax.grad(lambda shift: jnp.sum(jnp.sin(apply(x, shift)[0])))(shift)
    np.testing.assert_array_equal(gradient, np.zeros(3))
    used = {"params": variables["params"], **moved}
    np.testing.assert_allclose(
        norm.apply(used, x, False, shift=shift), norm.apply(used, biased, False), atol=1e-5
    )


def test_running_statistics_are_used_and_kept_outside_of_training():
    x, norm = jnp.asarray(draw()), BatchNorm(momentum=0.9, epsilon=0.0)
    variables = norm.init(jax.random.key(0), x, False)
    variables["batch_stats"] = {"mean": jnp.full(3, 1.0), "var": jnp.full(3, 4.0)}
    np.testing.assert_allclose(norm.apply(variables, x, False), (x - 1.0) / 2.0, rtol=1e-6)
