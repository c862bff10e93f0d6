"""Parameter counts of the reference models, shapes, sampling, conditioning, numerics."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import celeba, keras_example, mnist_z12, tiny
from vae_jax.models.blocks import Dropout
from vae_jax.models.encoder import soft_limit
from vae_jax.models.vae import latent_noise, make_vae, reparameterize
from vae_jax.run import network_shapes
from vae_jax.train.state import init_variables


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def build(config, **model_fields):
    config.model.update(model_fields)
    return make_vae(config.model, config.data.image_shape)


@pytest.mark.parametrize(
    ("module", "z_dim", "encoder", "decoder"),
    [
        (celeba, 256, 5_109_440, 2_757_571),
        (mnist_z12, 12, 243_224, 174_081),
    ],
)
def test_parameter_counts_of_the_reference_networks(module, z_dim, encoder, decoder):
    items = network_shapes(build(module.get_config(), z_dim=z_dim), label_dim=0)
    assert count(items["encoder"]) == encoder
    assert count(items["decoder"]) == decoder


@pytest.mark.parametrize(
    ("module", "z_dim", "total"),
    [
        (celeba, 256, 7_867_011),
        (celeba, 200, 6_318_611),
        (celeba, 512, 14_945_411),
        (mnist_z12, 12, 417_305),
        (mnist_z12, 2, 229_125),
        (keras_example, 2, 134_165),
    ],
)
def test_total_parameter_counts(module, z_dim, total):
    assert count(network_shapes(build(module.get_config(), z_dim=z_dim), label_dim=0)) == total


def test_trainable_parameters_leave_out_the_running_statistics():
    items = network_shapes(build(celeba.get_config()), label_dim=0)
    assert count(items["encoder"]["params"]) == 5_108_480
    assert count(items["decoder"]["params"]) == 2_757_123


@pytest.fixture(scope="module")
def tiny_model():
    model = build(tiny.get_config())
    images = jax.random.uniform(jax.random.key(1), (3, 16, 16, 3))
    return model, init_variables(model, jax.random.key(0)), images


def test_shapes_and_the_mean_is_decoded_when_nothing_is_sampled(tiny_model):
    model, variables, images = tiny_model
    output = model.apply(variables, images, train=False, sample=False)
    assert output.logits.shape == (3, 16, 16, 3)
    assert output.mean.shape == output.log_var.shape == (3, 4)
    np.testing.assert_array_equal(output.z, output.mean)
    np.testing.assert_allclose(
        model.apply(variables, output.mean, method="decode"), output.logits, rtol=1e-5, atol=1e-6
    )


def test_sampling_adds_the_scaled_noise_of_the_stream(tiny_model):
    model, variables, images = tiny_model
    rngs = {"latent": jax.random.key(5)}
    first = model.apply(variables, images, train=False, sample=True, rngs=rngs)
    again = model.apply(variables, images, train=False, sample=True, rngs=rngs)
    np.testing.assert_array_equal(first.z, again.z)
    noise = (first.z - first.mean) / jnp.exp(first.log_var / 2)
    assert 0.1 < float(jnp.abs(noise).mean()) < 3
    other = model.apply(
        variables, images, train=False, sample=True, rngs={"latent": jax.random.key(6)}
    )
    assert not np.allclose(first.z, other.z)


def test_noise_of_the_first_dimensions_does_not_depend_on_z_dim():
    key = jax.random.key(3)
    np.testing.assert_array_equal(
        latent_noise(key, 7, 2, jnp.float32), latent_noise(key, 7, 5, jnp.float32)[:, :2]
    )


def test_reparameterize_has_the_posterior_moments():
    noise = jax.random.normal(jax.random.key(0), (200_000, 1))
    z = reparameterize(jnp.full_like(noise, 2.0), jnp.full_like(noise, jnp.log(0.25)), noise)
    assert float(z.mean()) == pytest.approx(2.0, abs=0.01)
    assert float(z.std()) == pytest.approx(0.5, abs=0.01)


def test_masked_images_do_not_touch_the_batch_statistics(tiny_model):
    model, variables, images = tiny_model

    @jax.jit
    def statistics(images, mask):
        rngs = {"latent": jax.random.key(0)}
        return model.apply(
            variables, images, train=True, sample=False, mask=mask, rngs=rngs,
            mutable=["batch_stats"],
        )[1]  # fmt: skip

    alone = statistics(images[:2], None)
    padded = statistics(images, jnp.array([True, True, False]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), alone, padded)


def test_a_label_reaches_encoder_and_decoder():
    model = build(tiny.get_config())
    variables = init_variables(model, jax.random.key(0), label_dim=3)
    images = jnp.full((2, 16, 16, 3), 0.5)
    labels = jnp.eye(3)[:2]
    assert variables["params"]["encoder"]["mean"]["kernel"].shape == (4 * 4 * 8 + 3, 4)
    assert variables["params"]["decoder"]["dense"]["kernel"].shape == (4 + 3, 4 * 4 * 8)
    output = jax.jit(partial(model.apply, train=False, sample=False))(
        variables, images, labels=labels
    )
    assert not np.allclose(output.mean[0], output.mean[1])
    same_z = jnp.zeros((2, 4))
    decoded = jax.jit(partial(model.apply, method="decode"))(variables, same_z, labels)
    assert not np.allclose(decoded[0], decoded[1])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("bias", [-1e4, 1e4])
def test_extreme_log_var_has_a_finite_gradient(bias, dtype):
    model = build(tiny.get_config(), dtype=dtype)
    variables = init_variables(model, jax.random.key(0))
    params = variables["params"]
    params["encoder"]["log_var"]["bias"] += bias
    images = jnp.full((2, 16, 16, 3), 0.5)

    def loss(params):
        output = model.apply(
            variables | {"params": params}, images, train=False, sample=True,
            rngs={"latent": jax.random.key(0)},
        )  # fmt: skip
        return jnp.sum(jnp.exp(output.log_var)) + jnp.sum(jnp.square(output.z))

    value, gradient = jax.jit(jax.value_and_grad(loss))(params)
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_soft_limit_is_the_identity_where_posteriors_live():
    x = np.linspace(-20, 20, 41, dtype=np.float32)
    np.testing.assert_array_equal(jax.jit(soft_limit)(x), x)
    assert float(jax.jit(soft_limit)(np.float32(1e4))) == 30.0
    assert float(jax.jit(jax.grad(soft_limit))(25.0)) > 0.5


@pytest.mark.parametrize("activation", ["leaky_relu", "relu", "selu"])
def test_dropout_drops_at_its_rate(activation):
    model = build(tiny.get_config(), activation=activation, dropout=0.4, norm="none",
                  kernel_init="lecun_normal")  # fmt: skip
    variables = init_variables(model, jax.random.key(0))
    images = jax.random.uniform(jax.random.key(1), (4, 16, 16, 3))

    @jax.jit
    def dropped(key):
        return model.apply(
            variables, images, train=True, sample=False, rngs={"dropout": key}
        ).mean  # fmt: skip

    outputs = [dropped(jax.random.key(k)) for k in (0, 0, 1)]
    np.testing.assert_array_equal(outputs[0], outputs[1])
    assert not np.allclose(outputs[0], outputs[2])


def test_alpha_dropout_keeps_mean_and_variance():
    x = jax.random.normal(jax.random.key(0), (200_000,))
    y = Dropout(0.3, alpha=True).apply({}, x, False, rngs={"dropout": jax.random.key(1)})
    assert float(y.mean()) == pytest.approx(0.0, abs=0.01)
    assert float(y.var()) == pytest.approx(1.0, abs=0.02)


def test_bfloat16_computes_close_to_float32_and_keeps_float32_parameters():
    images = jax.random.uniform(jax.random.key(1), (2, 16, 16, 3))
    outputs = {}
    for dtype in ("float32", "bfloat16"):
        model = build(tiny.get_config(), dtype=dtype)
        variables = init_variables(model, jax.random.key(0))
        assert {leaf.dtype.name for leaf in jax.tree.leaves(variables)} == {"float32"}
        program = jax.jit(partial(model.apply, train=False, sample=False))
        outputs[dtype] = program(variables, images)
        assert {leaf.dtype.name for leaf in outputs[dtype]} == {"float32"}
    np.testing.assert_allclose(outputs["bfloat16"].logits, outputs["float32"].logits, atol=0.05)


def test_rematerialisation_changes_no_gradient(tiny_model):
    model, variables, images = tiny_model

    def gradient(model):
        def loss(params):
            output, _ = model.apply(
                variables | {"params": params}, images, train=True, sample=False,
                mutable=["batch_stats"],
            )  # fmt: skip
            return jnp.sum(jnp.square(output.logits))

        return jax.jit(jax.grad(loss))(variables["params"])

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
        gradient(model.clone(remat=True)),
        gradient(model),
    )
