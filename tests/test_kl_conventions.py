"""Each row of the table of KL weights against its library's loss, written out again here."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.kl_conventions import (
    CONVENTIONS,
    Setting,
    config_lines,
    describe,
    gaussian_variance,
    get_convention,
)
from vae_jax.losses import Objective
from vae_jax.train.step import objective_terms
from vae_jax.types import UserError, VAEOutput

SETTING = Setting((5, 4, 3), z_dim=6, batch_size=3, train_count=1000)
ROWS = [(name, row) for name, rows in CONVENTIONS.items() for row in rows.likelihoods]


def cross_entropy(x, p):
    return -(x * jnp.log(p) + (1 - x) * jnp.log(1 - p))


def square(x, p):
    return (x - p) ** 2


PIXEL_LOSS = {"bernoulli": cross_entropy, "squared_error": square}


def kl_terms(mean, log_var):
    return -0.5 * (1 + log_var - mean**2 - jnp.exp(log_var))


def means_everywhere(x, p, mean, log_var, w, pixel_loss):
    kl = -w * jnp.mean(1 + log_var - mean**2 - jnp.exp(log_var), axis=-1)
    return jnp.mean(jnp.mean(pixel_loss(x, p)) + kl)


def keras_step(x, p, mean, log_var, w, pixel_loss):
    reconstruction = jnp.mean(jnp.sum(jnp.mean(pixel_loss(x, p), axis=-1), axis=(1, 2)))
    return reconstruction + w * jnp.mean(jnp.sum(kl_terms(mean, log_var), axis=1))


def later_book(x, p, mean, log_var, w, pixel_loss):
    reconstruction = jnp.mean(jnp.sum(jnp.mean(pixel_loss(x, p), axis=-1), axis=(1, 2)))
    return reconstruction + w * jnp.mean(kl_terms(mean, log_var))


def pytorch_vae(x, p, mean, log_var, w, pixel_loss):
    return jnp.mean(pixel_loss(x, p)) + w * jnp.mean(jnp.sum(kl_terms(mean, log_var), axis=1))


def pytorch_vae_2020(x, p, mean, log_var, w, pixel_loss):
    x, p, m_n = 2 * x - 1, 2 * p - 1, SETTING.batch_size / SETTING.train_count
    return pytorch_vae(x, p, mean, log_var, w * m_n, pixel_loss)


def sums(x, p, mean, log_var, w, pixel_loss):
    reconstruction = jnp.sum(pixel_loss(x, p).reshape(len(x), -1), axis=-1)
    return jnp.mean(reconstruction + w * jnp.sum(kl_terms(mean, log_var), axis=-1))


def half_sums(x, p, mean, log_var, w, pixel_loss):
    return sums(x, p, mean, log_var, w, lambda x, p: 0.5 * pixel_loss(x, p))


def sums_over_the_batch_too(x, p, mean, log_var, w, pixel_loss):
    return jnp.sum(pixel_loss(x, p)) + w * jnp.sum(kl_terms(mean, log_var))


def diffusers(x, p, mean, log_var, w, pixel_loss):
    error = pixel_loss(2 * x - 1, 2 * p - 1)
    kl = jnp.sum(kl_terms(mean, log_var), axis=-1)
    return jnp.sum(error) / len(x) + w * jnp.sum(kl) / len(x)


LIBRARIES = {
    "sum": sums,
    "channel_mean": keras_step,
    "mean": means_everywhere,
    "keras_series_layer": means_everywhere,
    "keras_series_step": keras_step,
    "keras_io": keras_step,
    "book_first_edition": means_everywhere,
    "book_later_editions": later_book,
    "pytorch_vae": pytorch_vae,
    "pytorch_vae_2020": pytorch_vae_2020,
    "pythae_mse": half_sums,
    "pythae_bce": sums,
    "flax_example": sums,
    "pytorch_example": sums_over_the_batch_too,
    "disentanglement_lib": sums,
    "diffusers_autoencoder_kl": diffusers,
}


def gradient(loss, logits, mean, log_var):
    parts = jax.grad(loss, argnums=(0, 1, 2))(logits, mean, log_var)
    return np.concatenate([np.ravel(part) for part in parts])


@pytest.mark.parametrize(("name", "likelihood"), ROWS)
def test_the_library_s_gradient_is_ours_at_the_converted_weight(name, likelihood):
    row, weight = CONVENTIONS[name], 0.37
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        shape = (SETTING.batch_size, *SETTING.image_shape)
        logits, x = jnp.asarray(rng.normal(size=shape)), jnp.asarray(rng.uniform(size=shape))
        mean, log_var = jnp.asarray(rng.normal(size=(2, SETTING.batch_size, SETTING.z_dim)))

        def theirs(logits, mean, log_var):
            pixel_loss = PIXEL_LOSS[likelihood]
            return LIBRARIES[name](x, jax.nn.sigmoid(logits), mean, log_var, weight, pixel_loss)

        def ours(logits, mean, log_var):
            output = VAEOutput(logits, mean, log_var, mean)
            beta, weights = row.beta(weight, SETTING), jnp.ones(SETTING.batch_size)
            objective = Objective(likelihood, "sum")
            return objective_terms(objective, output, x, weights, beta)["loss"]

        library = gradient(theirs, logits, mean, log_var)
        expected = row.recon(SETTING) * gradient(ours, logits, mean, log_var)
    np.testing.assert_allclose(library, expected, atol=1e-6 * np.abs(expected).max(), rtol=1e-6)


def test_the_weight_of_pytorch_vae_is_beta_three():
    setting = Setting((64, 64, 3), 128, 144, 162_770)
    row = get_convention("pytorch_vae")
    beta = row.beta(row.published, setting)
    assert beta == pytest.approx(3.072)
    assert row.beta(1.0, setting) == 12288  # what it validates with
    assert CONVENTIONS["channel_mean"].weight(beta, setting) == pytest.approx(1.024)
    assert CONVENTIONS["pythae_mse"].weight(beta, setting) == pytest.approx(1.536)


def test_batch_over_data_set_is_the_weight_of_2020():
    # 144 of 162,770 images; the error is four times as large in [-1, 1].
    beta = CONVENTIONS["pytorch_vae_2020"].beta(1.0, Setting((64, 64, 3), 128, 144, 162_770))
    assert beta == pytest.approx(144 / 162770 * 12288 / 4)


@pytest.mark.parametrize("row", CONVENTIONS.values(), ids=lambda row: row.name)
def test_weight_and_beta_are_inverse(row):
    assert row.weight(row.beta(0.2, SETTING), SETTING) == pytest.approx(0.2)


def test_config_lines_of_both_forms_have_one_gradient():
    """R/(2 sigma^2) + K is the squared error with weight beta, divided by beta."""
    beta = 3.072
    squared, gaussian = config_lines(beta, "squared_error"), config_lines(beta, "gaussian")
    assert squared[-1] == "config.loss.kl_weight = 3.072"
    assert gaussian[-1] == "config.loss.kl_weight = 1"
    sigma = float(gaussian[1].split()[-1])
    assert sigma**2 == pytest.approx(gaussian_variance(beta), rel=1e-5)
    x, logits = jnp.full((1, 2, 2, 1), 0.2), jnp.full((1, 2, 2, 1), 0.7)
    latent = jnp.full((1, 3), 0.4)

    def slopes(objective, weight):
        def loss(logits, mean):
            output = VAEOutput(logits, mean, latent, mean)
            return objective_terms(objective, output, x, jnp.ones(1), weight)["loss"]

        return np.concatenate([np.ravel(g) for g in jax.grad(loss, (0, 1))(logits, latent)])

    np.testing.assert_allclose(
        slopes(Objective("gaussian", "sum", sigma=sigma), 1.0) * beta,
        slopes(Objective("squared_error", "sum"), beta),
        rtol=1e-5,
    )


def test_an_unknown_convention_is_named():
    with pytest.raises(UserError, match="'torch' is unknown; known are sum, channel_mean"):
        get_convention("torch")


def test_the_text_has_beta_every_weight_and_the_config():
    row, setting = CONVENTIONS["pytorch_vae"], Setting((64, 64, 3), 128, 144, 162_770)
    text = describe(row, 0.00025, "squared_error", setting)
    assert "beta = 3.072," in text and row.source in text
    for name in CONVENTIONS:
        assert f"  {name} " in text
    same, other = text.split("The same beta")
    assert "pythae_mse" in same and "keras_io" in other
    assert "config.loss.sigma = 1.23935" in text
    assert "sigma" not in describe(CONVENTIONS["keras_io"], 1.0, "bernoulli", setting)
