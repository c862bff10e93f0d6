"""The linear VAE in closed form against trained ones, brute force and published identities."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from scipy.optimize import minimize

from vae_jax import losses
from vae_jax.metrics.linear_vae import (
    LIKELIHOODS,
    Spectrum,
    active_units,
    collapse_betas,
    image_spectrum,
    optimal_linear_vae,
)

EIGENVALUES = np.array([4.0, 2.0, 0.9, 0.5, 0.2, 0.1])
SPECTRUM = Spectrum(EIGENVALUES, 6)


def gaussian_data(count=128):
    """`[count, 6]` whose covariance has exactly `EIGENVALUES`, in rotated axes."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(count, 6))
    white = np.sqrt(count) * np.linalg.qr(noise - noise.mean(axis=0))[0]
    rotation = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    return white * np.sqrt(EIGENVALUES) @ rotation + 0.3


def start(z_dim, seed=0):
    """Parameters of a linear encoder and decoder; the posterior variance is one for all x."""
    rng = np.random.default_rng(seed)
    shapes = {"encoder": (6, z_dim), "offset": (1, z_dim), "log_var": (1, z_dim),
              "decoder": (z_dim, 6), "bias": (1, 6)}  # fmt: skip
    return {name: jnp.asarray(0.3 * rng.normal(size=shape)) for name, shape in shapes.items()}


def encode(params, x):
    mean = x @ params["encoder"] + params["offset"]
    return mean, jnp.broadcast_to(params["log_var"], mean.shape)


def error_of(params, z, x):
    return jnp.sum((z @ params["decoder"] + params["bias"] - x) ** 2, axis=1).mean()


def expected_terms(params, x):
    """Error and KL with the mean over the posterior noise in closed form."""
    mean, log_var = encode(params, x)
    noise = jnp.sum(jnp.exp(params["log_var"]).T * params["decoder"] ** 2)
    return error_of(params, mean, x) + noise, losses.gaussian_kl_per_dimension(mean, log_var).sum(
        -1
    ).mean()


def train(objective, x, z_dim, steps=3000):
    """Adam on posterior samples, as any VAE is trained; the step falls to 0 at the end."""
    tx = optax.adam(optax.cosine_decay_schedule(0.01, steps))

    def loss(params, key):
        mean, log_var = encode(params, x)
        z = mean + jnp.exp(log_var / 2) * jax.random.normal(key, mean.shape)
        return objective(
            error_of(params, z, x), losses.gaussian_kl_per_dimension(mean, log_var).sum(-1).mean()
        )

    def step(carry, key):
        params, state = carry
        updates, state = tx.update(jax.grad(loss)(params, key), state)
        return (optax.apply_updates(params, updates), state), None

    params = start(z_dim)
    keys = jax.random.split(jax.random.key(1), steps)
    (params, _), _ = jax.jit(lambda c: jax.lax.scan(step, c, keys))((params, tx.init(params)))
    return params


OBJECTIVES = {
    # beta = 1.2 has the level 0.6: three of four dimensions live.
    "squared_error": (1.2, lambda error, kl: error + 1.2 * kl),
    "gaussian": (2.0, lambda error, kl: error / (2 * 0.5**2) + 2.0 * kl),
    "optimal_sigma": (0.8, lambda error, kl: 3 * jnp.log(error) + 0.8 * kl),
}


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_a_trained_linear_vae_meets_the_prediction(likelihood):
    beta, objective = OBJECTIVES[likelihood]
    x = gaussian_data()
    params = train(objective, x, z_dim=4)
    best = optimal_linear_vae(SPECTRUM, 4, beta, likelihood, sigma=0.5)
    error, rate = expected_terms(params, x)
    assert float(error) == pytest.approx(best.distortion, rel=0.01)
    assert float(rate) == pytest.approx(best.rate, rel=0.01)
    variances = np.var(encode(params, x)[0], axis=0)
    assert np.sum(variances > 0.01) == active_units(SPECTRUM, 4, best.level)


