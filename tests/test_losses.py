"""The terms of the objective against closed forms and a naive float64 computation."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from vae_jax import losses
from vae_jax.kl_conventions import CONVENTIONS, Setting
from vae_jax.losses import Objective
from vae_jax.models.encoder import soft_limit
from vae_jax.train.step import objective_terms
from vae_jax.types import VAEOutput

SHAPE = (3, 4, 5, 2)


def gaussian_kl(mean, log_var):
    return losses.gaussian_kl_per_dimension(mean, log_var).sum(-1)


def converted_weight(weight, source, target, image_shape, z_dim):
    setting = Setting(image_shape, z_dim, 144, 1000)
    return CONVENTIONS[target].weight(CONVENTIONS[source].beta(weight, setting), setting)


def draw(seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=SHAPE) * 3
    targets = rng.uniform(size=SHAPE)
    mean, log_var = rng.normal(size=(2, 3, 6))
    return logits, targets, mean, log_var


def on_device(*arrays):
    return [jnp.asarray(array, jnp.float32) for array in arrays]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_bernoulli_nll_is_the_cross_entropy_of_probabilities():
    logits, targets, _, _ = draw()
    p = sigmoid(logits)
    expected = -(targets * np.log(p) + (1 - targets) * np.log(1 - p)).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(
        losses.bernoulli_nll(*on_device(logits, targets)), expected, rtol=1e-5
    )


def test_bernoulli_gradient_is_the_error_of_the_probability():
    """Also at logits of exactly 0, where a decoder of dead units starts."""
    logits = jnp.array([-30.0, -1.0, -0.0, 0.0, 1e-30, 1.0, 30.0]).reshape(1, 7, 1, 1)
    targets = jnp.full_like(logits, 0.25)
    gradient = jax.grad(lambda logits: losses.bernoulli_nll(logits, targets).sum())(logits)
    np.testing.assert_allclose(gradient, jax.nn.sigmoid(logits) - targets, atol=1e-7)


def test_squared_error_and_gaussian_nll_match_float64():
    logits, targets, _, _ = draw()
    error = np.square(sigmoid(logits) - targets).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(losses.squared_error(logits, targets), error, rtol=1e-5)
    expected = error / (2 * 0.3**2) + 20 * np.log(2 * np.pi * 0.3**2)
    np.testing.assert_allclose(losses.gaussian_nll(logits, targets, 0.3**2), expected, rtol=1e-5)


def test_kl_in_closed_form():
    # KL(N(m, s^2) || N(0, 1)) = (m^2 + s^2 - 1) / 2 - log s
    mean, sigma = 1.5, 0.2
    expected = (mean**2 + sigma**2 - 1) / 2 - np.log(sigma)
    kl = gaussian_kl(jnp.full((1, 4), mean), jnp.full((1, 4), 2 * np.log(sigma)))
    np.testing.assert_allclose(kl, [4 * expected], rtol=1e-6)
    assert gaussian_kl(jnp.zeros((2, 3)), jnp.zeros((2, 3))).tolist() == [0.0, 0.0]


def test_kl_keeps_precision_near_the_prior():
    # For log_var = e the term is e^2 / 4 + O(e^3); exp(e) - 1 - e would lose it in float32.
    log_var = jnp.full((1, 1), 1e-4)
    np.testing.assert_allclose(gaussian_kl(jnp.zeros((1, 1)), log_var), [0.25e-8], rtol=0.05)


def test_kl_of_the_aggregate_matches_monte_carlo():
    mean, log_var = jnp.array([[0.7, -1.2]]), jnp.array([[-1.0, 0.5]])
    noise = jax.random.normal(jax.random.key(0), (200_000, 2))
    z = mean + jnp.exp(log_var / 2) * noise
    log_ratio = -0.5 * (noise**2 + log_var) + 0.5 * z**2
    np.testing.assert_allclose(
        gaussian_kl(mean, log_var)[0], jnp.mean(jnp.sum(log_ratio, -1)), rtol=0.01
    )


def test_bernoulli_entropy_is_the_floor_of_the_cross_entropy():
    _, targets, _, _ = draw()
    logits = np.log(targets) - np.log1p(-targets)
    np.testing.assert_allclose(
        losses.bernoulli_entropy(jnp.asarray(targets)),
        losses.bernoulli_nll(*on_device(logits, targets)),
        rtol=1e-5,
    )
    assert losses.bernoulli_entropy(jnp.ones((1, 2, 2, 1))).tolist() == [0.0]


def test_bernoulli_entropy_of_a_white_pixel_with_rounding_error_is_finite():
    white = jnp.full((1, 2, 2, 1), np.nextafter(np.float32(1), np.float32(2)))
    np.testing.assert_allclose(losses.bernoulli_entropy(white), [0.0], atol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("value", [-1e4, 1e4])
def test_saturated_logits_have_finite_loss_and_gradient(value, dtype):
    logits = jnp.full((1, 2, 2, 1), value, dtype)
    targets = jnp.full((1, 2, 2, 1), 0.5, dtype)

    def gradient(nll):
        return jax.value_and_grad(lambda x: nll(x, targets).sum())(logits)

    loss, slope = gradient(losses.bernoulli_nll)
    assert float(loss) == pytest.approx(4 * 0.5e4, rel=1e-2 if dtype == jnp.bfloat16 else 1e-6)
    np.testing.assert_array_equal(slope, np.full((1, 2, 2, 1), np.sign(value) * 0.5))
    loss, slope = gradient(losses.squared_error)
    assert float(loss) == 4 * 0.25 and not np.any(slope)  # Saturated: flat, but no NaN.
    loss, slope = gradient(lambda x, y: losses.gaussian_nll(x, y, 0.5))
    assert np.isfinite(loss) and not np.any(slope)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("value", [-1e4, 1e4])
def test_limited_log_var_has_finite_kl_and_gradient(value, dtype):
    def kl(log_var):
        limited = soft_limit(log_var).astype(jnp.float32)
        return gaussian_kl(jnp.zeros((1, 2)), limited).sum()

    value, slope = jax.value_and_grad(kl)(jnp.full((1, 2), value, dtype))
    assert np.isfinite(value) and float(value) > 14 and np.isfinite(slope).all()


def test_free_bits_floor_and_gradient():
    # Two dimensions: batch means 0.5 (above the floor of 0.3) and 0.1 (below).
    kl = jnp.array([[0.4, 0.2], [0.6, 0.0]])
    weights = jnp.ones(2)

    def total(kl):
        return jnp.mean(losses.free_bits_kl(kl, 0.3, weights, None))

    assert float(total(kl)) == pytest.approx(0.5 + 0.3)
    np.testing.assert_allclose(jax.grad(total)(kl), [[0.5, 0.0], [0.5, 0.0]])


def test_optimal_variance_is_the_minimum_of_the_gaussian_nll():
    logits, targets, _, _ = draw()
    weights = jnp.array([1.0, 1.0, 0.0])
    best = losses.optimal_variance(logits, targets, weights)
    error = np.square(sigmoid(logits) - targets)[:2].mean()
    np.testing.assert_allclose(best, error, rtol=1e-5)

    def nll(variance):
        return losses.weighted_mean(losses.gaussian_nll(logits, targets, variance), weights)

    assert abs(float(jax.grad(nll)(best))) < 1e-2
    assert nll(best) < min(nll(best * 0.9), nll(best * 1.1))


def test_unequal_shapes_raise():
    with pytest.raises(ValueError, match="one BHWC shape"):
        losses.bernoulli_nll(jnp.zeros((2, 4, 4, 1)), jnp.zeros((2, 4, 4, 3)))
    with pytest.raises(ValueError, match="one shape"):
        gaussian_kl(jnp.zeros((2, 4)), jnp.zeros((1, 4)))


def loss_of(logits, mean, log_var, targets, reduction, kl_weight):
    output = VAEOutput(logits, mean, log_var, mean)
    objective = Objective("bernoulli", reduction)
    return objective_terms(objective, output, targets, jnp.ones(len(logits)), kl_weight)


def test_reductions_against_their_definition_in_float64():
    logits, targets, mean, log_var = draw()
    p = sigmoid(logits)
    r = -(targets * np.log(p) + (1 - targets) * np.log(1 - p))
    k = 1 + log_var - mean**2 - np.exp(log_var)
    expected = {
        "sum": r.sum() / 3 + 2.5 * -0.5 * k.sum() / 3,
        "channel_mean": r.mean(-1).sum() / 3 + 2.5 * -0.5 * k.sum() / 3,
        "mean": r.mean() - 2.5 * k.mean(),
    }
    for reduction, value in expected.items():
        terms = loss_of(*on_device(logits, mean, log_var, targets), reduction, 2.5)
        assert float(terms["loss"]) == pytest.approx(value, rel=1e-5)
        assert float(terms["loss"]) == float(terms["recon"] + terms["kl_weighted"])
        assert float(terms["recon_nats"]) == pytest.approx(r.sum() / 3, rel=1e-5)
        assert float(terms["kl"]) == pytest.approx(-0.5 * k.sum() / 3, rel=1e-5)


def test_the_four_ways_to_add_the_kl_are_one_function():
    """After conversion of the weight, loss and gradients differ by one constant factor alone."""
    logits, targets, mean, log_var = (jnp.asarray(a) for a in draw())
    shape, z_dim = SHAPE[1:], 6
    height, width, channels = shape
    factors = {"sum": 1.0, "channel_mean": 1 / channels, "mean": 1 / (height * width * channels)}

    @partial(jax.jit, static_argnums=0)
    def gradients(reduction, weight):
        return jax.value_and_grad(
            lambda *args: loss_of(*args, targets, reduction, weight)["loss"], argnums=(0, 1, 2)
        )(logits, mean, log_var)

    reference = gradients("sum", 1.7)
    for reduction, factor in factors.items():
        weight = converted_weight(1.7, "sum", reduction, shape, z_dim)
        converted = gradients(reduction, weight)
        scaled = jax.tree.map(lambda x, f=factor: x / f, converted)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-7), scaled, reference
        )


@pytest.mark.parametrize(
    ("image_shape", "z_dim", "factor"),
    [((28, 28, 1), 12, 130.667), ((28, 28, 1), 2, 784), ((96, 96, 3), 256, 72),
     ((96, 96, 3), 200, 92.16)],
)  # fmt: skip
def test_published_conversion_factors(image_shape, z_dim, factor):
    weight = converted_weight(6.5e-4, "mean", "channel_mean", image_shape, z_dim)
    assert weight / 6.5e-4 == pytest.approx(factor, rel=1e-5)


def test_gradients_of_the_objective_match_finite_differences():
    logits, targets, mean, log_var = draw()
    with jax.enable_x64(True):
        arguments = tuple(jnp.asarray(a, jnp.float64) for a in (logits, mean, log_var))
        targets = jnp.asarray(targets, jnp.float64)
        loss = jax.jit(lambda *args: loss_of(*args, targets, "channel_mean", 1.3)["loss"])
        check_grads(loss, arguments, order=2)


def test_padding_does_not_count():
    logits, targets, mean, log_var = (jnp.asarray(a) for a in draw())
    output = VAEOutput(logits, mean, log_var, mean)
    weights = jnp.array([1.0, 1.0, 0.0])
    padded = objective_terms(Objective(), output, targets, weights, 1.0)
    alone = objective_terms(
        Objective(), VAEOutput(*(x[:2] for x in output)), targets[:2], jnp.ones(2), 1.0
    )
    for name, value in alone.items():
        assert float(padded[name]) == pytest.approx(float(value), rel=1e-6)
