"""Batch normalisation against float64 NumPy and against Flax' own layer."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.models.norm import BatchNorm, batch_moments


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

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(variables["params"], x)

    one = both(lambda v, x: ours.apply(v, x, True, mask, mutable=["batch_stats"]))
    other = both(
        lambda v, x: flax.apply(v, x, mask=mask[:, None, None, None], mutable=["batch_stats"])
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), one, other)


def test_running_statistics_are_used_and_kept_outside_of_training():
    x, norm = jnp.asarray(draw()), BatchNorm(momentum=0.9, epsilon=0.0)
    variables = norm.init(jax.random.key(0), x, False)
    variables["batch_stats"] = {"mean": jnp.full(3, 1.0), "var": jnp.full(3, 4.0)}
    np.testing.assert_allclose(norm.apply(variables, x, False), (x - 1.0) / 2.0, rtol=1e-6)