@pytest.mark.parametrize("beta", [0.3, 1.2, 3.0])
def test_water_filling_is_the_brute_force_optimum_over_distortions(beta):
    """Each of Z = 4 components i of variance v costs 1/2 log(v / e) nats at the error e <= v."""
    variances = EIGENVALUES[:4]
    found = minimize(
        lambda share: np.sum(share * variances - beta / 2 * np.log(share)),
        np.full(4, 0.5),
        bounds=[(1e-6, 1.0)] * 4,
        tol=1e-12,
    ).x
    best = optimal_linear_vae(SPECTRUM, 4, beta)
    assert best.rate == pytest.approx(-0.5 * np.log(found).sum(), rel=1e-4)
    expected = (found * variances).sum() + EIGENVALUES[4:].sum()
    assert best.distortion == pytest.approx(expected, rel=1e-4)


def test_no_linear_encoder_and_decoder_do_better():
    """L-BFGS over every parameter of the model, from several starts, ends at the closed form."""
    beta, x = 1.2, gaussian_data()
    with jax.enable_x64(True):
        unravel = ravel_pytree(start(2))[1]

        def loss(flat):
            error, rate = expected_terms(unravel(flat), x)
            return error + beta * rate

        value = jax.jit(jax.value_and_grad(loss))
        found = min(
            minimize(value, ravel_pytree(start(2, seed))[0], jac=True).fun for seed in range(3)
        )
    best = optimal_linear_vae(SPECTRUM, 2, beta)
    predicted = best.distortion + beta * best.rate
    assert found == pytest.approx(predicted, rel=1e-6)


@pytest.mark.parametrize("beta", [0.1, 0.8, 1.7, 4.0])
def test_the_level_of_optimal_sigma_solves_its_equation(beta):
    best = optimal_linear_vae(SPECTRUM, 3, beta, "optimal_sigma")
    assert best.level == pytest.approx(beta * best.distortion / 6)


def test_optimal_sigma_at_beta_one_is_probabilistic_pca():
    """Tipping & Bishop: the noise variance is the mean of the eigenvalues that are left out."""
    best = optimal_linear_vae(SPECTRUM, 2, 1.0, "optimal_sigma")
    variance = EIGENVALUES[2:].mean()
    assert best.level == pytest.approx(variance)
    likelihood = 3 * np.log(2 * np.pi) + 0.5 * np.log(EIGENVALUES[:2]).sum()
    likelihood += 2 * np.log(variance) + 3
    assert best.recon + best.rate == pytest.approx(likelihood)


def test_optimal_sigma_that_loses_nothing_stops_at_the_floor_of_the_loss():
    best = optimal_linear_vae(SPECTRUM, 6, 0.5, "optimal_sigma")
    assert best.level == 0.5 * losses.MIN_OPTIMAL_VARIANCE
    assert np.isfinite(best.recon)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_dimensions_die_at_their_beta(likelihood):
    betas = collapse_betas(SPECTRUM, 4, likelihood, sigma=0.5)
    assert betas.shape == (4,) and np.all(np.diff(betas) < 0)
    before, after = (
        [optimal_linear_vae(SPECTRUM, 4, beta, likelihood, sigma=0.5) for beta in betas * factor]
        for factor in (0.999, 1.001)
    )
    assert [best.active for best in before] == [1, 2, 3, 4]
    assert [best.active for best in after] == [0, 1, 2, 3]
    assert after[0].rate == 0 and after[0].distortion == pytest.approx(EIGENVALUES.sum())


def test_active_units_need_a_variance_above_the_threshold():
    assert active_units(SPECTRUM, 6, 0.8999) == 2  # 0.9 lives, but its mean varies by 1e-4
    assert active_units(SPECTRUM, 6, 0.8) == 3


@pytest.mark.parametrize("count", [9, 40])
def test_the_spectrum_is_that_of_the_covariance(count):
    """More images than values, and fewer: the eigenvalues that both have are the same."""
    images = np.random.default_rng(0).integers(0, 256, (count, 4, 3, 2), np.uint8)
    flat = images.reshape(count, 24) / 255
    expected = np.linalg.eigvalsh(np.cov(flat.T, bias=True))[::-1]
    spectrum = image_spectrum(images)
    kept = min(count, 24)
    assert spectrum.dimensions == 24 and spectrum.eigenvalues.shape == (kept,)
    np.testing.assert_allclose(spectrum.eigenvalues, expected[:kept], atol=1e-6)


def test_what_has_no_closed_form_is_refused():
    with pytest.raises(ValueError, match="'bernoulli' has no closed form"):
        optimal_linear_vae(SPECTRUM, 4, 1.0, "bernoulli")
    with pytest.raises(ValueError, match="positive"):
        optimal_linear_vae(SPECTRUM, 4, 0.0)
