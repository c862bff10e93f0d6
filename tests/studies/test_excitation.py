"""Excitation: known best patterns, the convergence rule, batches, dead maps, other shapes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.studies import excitation
from vae_jax.studies.excitation import (
    Ascent,
    Projection,
    excite,
    scale_layers,
    standardise,
    superpose,
    unit_range,
)

FREE = Projection()
FINE = Ascent(tolerance=5e-5)


@pytest.fixture
def float64():
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


def templates(count, shape, seed=0):
    return np.asarray(standardise(np.random.default_rng(seed).normal(size=(count, *shape))))


def matching_layer(patterns):
    """One map for each template: softplus of the product with the whole image."""
    patterns = jnp.asarray(patterns)

    def layer(images):
        products = jnp.einsum("bhwc,fhwc->bf", images, patterns) / patterns[0].size
        return jax.nn.softplus(products)[:, None, None, :]

    return layer


def two_layers(seed=0, channels=1):
    """A 3x3 convolution with ReLU twice, as a network has them; five maps."""
    rng = np.random.default_rng(seed)
    kernels = [rng.normal(size=(3, 3, channels, 4)), rng.normal(size=(3, 3, 4, 5))]

    def layer(images):
        for kernel in kernels:
            images = jax.nn.relu(
                jax.lax.conv_general_dilated(
                    images,
                    jnp.asarray(kernel, images.dtype),
                    (1, 1),
                    "SAME",
                    dimension_numbers=("NHWC", "HWIO", "NHWC"),
                )
            )
        return images

    return layer


def correlation(a, b):
    return float(np.corrcoef(np.ravel(a), np.ravel(b))[0, 1])


@pytest.mark.parametrize("shape", [(28, 28, 1), (20, 12, 3)])
def test_the_pattern_is_the_filter_whose_response_it_is(shape):
    wanted = templates(3, shape)
    starts = superpose(scale_layers(jax.random.key(0), 3, shape, (3, 0)))
    found = excite(matching_layer(wanted), starts[None], [0, 1, 2], FREE, (400,), FINE)
    for pattern, template in zip(found.patterns, wanted, strict=True):
        assert correlation(pattern, template) > 0.98
    assert found.converged.all() and (found.steps < 400).all()
    np.testing.assert_allclose(found.responses, jax.nn.softplus(1.0), rtol=0.01)


def test_within_the_range_of_the_model_the_pattern_still_matches():
    wanted = templates(2, (16, 16, 1))
    projection = Projection(0.3, 0.25, 0.0, 1.0)
    starts = superpose(scale_layers(jax.random.key(0), 2, (16, 16, 1)))
    found = excite(matching_layer(wanted), starts[None], [0, 1], projection, (600,), FINE)
    assert found.patterns.min() == 0.0 and found.patterns.max() <= 1.0
    for pattern, template in zip(found.patterns, wanted, strict=True):
        assert correlation(pattern, template) > 0.9


def test_unit_range_takes_mean_and_contrast_from_the_images():
    images = np.random.default_rng(0).integers(0, 256, (50, 6, 5, 3)).astype(np.uint8)
    mean, std, low, high = unit_range(images)
    assert mean == pytest.approx(np.mean(images) / 255)
    assert std == pytest.approx(np.mean([np.std(image) for image in images]) / 255)
    assert (low, high) == (0.0, 1.0)
    projected = np.asarray(unit_range(images)(jnp.asarray(templates(4, (6, 5, 3)))))
    assert projected.min() >= 0 and projected.max() <= 1
    assert projected.mean() == pytest.approx(mean, abs=0.01)


def naive(layer, start, index, projection, stage_steps, ascent):
    """One map, one step at a time, as the rule is written."""

    def response(image):
        return jnp.mean(layer(image[None])[0, :, :, index])

    value_and_gradient = jax.jit(jax.value_and_grad(response))
    image, moves, curve = jnp.zeros_like(start[0]), 0, []
    for noise, steps in zip(start, stage_steps, strict=True):
        image = projection(standardise(image[None]) + noise[None])[0]
        values = []
        for _ in range(steps):
            value, gradient = value_and_gradient(image)
            values.append(float(value))
            curve.append(float(value))
            changes = np.abs(np.diff(values[-ascent.patience - 1 :]))
            small = changes <= ascent.tolerance * np.abs(values[-ascent.patience - 1 : -1])
            if len(small) == ascent.patience and small.all():
                break
            rms = float(jnp.sqrt(jnp.mean(gradient**2)))
            step = ascent.epsilon * projection.std * gradient / (rms or 1.0)
            image, moves = projection((image + step)[None])[0], moves + 1
    return np.asarray(image), moves, curve


@pytest.mark.parametrize("stage_steps", [(60,), (3, 40)])
def test_all_maps_at_once_equal_a_naive_loop_over_each(float64, monkeypatch, stage_steps):
    monkeypatch.setattr(excitation, "CPU_LANES", 2)  # Five maps take turns.
    layer, shape = two_layers(), (9, 8, 1)
    starts = jnp.asarray(np.random.default_rng(3).normal(size=(len(stage_steps), 5, *shape)))
    # A coarse tolerance: some maps end early, others at the limit.
    ascent, projection = Ascent(0.05, 2e-3, 3), Projection(0.4, 0.2, 0.0, 1.0)
    found = excite(layer, starts, range(5), projection, stage_steps, ascent)
    assert 0 < found.converged.sum() < 5
    for m in range(5):
        image, moves, curve = naive(layer, starts[:, m], m, projection, stage_steps, ascent)
        np.testing.assert_allclose(found.patterns[m], image, atol=1e-9)
        assert found.steps[m] == moves
        np.testing.assert_allclose(found.curves[: len(curve), m], curve, rtol=1e-9)
        assert np.isnan(found.curves[len(curve) :, m]).all()
        alone = excite(layer, starts[:, [m]], [m], projection, stage_steps, ascent)
        np.testing.assert_allclose(alone.patterns[0], found.patterns[m], atol=1e-9)
        assert alone.converged[0] == found.converged[m]


def test_snapshots_are_the_patterns_of_shorter_ascents():
    layer, shape = two_layers(), (8, 8, 1)
    starts = superpose(scale_layers(jax.random.key(1), 3, shape, (2, 0)))[None]
    never = Ascent(tolerance=-1.0)
    found = excite(layer, starts, [0, 2, 4], FREE, (9,), never, (0, 1, 5, 9, 99))
    np.testing.assert_allclose(found.snapshots[0], FREE(starts[0]), atol=1e-6)
    for row, steps in ((1, 1), (2, 5), (3, 9), (4, 9)):
        shorter = excite(layer, starts, [0, 2, 4], FREE, (steps,), never)
        np.testing.assert_allclose(found.snapshots[row], shorter.patterns, atol=1e-5)


def test_dead_maps_are_told_and_leave_the_others_alone():
    alive = two_layers()

    def layer(images):
        maps = alive(images)
        return maps.at[..., 1].set(jax.nn.relu(maps[..., 1] - 1e6))

    starts = superpose(scale_layers(jax.random.key(1), 5, (8, 8, 1), (2, 0)))
    found = excite(layer, starts[None], range(5), FREE, (30,))
    assert found.dead.tolist() == [False, True, False, False, False]
    assert found.steps[1] <= Ascent().patience and np.isfinite(found.patterns).all()
    without = excite(alive, starts[None], range(5), FREE, (30,))
    np.testing.assert_allclose(found.responses[[0, 2]], without.responses[[0, 2]], rtol=1e-4)
