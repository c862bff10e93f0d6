"""What a model is told: draws, codes and masks; gates that begin as nothing; a pair folded in."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from told_models import RANGE, SIZES, told_config

from vae_jax.config import what_is_told
from vae_jax.models.told import Pair
from vae_jax.models.vae import at_pair, make_vae
from vae_jax.train.state import init_variables

BOTH = ("kl_weight", "z_dim")


def pairs_of(kl_weight, z_dim, count=3):
    return Pair(jnp.full(count, kl_weight, jnp.float32), jnp.full(count, z_dim, jnp.float32))


def build(names=BOTH, label_dim=0, **fields):
    config = told_config(names, **fields)
    model = make_vae(config.model, config.data.image_shape, what_is_told(config))
    return model, init_variables(model, jax.random.key(0), label_dim)


def learned(variables):
    """The variables with every parameter and statistic moved, as training would."""
    rng = np.random.default_rng(7)
    return jax.tree.map(lambda x: x + 0.2 * rng.random(x.shape, np.float32), variables)


@partial(jax.jit, static_argnums=0)
def output_of(model, variables, **inputs):
    """Of the trained network: `inputs` as its call takes them, beside IMAGES."""
    return model.apply(variables, IMAGES, train=False, sample="noise" in inputs, **inputs)


IMAGES = jax.random.uniform(jax.random.key(1), (3, 16, 16, 3))


def test_weights_are_log_uniform_and_sizes_equally_frequent():
    told = what_is_told(told_config())
    pair = told.draw(jax.random.key(0), 30_000, Pair(3.0, 4))
    logs = np.log10(np.asarray(pair.kl_weight, np.float64))
    assert -1 - 1e-6 <= logs.min() < -0.99 and 0.99 < logs.max() <= 1 + 1e-6
    np.testing.assert_allclose(np.quantile(logs, [0.25, 0.5, 0.75]), [-0.5, 0, 0.5], atol=0.03)
    batch = told.draw(jax.random.key(1), 64, Pair(3.0, 4))
    tenths = np.histogram(np.log10(batch.kl_weight), 8, (-1, 1))[0]
    assert tenths.min() >= 6  # 8 of 64 each, far more even than independent draws
    sizes, counts = np.unique(pair.z_dim, return_counts=True)
    assert sizes.tolist() == list(SIZES)
    np.testing.assert_allclose(counts / 30_000, 1 / 3, atol=0.01)


def test_what_is_not_told_is_fixed():
    pair = what_is_told(told_config(["z_dim"])).draw(jax.random.key(0), 50, Pair(3.0, 4))
    assert np.unique(pair.kl_weight).tolist() == [3.0] and len(np.unique(pair.z_dim)) == 3
    pair = what_is_told(told_config(["kl_weight"])).draw(jax.random.key(0), 50, Pair(3.0, 4))
    assert np.unique(pair.z_dim).tolist() == [4] and len(np.unique(pair.kl_weight)) == 50


def test_the_code_is_made_of_log_beta_and_log_z_from_end_to_end():
    told = what_is_told(told_config())
    pairs = Pair(jnp.asarray([0.1, 1.0, 10.0, 10.0]), jnp.asarray([1.0, 2.0, 4.0, 2**1.5]))
    expected = [  # b, its square, s, the hats of three sizes, and b times these
        [-1, 1, -1, 1, 0, 0, 1, -1, 0, 0],
        [0, 0, 0, 0, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 1, 1, 0, 0, 1],
        [1, 1, 0.5, 0, 0.5, 0.5, 0.5, 0, 0.5, 0.5],
    ]
    np.testing.assert_allclose(told.code(pairs), expected, atol=1e-6)
    assert told.code(pairs).shape[1] == told.width
    for name, width in (("kl_weight", 2), ("z_dim", 4)):
        alone = what_is_told(told_config([name]))
        assert alone.code(pairs).shape[1] == alone.width == width
    # With means everywhere, beta is 2 w H W C / Z: it is largest at the smallest Z.
    told = what_is_told(told_config(**{"loss.reduction": "mean"}))
    weights, sizes = jnp.asarray([0.1, 10.0, 10.0]), jnp.asarray([4.0, 1.0, 4.0])
    log_beta = np.log(2 * np.asarray(weights) * 16 * 16 * 3 / np.asarray(sizes))
    expected = 2 * (log_beta - log_beta[0]) / (log_beta[1] - log_beta[0]) - 1
    np.testing.assert_allclose(told.code(Pair(weights, sizes))[:, 0], expected, atol=1e-5)


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_gates_change_nothing_before_training(norm):
    model, variables = build(**{"model.norm": norm})
    untold = model.clone(told=None)
    plain = init_variables(untold, jax.random.key(0))
    shared = jax.tree.map(lambda _, own: own, plain, subset(variables, plain))
    for pair in (pairs_of(0.1, 4), pairs_of(10.0, 4)):
        output = output_of(model, variables, pair=pair)
        expected = output_of(untold, shared)
        jax.tree.map(np.testing.assert_array_equal, output, expected)


def subset(tree, like):
    """The part of a tree that another one has, too."""
    if not isinstance(like, dict):
        return tree
    return {name: subset(tree[name], inner) for name, inner in like.items()}


def test_a_told_model_is_opened_at_a_pair_before_it_encodes_or_decodes():
    model, variables = build()
    with pytest.raises(ValueError, match="answers for a pair only"):
        model.apply(variables, jnp.zeros((1, 4)), method="decode")


@pytest.mark.parametrize(
    ("norm", "names"),
    [("batch", BOTH), ("batch", ("kl_weight",)), ("batch", ("z_dim",)), ("none", BOTH)],
)
def test_a_pair_folded_into_the_weights_is_the_told_model_at_this_pair(norm, names):
    """Also with dense layers and labels, whose rows follow those of z."""
    fields = {"model.norm": norm, "model.encoder.dense": (5,)}
    model, variables = build(names, label_dim=2, **fields)
    variables, labels = learned(variables), jnp.eye(3, 2)
    z_dim = 2 if "z_dim" in names else 4
    pair = pairs_of(0.5, z_dim)
    mask = model.told.z_mask(pair) if "z_dim" in names else None
    output = output_of(model, variables, labels=labels, z_mask=mask, pair=pair)
    alone, folded = at_pair(model, variables, Pair(0.5, z_dim))
    assert alone.told is None and alone.z_dim == z_dim
    found = output_of(alone, folded, labels=labels)
    np.testing.assert_allclose(found.mean, output.mean[:, :z_dim], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.log_var, output.log_var[:, :z_dim], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.logits, output.logits, rtol=1e-4, atol=1e-5)
    other, moved = at_pair(model, variables, Pair(0.5 if names == ("z_dim",) else 5.0, 4))
    assert not np.allclose(output_of(other, moved, labels=labels).logits, found.logits)


def test_dimensions_that_a_pair_leaves_out_hold_no_information():
    model, variables = build()
    variables, pair = learned(variables), pairs_of(1.0, 2)
    mask = model.told.z_mask(pair)
    np.testing.assert_array_equal(mask, [[1, 1, 0, 0]] * 3)

    def logits(noise):
        return output_of(model, variables, noise=noise, z_mask=mask, pair=pair).logits

    noise = jax.random.normal(jax.random.key(3), (3, 4))
    changed = logits(noise.at[:, 2:].add(5.0))
    np.testing.assert_array_equal(changed, logits(noise))
    assert not np.allclose(logits(noise.at[:, :2].add(5.0)), changed)


def test_ranges_are_those_of_the_config():
    told = what_is_told(told_config())
    assert (told.kl_weight, told.z_dim) == (RANGE, SIZES)
